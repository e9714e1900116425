"""Optimizers and their states as plain data, which goes anywhere, and as other libraries have them.

`to_config` and `from_config` write and build transforms, of the `forms` that a config has. `state_dict` takes
states as named arrays, which `archive` stores so that damage is found, and `restored` says what became of
them. `optax` and `torch` move runs in and out; what they share is in `fitting`.
"""
