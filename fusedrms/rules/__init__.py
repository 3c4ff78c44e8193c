"""Update rules that users write: from a Python function with torch's words to the source of a rule for both drivers.

May import: fusedrms.engine.*, kernels.*.
"""
