"""What is timed and how: implementations, workloads, clocks, counts. Imports bench.common and fusedrms."""
