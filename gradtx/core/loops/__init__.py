"""What is done to each element of a leaf, as one loop of C in place of XLA's several."""
