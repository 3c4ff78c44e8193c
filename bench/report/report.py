"""The report of a result file: a function of its figures alone."""

import pathlib
import sys
from collections import defaultdict
from collections.abc import Callable
from statistics import fmean

from bench.common.store import BASELINE, Row, load, rows
from bench.common.text import figure, percent, ratio, size, table
from bench.report import provenance
from bench.report.steps import TABLES
from fusedrms.tools.files import write

COLUMNS: dict[str, Callable[[Row], str]] = {
    "ms": lambda row: figure(row["ms"]),
    "against torch foreach": lambda row: ratio(row.get("ratio")),
    "against fusedrms": lambda row: ratio(row.get("against_ours")),
    "GB/s": lambda row: figure(row["gb_per_s"]),
    "of copy": lambda row: percent(row.get("of_copy")),
    "of streaming loop": lambda row: percent(row.get("of_stream")),
    "extra memory": lambda row: size(row["extra_bytes"]),
    "host, µs": lambda row: figure(row.get("host_us")),
    "bytes held": lambda row: figure(row.get("held")),
}
LEGEND = """\
ms is the median time of `step()` until the device is done; ratios above 1 are faster than torch's foreach implementation of the
same algorithm, or the shortest `torch._foreach_*` code where torch has none, and than our step in float32. Each round of a step was timed
just after one of ours, while memory did for both, and its ratio is the median of these pairs; that to foreach is the quotient of two such.
GB/s count the fewest bytes that a step can move: the gradient read, all else read and written. Shares are of the best rate of a copy and
of a loop that streams the bytes of a plain step, measured just before and after the step where it moves more than 128 MiB; below that,
caches help it beyond 100%, and where the memory is shared with other machines its speed changes from one moment to the next, so that a step
can beat what was measured beside it. Extra memory is the most that torch has allocated at a time during one step beyond what was there
before. Host: {host}. Bytes held are those
of a parameter and its states, without the gradient. AdamW has two states and moves 28 bytes a parameter: it stands for what torch's own
fused launches take. 8-bit states of bitsandbytes are float32 in tensors of less than 4,096 elements."""
HOST = {True: "the time until `step()` returns, while the device still works", False: "our steps without their launch"}


def _others(results: dict) -> str:
    shares = [row["others"] for row in rows(results) if "others" in row]
    return f" While steps were timed, other programs had {fmean(shares):.0%} of the cores." if shares else ""


def _steps(found: list[Row], first: str, name: Callable[[Row], str]) -> list[str]:
    used = {header: cell for header, cell in COLUMNS.items() if any(cell(row) for row in found)}
    return table(
        (first, "implementation", *used), [(name(row), row["implementation"], *(cell(row) for cell in used.values())) for row in found]
    )


def _section(title: str, lines: list[str], image: str = "", drawn: list[str] | None = None) -> list[str]:
    picture = [f"![{title}]({image})", ""] if image in (drawn or ()) else []
    return [f"## {title}", "", *picture, *lines, ""] if lines else []


def _machine(results: dict) -> str:
    rates = " and ".join(f"{row['limit']} {figure(row['gb_per_s'])} GB/s" for row in rows(results, "limit"))
    where = f"{provenance.device(results)}, {provenance.versions(results)}"
    return f"{where}; {rates}; commit {provenance.commit(results)}.{_others(results)}"


def _host(results: dict) -> list[str]:
    times = {(row["n_tensors"], row["gradients"]): 1e3 * row["ms"] for row in rows(results, "gradients")}
    counts = sorted({n for n, _ in times})
    if len(counts) < 2:
        return []
    least, most = counts[0], counts[-1]
    more = ", ".join(
        f"{(times[most, kind] - times[least, kind]) / (most - least):.3f} µs with gradients {kind}" for kind in ("unmoved", "moved")
    )
    text = "Plain steps of tensors of 64 elements, the launch left out."
    return [f"{text} From {least:,} to {most:,} tensors each one more costs {more}.", "", *TABLES["host"](results)]


def _reasons(results: dict) -> list[str]:
    lines = []
    for kind in ("failed", "skipped"):
        names = defaultdict(list)
        for name, reason in results.get(kind, {}).items():
            names[reason].append(name.partition("[")[2].removesuffix("]") or name)
        for reason, those in names.items():
            more = f"; and {len(those) - 3} more" if len(those) > 3 else ""
            lines.append(f"* {kind}: {reason}: {'; '.join(those[:3])}{more}")
    return lines


def report(results: dict, drawn: list[str] | None = None) -> str:
    """The text.

    Args:
        results: what step.json holds.
        drawn: file names of the plots beside it.
    """
    steps = rows(results)
    models: dict[str, list[Row]] = defaultdict(list)
    for row in steps:
        if row["family"] == "model":
            models[f"{row['workload']}: {row['n_tensors']:,} tensors, {row['numel']:,} parameters"].append(row)
    lines = [f"# How fast a step is: {results['machine_info']['device']}", "", _machine(results), ""]
    if "interrupted" in results.get("skipped", {}).values():
        lines += ["**It was interrupted: what would have come later is missing.**", ""]
    lines += _section(
        "Models",
        [f"How many times as fast as {BASELINE} a plain step is; then each model's figures."] if models else [],
        "ratios.png",
        drawn,
    )
    for title, found in models.items():
        lines += [f"### {title}", "", *_steps(found, "algorithm", lambda row: row["algorithm"]), ""]
    lines += _section("Precision modes", ["In the tables above."] if "modes.png" in (drawn or ()) else [], "modes.png", drawn)
    for title, family, image in (("Number of parameters", "scale", "scale.png"), ("Number of tensors", "count", "tensors.png")):
        found = [row for row in steps if row["family"] == family]
        lines += _section(title, _steps(found, "plain step of", lambda row: row["workload"]) if found else [], image, drawn)
    lines += _section("Host path", _host(results))
    lines += _section("What was skipped, and why", _reasons(results))
    lines += _section("What the columns say", [LEGEND.format(host=HOST["--device=cpu" not in results["machine_info"]["command"]])])
    lines += _section("Again", ["```", results["machine_info"]["command"], "```"])
    return "\n".join(lines)


def write_report(path: pathlib.Path) -> list[pathlib.Path]:
    """report.md and the plots beside a result file; what was written."""
    results = load(path)
    try:
        from bench.report.plots import draw
    except ImportError as error:
        print(f"no plots: {error}; pip install matplotlib", file=sys.stderr)
        drawn = []
    else:
        drawn = draw(results, path.parent)
    page = path.parent / "report.md"
    write(page, report(results, drawn))
    return [page, *(path.parent / name for name in drawn)]
