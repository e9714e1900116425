"""Moving in from torch, and back: one table of its optimizers, read in both directions.

`table` says what each option and entry is here, `state_dict` reads one of torch, `match` finds the leaf of
each parameter, `check` compares the options with a transform, `rate` has the learning rates, and `move` the
functions.
"""
