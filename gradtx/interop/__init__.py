"""Optimizers and their states as plain data, which goes anywhere."""
