"""Looking into a transform before the run: what it computes, where, and what it costs."""
