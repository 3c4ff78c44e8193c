"""One question each, a command that answers it into bench/results/, and its table. Imports bench.common, bench.timing, examples, tests."""
