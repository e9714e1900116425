"""Looking into a transform before the run.

`outline` finds which parts stand inside which, `survey` on which leaves they work and with what state,
`kept_slots` what each slot keeps of each leaf and in which format, and `schedules_over_run` how schedules go
over a run. `describe` puts this into a `description`, `state_bytes` the sizes into `bytes`. `check` makes
`findings` of it, some of which `rates`, `rounding` and `storage` compute. `diff` follows two transforms along
their `trajectory` to a `divergence`, takes them apart by `calls`, and makes the `changes` between them one
by one. `overview` is what a notebook shows of a transform. `table` and `docstrings` are for printing, and
`plot` draws, in the `style` of all pictures.
"""
