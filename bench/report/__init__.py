"""From result files to reports, plots and the documents' tables; no measurement.

May import: fusedrms.*, kernels.*, bench.common, bench.timing, bench.studies.*, bench.gpu.
"""
