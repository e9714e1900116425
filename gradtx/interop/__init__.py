"""States of other libraries: moving in, and moving back."""
