"""What a checkpoint holds of an optimizer, on its way out and in.

May import: fusedrms.engine.sharded, fusedrms.engine.state, fusedrms.engine.options, fusedrms.engine.tables, kernels.*.
"""
