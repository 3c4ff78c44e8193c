"""One question each, a command that answers it into bench/results/, and its table.

May import: fusedrms.*, kernels.*, bench.common, bench.timing, examples, tests.helpers.
"""
