"""From the options of parameter groups to the numbers of a launch, and checks of them.

May import: fusedrms.engine.sharded, fusedrms.engine.state, kernels.*.
"""
