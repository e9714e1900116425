"""Looking into a transform before the run.

`outline` finds what stands inside of what, `survey` on which leaves of a tree and with what state; `courses`
are its schedules over a run. `describe` makes of it a `description`; `check` the `findings`, some of which
`rates`, `rounding` and `storage` compute. `diff` follows two transforms along their `trajectory` to a
`divergence`, takes them apart by `calls`, and makes the `changes` between them one by one. `table` and
`words` are for printing, and `plot` draws.
"""
