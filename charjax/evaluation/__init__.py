"""A text scored by a model."""
