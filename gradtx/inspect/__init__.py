"""Looking into a transform: what it computes, as mathematics."""
