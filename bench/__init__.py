"""How fast a step is, beside torch's (`make bench`), what a GPU must show (`make gpu`), and studies behind the documents' figures.

May import: nothing.
"""

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).parent.parent / "examples"))  # the training that some of them use
