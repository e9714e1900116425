"""Moving in from torch, and back: one table of its optimizers, read in both directions.

`table` says what each option and entry is here, `dict` reads a state dict, `match` finds the leaf of each
parameter, `check` compares the options with a transform, and `move` has the functions.
"""
