"""Parameters and pure functions over them; no file, no clock, no command line.

Shapes in docstrings use one legend: `b` rows of a batch, `t` time steps, `v` symbols of
the vocabulary, `e` width of a layer's input, `g` gates of the cell, `h` hidden units,
`l` layers. Time runs first inside this room (`[t, b, ...]`), rows first outside it.
"""
