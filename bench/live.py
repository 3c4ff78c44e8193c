"""A pytest plugin that prints each timing as it ends."""

import pytest
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bench.store import BASELINE, OURS
from bench.text import figure, percent, ratio, settings, size

COLUMNS = (
    ("algorithm", 30),
    ("implementation", 27),
    ("ms", 9),
    ("ratio", 8),
    ("GB/s", 8),
    ("extra memory", 13),
    ("host, µs", 9),
    ("others", 7),
)
BUSY = 0.05  # share of the cores that other programs may have; where they have more, torch's threads wait for each other


class LiveTable:
    """Prints rows; keeps what was skipped, what failed, and pytest-benchmark's results.

    Args:
        console: where to; not pytest's captured output.
    """

    def __init__(self, console: Console):
        self.skipped: dict[str, str] = {}  # name -> reason
        self.failed: dict[str, str] = {}
        self.results: dict = {}
        self._medians: dict[tuple, float] = {}
        self._heading = ""
        self._begun, self._total = 0, 0
        self._console = console
        # drawn between the timings only, a thread would disturb them
        self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)

    def pytest_collection_finish(self, session):
        self._total = len(session.items)
        self._live.start()

    def pytest_runtest_logstart(self, nodeid):
        self._begun += 1
        self._live.update(Text(f"{self._begun}/{self._total} {nodeid.partition('::')[2]}", style="dim"), refresh=True)

    def pytest_runtest_makereport(self, item, call):
        if call.excinfo is None:
            if call.when == "call":
                self._row(item.callspec.params, item.funcargs["benchmark"])
            return
        reason = str(call.excinfo.value).partition("\n")[0]
        known = reason in self.skipped.values()
        skip = call.excinfo.errisinstance(pytest.skip.Exception)
        (self.skipped if skip else self.failed)[item.name] = reason
        if not (skip and known):
            self._live.console.print(
                f"{'skipped' if skip else 'FAILED'}: {item.name}: {reason}", style="dim" if skip else "red", markup=False
            )

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report):
        return report.outcome if report.when == "call" or not report.passed else "", "", ""

    @pytest.hookimpl(trylast=True)
    def pytest_benchmark_update_json(self, output_json):
        self.results = output_json

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self):
        self._live.stop()

    def _row(self, params: dict, benchmark) -> None:
        if benchmark.stats is None:  # --benchmark-disable
            return
        median, info = benchmark.stats.stats.median, benchmark.extra_info
        if "workload" in params:
            _, *names = params.values()
            self._head(f"{params['workload']}: {info['n_tensors']:,} tensor{'s' * (info['n_tensors'] > 1)}, {info['numel']:,} parameters")
        elif "limit" in params:
            names = [params["limit"], ""]
            self._head("what the device can do")
        elif "tuned" in params:
            names = [", ".join(params["tuned"]), settings(info["config"])]
            self._head("tuned configurations beside the defaults")
        else:
            names = [f"{params['n_tensors']:,} tensors", f"gradients {params['gradients']}"]
            self._head("the host's part of a step")
        self._medians[tuple(map(str, params.values()))] = median
        base = info["default_ms"] / 1e3 if "default_ms" in info else self._medians.get((*map(str, list(params.values())[:2]), BASELINE))
        rate = info["n_bytes"] * info.get("numel", 1) / median / 1e9 if "n_bytes" in info else None
        figures = (
            figure(median * 1e3),
            ratio(base and base / median),
            figure(rate),
            size(info.get("extra_bytes")),
            figure(info.get("host_us")),
            percent(others) if (others := info.get("others", 0)) > BUSY else "",
        )
        self._print([*names, *figures], "green" if OURS in names[1] else "")

    def _head(self, heading: str) -> None:
        if heading != self._heading:
            self._heading = heading
            self._live.console.print(f"\n{heading}", style="bold", highlight=False)
            self._print([name for name, _ in COLUMNS], "dim")

    def _print(self, cells: list[str], style: str) -> None:
        line = Table.grid(padding=(0, 1))
        for c, (_, width) in enumerate(COLUMNS):
            line.add_column(width=width, justify="left" if c < 2 else "right", no_wrap=True)
        line.add_row(*cells, style=style)
        self._live.console.print(line)
