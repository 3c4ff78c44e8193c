"""What a run of pytest keeps for the report: results, what was skipped, what failed; and how Ctrl-C ends it."""

import signal

import pytest


class Kept:
    """Reasons by name of test, and pytest-benchmark's results."""

    def __init__(self):
        self.skipped: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self.results: dict = {}

    def pytest_runtest_makereport(self, item, call):
        if call.excinfo is not None:
            kept = self.skipped if call.excinfo.errisinstance(pytest.skip.Exception) else self.failed
            kept[item.name] = str(call.excinfo.value).partition("\n")[0]

    @pytest.hookimpl(trylast=True)
    def pytest_benchmark_update_json(self, output_json):
        self.results = output_json


class CtrlC:
    """Ends the run before the next timing, and the one under way if it can be; also where a compiler makes another error of it."""

    def __init__(self):
        self._timing = False

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        def stop(number: int, frame: object) -> None:
            session.shouldstop = "interrupted"
            if self._timing:  # elsewhere pytest would not end as it does after its own
                raise KeyboardInterrupt

        self._before = signal.signal(signal.SIGINT, stop)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item):
        if item.session.shouldstop:
            raise KeyboardInterrupt
        self._timing = True
        try:
            return (yield)
        finally:
            self._timing = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_benchmark_generate_json(self, benchmarks: list) -> None:
        benchmarks[:] = filter(None, benchmarks)  # of what was interrupted before its first round pytest-benchmark knows no median

    def pytest_unconfigure(self) -> None:
        signal.signal(signal.SIGINT, self._before)
