"""python tests/fuzz --steps 1000 --seed 3."""

import pathlib
import sys

sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)

import fuzz  # noqa: E402

fuzz.main()
