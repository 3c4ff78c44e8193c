"""The Triton driver: one kernel a step, the rule passed in.

May import: kernels.
"""
