"""What each script of the gallery begins with: it finds the programs of examples/, chooses how long to train, and how pictures look.

    python examples/gallery/gpt_bfloat16.py  # runs a script as it is; pictures open in a window where there is a display
    make gallery                             # executes all and writes their pages, docs/gallery/

Scripts are in the percent format: `# %%` begins a cell, and editors run them cell by cell.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch

EXAMPLES = Path(__file__).parents[1]
SMALL = bool(os.environ.get("GALLERY_SMALL"))

if str(EXAMPLES) not in sys.path:
    sys.path.append(str(EXAMPLES))

torch.set_num_threads(1)  # these models are too small for more; and sums have the same order on any machine

plt.rcParams.update(
    {
        "figure.figsize": (8, 4),
        "figure.dpi": 100,
        "figure.facecolor": "white",
        "figure.constrained_layout.use": True,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.alpha": 0.3,
        "lines.linewidth": 1.5,
    }
)


def unless_small(number: int, small: int) -> int:
    """A number of steps, or the small one where GALLERY_SMALL is set, as the tests do to see that a script runs."""
    return small if SMALL else number
