"""How fast another commit's steps are beside this one's: `python -m bench.studies.against COMMIT`.

May import: fusedrms.*, kernels.*, bench.common, bench.timing.
"""
