"""The Triton driver: one kernel a step, the rule passed in. Imports what is shared in kernels, nothing of cpu."""
