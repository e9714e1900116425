"""What runs: programs, the layout of the state, and one update of one tree."""
