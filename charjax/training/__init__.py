"""The optimizer, the state and the pure steps."""
