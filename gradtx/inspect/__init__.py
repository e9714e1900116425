"""Looking into a transform before the run.

`outline` finds what stands inside of what, on which leaves and in how many bytes; `courses` are its
schedules over a run. `describe` makes of it a `description`; `check` the `findings`, some of which `rounding`
and `storage` compute. `diff` follows two transforms along their `trajectory` and makes the `changes` between
them one by one. `table` and `words` are for printing, and `plot` draws.
"""
