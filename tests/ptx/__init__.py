"""Runs the kernels that Triton compiles, as PTX, on a CPU, and holds them against the CPU driver and interval arithmetic.

`machine.py`, `memory.py` and `opcodes.py` run PTX and check every access; `launches.py`, with `options.py`, and `norms.py` make tables
and values that are as bad as they may be; `compare.py` says where two runs differ; `expected.py` has the rules in interval arithmetic;
`real.py` runs the launches of a real optimizer.
"""
