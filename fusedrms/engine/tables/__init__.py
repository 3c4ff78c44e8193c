"""From parameters to launches: which share one, the tables it reads, its configuration. Imports options, state, ownership, kernels."""
