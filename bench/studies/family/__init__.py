"""All presets on the same problems with the same learning rate: `python -m bench.studies.family`.

May import: fusedrms.*, kernels.*, bench.common.
"""
