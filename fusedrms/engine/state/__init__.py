"""What is kept for each parameter, how it lies in memory, and checks of it.

May import: fusedrms.engine.sharded, kernels.*.
"""
