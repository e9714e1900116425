"""What a transform computes, as mathematics that is read from what runs.

Each module needs those before it: `expression` is the graph, `simplify` its exact rules, `numeric` its
values. `writing` is the one walk by which it is written, `notation` has the forms for people and for
Python, and `latex` the one for papers. `runs` and `interpret` read a traced function, `naming` and `trace` a
transform; `presentation` and `formula` show it, and `leaf_groups` has it for leaves that are alike. `period`,
`scaling`, `decay` and `direction` say what follows from a formula. One goes the other way, inside of its
methods: an expression writes itself by `notation` and `latex`.
"""
