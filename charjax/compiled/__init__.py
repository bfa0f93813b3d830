"""A run's programs compiled for devices that need not be here, and what the compilers say.

`compile_for.py` starts a process for each program, since a compiler may crash or hang;
`child.py` is what runs there. `targets.py` says what there is to compile for, `programs.py`
what is compiled; the other files read what comes out.
"""
