"""What a user writes: values that print as the call that builds them, their arguments and their fields."""
