"""For a loss that can be evaluated again: line searches, and L-BFGS, which gives them a direction."""
