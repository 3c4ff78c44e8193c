"""What every optimizer is made of: options, tables, checkpoints.

May import: fusedrms.engine.*, kernels.*.
"""
