"""What is kept for each parameter, how it lies in memory, and checks of it. Imports kernels and sharded alone."""
