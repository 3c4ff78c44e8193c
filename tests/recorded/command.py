"""Records what a system's optimizer computes, or compares it with what was recorded: python tests/recorded SYSTEM --check."""

import argparse
import dataclasses
import importlib.metadata
import json
import pathlib
import platform
import sys

import numpy as np

from .cases import CASES, TOLERANCE
from .runs import SYSTEMS

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "data" / "recorded"


def numbers(array: np.ndarray) -> list[float]:
    """The shortest decimals that are these numbers, of whatever type."""
    return [float(str(number)) for number in array.ravel()]


def record(name: str, source: str) -> dict:
    """A system's recording."""
    system = SYSTEMS[name]
    cases = [
        dataclasses.asdict(case) | dict(steps=[[numbers(array) for array in arrays] for arrays in system.run(case, source)])
        for case in CASES[name]
    ]
    return dict(
        system=name,
        versions={package: importlib.metadata.version(package) for package in (*system.packages, "numpy")},
        source=system.source,
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        command=f"python tests/recorded {name} --write" + (" --source PATH" if system.source else ""),
        cases=cases,
    )


def text(recording: dict) -> str:
    """JSON with a line for each field of a case, and for each step."""
    head = json.dumps({**recording, "cases": []}, indent=1).removesuffix("[]\n}")
    cases = []
    for case in recording["cases"]:
        fields = [f"   {json.dumps(key)}: {json.dumps(value)}" for key, value in case.items() if key != "steps"]
        steps = ",\n".join(f"    {json.dumps(step)}" for step in case["steps"])
        cases.append("  {\n" + ",\n".join([*fields, f'   "steps": [\n{steps}\n   ]']) + "\n  }")
    return head + "[\n" + ",\n".join(cases) + "\n ]\n}\n"


def differences(old: dict, new: dict) -> list[str]:
    """What of a recording is not what was recorded."""
    new = json.loads(text(new))
    if [_given(case) for case in old["cases"]] != [_given(case) for case in new["cases"]]:
        return ["the cases are others: record them with --write"]
    found = []
    for before, after in zip(old["cases"], new["cases"], strict=True):
        distance = np.abs(_flat(before["steps"]) - _flat(after["steps"])).max()  # NaN, if there is one
        if not distance <= TOLERANCE[before["dtype"]]:
            found.append(f"{before['preset']}({before['arguments']}) {before['helpers']}: {distance:.3g} apart")
    return found


def _flat(steps: list[list[list[float]]]) -> np.ndarray:
    return np.concatenate([array for arrays in steps for array in arrays])


def _given(case: dict) -> dict:
    return {key: value for key, value in case.items() if key != "steps"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python tests/recorded", description=__doc__)
    parser.add_argument("system", choices=SYSTEMS)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="record it")
    what.add_argument("--check", action="store_true", help="fail if it is not what was recorded")
    parser.add_argument("--source", default="", help="where a system is that no package has: theano, blocks")
    args = parser.parse_args()
    if (needed := SYSTEMS[args.system].source) and not args.source:
        parser.error(f"{args.system}: --source is missing: {needed}")
    recording, path = record(args.system, args.source), FOLDER / f"{args.system}.json"
    if args.write:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text(recording))
        return
    found = differences(json.loads(path.read_text()), recording)
    if found:
        sys.exit("\n".join(found))
    print(f"{args.system}: {len(recording['cases'])} cases are as recorded")
