"""What each precision mode costs in held-out loss: `python -m bench.studies.precision`.

May import: fusedrms.*, kernels.*, bench.common, bench.studies.family, examples.
"""
