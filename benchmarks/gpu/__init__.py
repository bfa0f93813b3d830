"""What a GPU is asked where one can be had for some minutes: `python -m benchmarks gpu`."""
