"""From parameters to launches: which share one, the tables it reads, its configuration.

May import: fusedrms.engine.sharded, fusedrms.engine.state, fusedrms.engine.options, fusedrms.engine.ownership, kernels.*.
"""
