"""Looking into an optimizer before the run."""
