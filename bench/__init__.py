"""How fast a step is, beside torch's (`make bench`), and what precision modes cost: see bench/precision.py, bench/group_size.py."""

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).parent.parent / "examples"))  # the training that some of them use
