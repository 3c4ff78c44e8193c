"""The Numba driver: the same rules over the same tables.

May import: kernels.
"""
