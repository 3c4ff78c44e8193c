"""The Numba driver: the same rules over the same tables. Imports what is shared in kernels, nothing of gpu."""
