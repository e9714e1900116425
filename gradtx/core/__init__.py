"""The engine: see README.md in this folder."""
