"""A process that times what it is asked to, with the package that comes first on its path: a line of JSON each way.

["compile", rows] compiles; ["make", case] makes a case; ["turn", side, seconds] times one of its sides, and is answered with seconds a
step.
"""

import contextlib
import gc
import json
import os
import queue
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

import fusedrms
from bench.studies.against.rows import Case, Side, cases
from bench.timing.switches import SWITCHES
from bench.timing.workloads import parameters

LEAST = 3  # steps of a turn


class Ready(NamedTuple):
    side: Side
    step: Callable[[], object]
    between: Callable[[], object]


def made(side: Side, case: Case) -> Ready:
    """After two steps: what is compiled is compiled then."""
    params = parameters(case.shapes, torch.device("cpu"))
    ready = Ready(side, side.make(params), side.between(params))
    with SWITCHES[side.without]():
        for _ in range(2):
            ready.between()
            ready.step()
    return ready


def timed(ready: Ready, seconds: float) -> float:
    """Seconds a step: the median of a turn."""
    times, clock = [], time.perf_counter
    before = torch.get_num_threads()
    torch.set_num_threads(ready.side.threads or before)
    try:
        with SWITCHES[ready.side.without]():
            ready.between()
            ready.step()  # the last turn was another's
            end = clock() + seconds
            while clock() < end or len(times) < LEAST:
                ready.between()
                begin = clock()
                ready.step()
                times.append(clock() - begin)
    finally:
        torch.set_num_threads(before)
    return statistics.median(times)


class Worker:
    def __init__(self, known: dict[str, Case]):
        self._known, self._ready = known, []

    def compile(self, rows: list[str]) -> None:
        """Leave in Numba's cache what the steps of some rows need."""
        for case in self._known.values():
            if case.row in rows:
                with contextlib.suppress(Exception):  # make() says why
                    made(case.ours, case._replace(shapes=[(64,)]))

    def make(self, key: str) -> None:
        self._ready.clear()
        gc.collect()
        case = self._known[key]
        self._ready += [made(side, case) for side in case.sides]

    def turn(self, n: int, seconds: float) -> float:
        return timed(self._ready[n], seconds)

    def answer(self, line: str) -> dict[str, Any]:
        name, *args = json.loads(line)
        try:
            return {"answer": getattr(self, name)(*args)}
        except Exception as error:
            return {"error": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}


def questions(folder: str) -> Iterator[str]:
    """Lines of stdin. At their end the process ends and removes a folder, whatever it does: who started it may have been killed."""
    lines = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return iter(lines.get, None)


def main(quick: str, folder: str) -> None:
    asked = questions(folder)
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what else prints would be taken for an answer
    gc.disable()
    worker = Worker(cases(bool(int(quick))))
    answer = {"answer": os.path.realpath(fusedrms.__file__)}
    while True:
        with contextlib.suppress(BrokenPipeError):  # nobody listens: questions() ends the process
            print(json.dumps(answer), file=channel)
        answer = worker.answer(next(asked))


if __name__ == "__main__":
    main(*sys.argv[1:])
