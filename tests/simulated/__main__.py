"""Python with a simulated GPU: python tests/simulated [-m MODULE | FILE] [ARGUMENTS].

SIMULATED_WITHOUT names packages, with commas between, that are not to be found, as on a machine that lacks them.
"""

import importlib.abc
import os
import pathlib
import runpy
import sys


class Missing(importlib.abc.MetaPathFinder):
    """Finds no package of some names."""

    names = os.environ.get("SIMULATED_WITHOUT", "").split(",")

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def main() -> None:
    if not sys.argv[1:]:
        sys.exit(__doc__)
    sys.meta_path.insert(0, Missing())
    sys.path[0] = os.getcwd()
    sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))
    import simulated

    simulated.install()
    if sys.argv[1] == "-m":
        del sys.argv[:2]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        del sys.argv[0]
        sys.path[0] = str(pathlib.Path(sys.argv[0]).resolve().parent)
        runpy.run_path(sys.argv[0], run_name="__main__")


main()
