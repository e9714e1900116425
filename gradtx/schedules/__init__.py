"""Schedules: values over steps, made of numbers alone."""
