"""Transforms of transforms: accumulation, guards, groups, averages."""
