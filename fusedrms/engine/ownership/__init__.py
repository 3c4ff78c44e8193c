"""Who owns the memory that a launch reads and writes, and whether its addresses still hold; imports kernels.caches and sharded alone."""
