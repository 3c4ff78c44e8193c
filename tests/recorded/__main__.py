"""python tests/recorded SYSTEM --write | --check [--source PATH]: see command.py."""

import pathlib
import sys


def run() -> None:
    sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)
    from recorded.command import main

    main()


if __name__ == "__main__":
    run()
