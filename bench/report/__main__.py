"""Writes what follows from result files.

python -m bench.report bench/results/cpu-AMD_EPYC/step.json    writes report.md and the plots beside it
python -m bench.report --documents                             fills the tables of README.md and docs/
"""

import pathlib
import sys

from bench.common.arguments import make_parser
from bench.report.documents import refill
from bench.report.report import write_report


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("bench.report", __doc__)
    parser.add_argument("results", type=pathlib.Path, nargs="*", help="step.json of a device: rewrite its report.md and plots")
    parser.add_argument("--documents", action="store_true", help="fill the tables of README.md and docs/ from the files that they name")
    given = parser.parse_args(argv)
    if not given.results and not given.documents:
        parser.error("name a result file, as bench/results/cpu-AMD_EPYC/step.json, or say --documents")
    written = []
    try:
        for path in given.results:
            written += write_report(path)
        written += refill() if given.documents else []
    except (OSError, ValueError, KeyError) as error:
        parser.error(f"{type(error).__name__}: {error}")
    print("\n".join(f"wrote {path}" for path in written) or "nothing has changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
