"""What is timed and how: implementations, workloads, clocks, counts.

May import: fusedrms.*, kernels.*, bench.common.
"""
