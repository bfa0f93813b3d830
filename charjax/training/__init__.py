"""The optimizer, the state, its placement on devices, and the pure steps."""
