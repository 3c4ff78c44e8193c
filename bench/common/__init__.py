"""What all commands need: arguments, the machine, result files, how figures are written.

May import: fusedrms.*, kernels.*.
"""
