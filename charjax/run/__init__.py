"""A training run: what it will be, its loop, and `fit`."""
