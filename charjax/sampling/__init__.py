"""New text drawn from a model."""
