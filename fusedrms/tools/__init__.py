"""The command fusedrms and what it reads. `import fusedrms` loads none of it, and no rich.

May import: fusedrms.*, kernels.*.
"""
