"""The reference pages of the site, made from what the code says.

`concepts` has the groups of names, and `names` finds them in text. `docstring` reads docstrings, and `guides`
the pages beside the reference. `latex` writes formulas, and `formulas` has those of a page. `pages` writes
the pages, and `links` joins the guides to them.
"""
