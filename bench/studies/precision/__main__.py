"""Trains three problems in each precision mode, from the same weights on the same batches, and compares the held-out losses.

    python -m bench.studies.precision [--problem gpt ...] [--modes float32 "split + 8-bit" ...] [--seeds 3] [--steps 2000]

Two GPTs on the text of Python's standard library, one of 10 million parameters; a convnet on scikit-learn's digits; and the small GPT
with momentum, and centered. In modes of 16 bits parameters and gradients are bfloat16; activations are float32, which a CPU computes
faster.

Each run is kept as it ends. The same command goes on where another was stopped, and may be started several times at once: each makes
what is missing and nobody else is at, on one thread. Writes PROBLEM.json of each problem, and curves.png, into bench/results/precision;
needs the packages of the extra `study`.
"""

import argparse
import pathlib
import shlex
import sys
import time
from importlib.metadata import version

import torch

from bench.common.arguments import RESULTS, check_output, chosen, make_parser, writing
from bench.common.machine import machine, one_thread
from bench.common.store import load
from bench.studies.family.problems import missing
from bench.studies.precision.modes import MODES, USUAL
from bench.studies.precision.problems import PROBLEMS
from bench.studies.precision.results import Results
from bench.studies.precision.table import TABLES
from bench.studies.precision.training import evaluated, trained
from fusedrms.tools.errors import UserError
from fusedrms.tools.files import place


def parse() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = make_parser("bench.studies.precision", __doc__)
    parser.add_argument("--problem", nargs="+", metavar="NAME", help=f"(default: all) {', '.join(PROBLEMS)}")
    parser.add_argument("--modes", nargs="+", metavar="NAME", help=f"(default: all of the problem) {', '.join(MODES)}")
    for name in ("seeds", "steps"):
        numbers = ", ".join(f"{getattr(problem, name)} of {key}" for key, problem in PROBLEMS.items())
        parser.add_argument(f"--{name}", type=int, metavar="N", help=f"(default: {numbers})")
    parser.add_argument("--output", type=place, default=RESULTS / "precision", help="directory (default: bench/results/precision)")
    given = parser.parse_args()
    given.problem = chosen(parser, given.problem, PROBLEMS, "--problem")
    given.modes = chosen(parser, given.modes, MODES, "--modes")
    if not any(set(given.modes) & set(PROBLEMS[key].modes) for key in given.problem):
        parser.error(f"--modes {', '.join(given.modes)}: none of them is trained with --problem {', '.join(given.problem)}")
    for name in ("seeds", "steps"):
        value = getattr(given, name)
        if value is not None and value < 1:
            parser.error(f"--{name} {value}: must be at least 1")
    if packages := missing("sklearn", "matplotlib"):
        parser.error(f"{', '.join(packages)}: not installed; pip install -c constraints.txt -e '.[study]'")
    check_output(parser, given.output)
    return parser, given


def begun(key: str, steps: int, seeds: int, folder: pathlib.Path) -> Results:
    """The file of a problem."""
    problem = PROBLEMS[key]
    command = ["python", "-m", "bench.studies.precision", "--problem", key, "--seeds", str(seeds), "--steps", str(steps)]
    about = {**machine(torch.device("cpu"), shlex.join(command)), **{package: version(package) for package in problem.packages}}
    numel = sum(param.numel() for param in problem.task.model().parameters())
    about.update(problem=key, title=problem.title, numel=numel, lr=problem.lr, steps=steps)
    return Results(folder / f"{key}.json", {**about, "evaluated": evaluated(steps)})


def complete(key: str, results: Results, modes: list[str], seeds: int) -> None:
    """Make the runs that are missing."""
    steps = results.about["steps"]
    for seed in range(seeds):
        for mode in (mode for mode in PROBLEMS[key].modes if mode in modes):
            with results.claimed(mode, seed) as ours:
                if not ours:
                    continue
                begin, run = time.perf_counter(), {}
                for step, run in trained(PROBLEMS[key], mode, seed, steps):
                    loss, seconds = run["losses"][-1], time.perf_counter() - begin
                    print(f"{key}, {mode}, seed {seed}: step {step:4} of {steps}, loss {loss}, {seconds:4.0f} s", flush=True)
                results.add(run)


def show(folder: pathlib.Path) -> None:
    """The tables and the figure of all that is there."""
    from bench.studies.precision.plot import plot  # matplotlib may have been missing

    every = {key: load(folder / f"{key}.json") for key in PROBLEMS if (folder / f"{key}.json").exists()}
    for results in every.values():
        print("\n".join(["", results["title"], *TABLES["precision"](results)]))
    if drawn := [results for key, results in every.items() if PROBLEMS[key].modes == USUAL]:
        plot(drawn, folder / "curves.png")


def main() -> int:
    parser, given = parse()
    try:
        with one_thread(), writing(parser):
            asked = {key: (given.steps or PROBLEMS[key].steps, given.seeds or PROBLEMS[key].seeds) for key in given.problem}
            files = {key: begun(key, *numbers, given.output) for key, numbers in asked.items()}
            for key, results in files.items():
                complete(key, results, given.modes, asked[key][1])
            show(given.output)
    except UserError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print("interrupted: the runs that have ended are kept, and the same command makes the others", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
