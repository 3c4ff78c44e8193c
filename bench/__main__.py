"""Runs the timings and prints the table: python -m bench [--device cuda] [--output DIRECTORY] [pytest's arguments]."""

import argparse
import json
import pathlib
import re
import sys
from collections import defaultdict

import pytest
import torch

BASELINE = "torch foreach"


def table(results: dict) -> str:
    """The results as text; ratios are to torch foreach, shares to the copy and the streaming loop of the same run."""
    medians = {entry["name"]: entry["stats"]["median"] for entry in results["benchmarks"]}
    rates = {
        entry["name"]: entry["extra_info"]["n_bytes"] / medians[entry["name"]] for entry in results["benchmarks"] if entry["extra_info"]
    }
    copy, stream = rates.pop("test_copy"), rates.pop("test_stream", None)
    machine = results["machine_info"]
    versions = ", ".join(f"{key} {machine[key]}" for key in ("torch", "triton", "numba") if machine[key])
    lines = [
        f"{machine['device']}, {machine['threads']} threads, {versions}, commit {results['commit_info']['id'][:10]}",
        f"copy {copy / 1e9:.1f} GB/s" + (f", streaming loop of a plain step's bytes {stream / 1e9:.1f} GB/s" if stream else ""),
        "",
        f"{'step of':48}{'implementation':18}{'ms':>9}{'ratio':>8}{'GB/s':>8}{'of copy':>9}{'of loop':>9}",
    ]
    groups = defaultdict(dict)
    for name, rate in rates.items():
        workload, implementation = re.findall(r"test_step\[(.*)-(.*?)\]", name)[0]
        groups[workload][implementation] = rate
    for workload, implementations in groups.items():
        for implementation, rate in implementations.items():
            ms = medians[f"test_step[{workload}-{implementation}]"] * 1e3
            ratio = medians[f"test_step[{workload}-{BASELINE}]"] * 1e3 / ms
            loop = f"{rate / stream:9.0%}" if stream else ""
            lines.append(f"{workload:48}{implementation:18}{ms:9.3f}{ratio:7.1f}x{rate / 1e9:8.1f}{rate / copy:9.0%}{loop}")
    lines.append("")
    for name, seconds in medians.items():
        if name.startswith("test_host"):
            what = "until step() returns, " if "launch" in name else "without the launch, "
            lines.append(f"host, 1,000 tensors, {what}{name[name.index('[') + 1 : -1]}: {seconds * 1e3:.3f} ms")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Time step() beside torch's, print a table, write JSON.")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--output", type=pathlib.Path, default=pathlib.Path("bench/results"), help="directory for the JSON (default: %(default)s)"
    )
    known, rest = parser.parse_known_args()
    if known.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA or ROCm device; use --device cpu")
    known.output.mkdir(parents=True, exist_ok=True)
    here = pathlib.Path(__file__).parent
    path = known.output / f"step_{known.device}.json"
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-o",
        "addopts=",
        "--benchmark-disable-gc",
        "--benchmark-columns=median,iqr,rounds",
    ]
    failed = pytest.main([str(here), *options, f"--rootdir={here}", f"--device={known.device}", f"--benchmark-json={path}", *rest])
    if failed:
        return int(failed)
    results = json.loads(path.read_text())
    for entry in results["benchmarks"]:
        del entry["stats"]["data"], entry["params"], entry["param"]  # every round, and all shapes: the name says which
    path.write_text(json.dumps(results, indent=1) + "\n")
    text = table(results)
    path.with_suffix(".txt").write_text(text + "\n")
    print(f"\n{text}\n\nwritten to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
