"""How fast a step is, beside torch's (`make bench`), what precision modes cost, what GPUs that share a model hold.

See bench/precision.py, bench/group_size.py, bench/scaling.py, bench/bits.py.
"""

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).parent.parent / "examples"))  # the training that some of them use
