"""Who owns the memory that a launch reads and writes, and whether its addresses still hold.

May import: fusedrms.engine.sharded, kernels.*.
"""
