"""What people and scripts see of a run: metrics, samples, curves, progress."""
