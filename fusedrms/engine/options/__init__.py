"""From the options of parameter groups to the numbers of a launch, and checks of them. Imports kernels, sharded, state.precision."""
