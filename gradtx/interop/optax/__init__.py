"""Moving in from Optax, and back: one table of its states, read in both directions.

`states` reads the nested states into a list, `table` says which field is which slot, `match` matches both
with a program, `counts` gathers the counters, `values` takes and gives the arrays, and `move` has the
functions.
"""
