"""`make gpu`: parts that run whatever happens to the others, and two of them. Imports bench.common, bench.timing, examples, tests."""
