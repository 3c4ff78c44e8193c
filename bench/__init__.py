"""How fast a step is, beside torch's: `make bench`, or `python -m bench --help`."""
