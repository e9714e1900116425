"""Hyperparameters as numbers in the state: schedules, domains, reading and setting."""
