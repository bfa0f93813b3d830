"""One layer over time: a contract, and an implementation of it in each file.

    run(cell, dtype, layer, inputs, state, reset, length, layout, place) -> hidden, state

`plain.py` is the reference, to which every other one is equal; `choose.py` says which runs.
"""
