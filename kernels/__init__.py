"""The hand-written kernels: update rules, and the two drivers (Triton, Numba) that run them over tables of addresses.

`launch.py` alone imports the drivers.

May import: nothing.
"""
