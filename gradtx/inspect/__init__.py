"""Looking into a transform: what it computes, as mathematics.

To read in this order: `expression`, `simplify`, `numeric` and `notation` are expressions by themselves;
`runs` and `interpret` read a traced function as such; `naming`, `trace` and `presentation` give them the
names of a transform's state; `formula` prints them, and `decay` and `direction` compute with them.
"""
