"""What other systems' optimizers compute: cases, how each system is run, and the command that records it.

    python tests/recorded SYSTEM --write | --check [--source PATH]

Each system has an environment of its own, which `make test-recorded` sets up and where nothing of this project can be imported. What
was recorded lies in tests/data/recorded, and test_presets_recorded.py holds the presets against it.
"""
