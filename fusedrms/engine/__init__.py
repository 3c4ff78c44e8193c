"""What every optimizer is made of: options, tables, checkpoints. Imports kernels, never tools, presets or the classes."""
