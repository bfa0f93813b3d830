"""The programs that are compiled, by name."""

TRAINING, EVALUATION, READING, SAMPLING = "training", "evaluation", "reading", "sampling"

PROGRAMS = (TRAINING, EVALUATION, READING, SAMPLING)
"""What a run compiles: the step, scoring, reading a text, and drawing one."""

LAYER = "layer"
"""One layer over time with its gradient."""
