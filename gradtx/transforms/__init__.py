"""Transforms: one concept a file, each a rule and the function that makes it."""
