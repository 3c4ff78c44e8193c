"""`make gpu`: parts that run whatever happens to the others, and two of them.

May import: fusedrms.*, kernels.*, bench.common, bench.timing, examples, tests.helpers.
"""
