"""Streams, events and graphs. Nothing runs before somebody waits for it, so that a wait that is missing shows."""

import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

import torch

lock = threading.RLock()
N_DEVICES = 2
_PRIVATE_USE = 20  # torch's number of the device type
Work = Callable[[], object]


class State:
    """What is current, and what was counted; by device where there are two values."""

    def __init__(self) -> None:
        self.device = 0
        self.streams: list[Stream] = []
        self.graph: Graph | None = None  # that is being captured
        self.capturing_on: Stream | None = None
        self.sync_debug = "default"
        self.n_synchronized = self.n_uploads = 0
        self.launched: list[tuple[str, int, int]] = []  # kernel, device, stream


state = State()
_handles = itertools.count(1)
_by_handle: dict[int, "Stream"] = {}


class Stream(torch.Stream):
    """Work in the order in which it was given."""

    def __new__(cls, device: torch.device | int | str | None = None, priority: int = 0) -> "Stream":
        made = super().__new__(cls, stream_id=next(_handles), device_index=index_of(device), device_type=_PRIVATE_USE)
        made._queue, made.n_put, made.n_run, made.then = deque(), 0, 0, []
        _by_handle[made.stream_id] = made
        return made

    def __init__(self, *args, **kwargs):
        pass

    def __eq__(self, other: object) -> bool:
        return isinstance(other, torch.Stream) and other.stream_id == self.stream_id

    def __hash__(self) -> int:
        return hash(self.stream_id)

    def put(self, work: Work) -> None:
        with lock:
            if state.capturing_on is self:
                state.graph.work.append(work)
                return
            self._queue.append(work)
            self.n_put += 1

    def run(self, position: int | None = None) -> None:
        """All that was put up to a position, by default up to now."""
        with lock:
            position = self.n_put if position is None else position
            while self.n_run < position and self._queue:
                self.n_run += 1
                self._queue.popleft()()
                self._after()

    def _after(self) -> None:
        """What waits for what has been done."""
        due = [work for position, work in self.then if position <= self.n_run]
        self.then = [(position, work) for position, work in self.then if position > self.n_run]
        for work in due:
            work()

    def synchronize(self) -> None:
        synchronized()
        self.run()

    def query(self) -> bool:
        return self.n_run >= self.n_put

    def record_event(self, event: "Event | None" = None) -> "Event":
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: "Event") -> None:
        event.wait(self)

    def wait_stream(self, other: "Stream") -> None:
        self.wait_event(other.record_event())


class Event:
    """A place in a stream."""

    def __init__(self, enable_timing: bool = False, **_: object):
        self._timed, self._stream, self._position, self._time = enable_timing, None, 0, None

    def record(self, stream: Stream | None = None) -> None:
        stream = stream or current_stream()
        if self._timed:
            stream.put(self._now)
        self._stream, self._position = stream, stream.n_put

    def _now(self) -> None:
        self._time = time.perf_counter()

    def wait(self, stream: Stream | None = None) -> None:
        other, position = self._stream, self._position
        if other is not None and other is not state.capturing_on:
            (stream or current_stream()).put(lambda: other.run(position))

    def query(self) -> bool:
        return self._stream is None or self._stream.n_run >= self._position

    def synchronize(self) -> None:
        synchronized()
        if self._stream is not None:
            self._stream.run(self._position)

    def elapsed_time(self, end: "Event") -> float:
        """Milliseconds between the moments at which the two were reached."""
        if self._time is None or end._time is None:
            raise RuntimeError("both events must be recorded with enable_timing=True and completed before their times are known")
        return 1e3 * (end._time - self._time)


class Graph:
    """Work that is run again at each replay."""

    def __init__(self) -> None:
        self.work: list[Work] = []

    def replay(self) -> None:
        for work in self.work:
            current_stream().put(work)

    def reset(self) -> None:
        self.work.clear()


@contextlib.contextmanager
def graph(captured: Graph, pool: object = None, stream: Stream | None = None, **_: object) -> Iterator[None]:
    """What is put on the current stream meanwhile becomes the graph's."""
    synchronize()
    side = stream or Stream()
    side.wait_stream(current_stream())
    side.run()
    captured.work.clear()
    state.graph, state.capturing_on = captured, side
    try:
        with use_stream(side):
            yield
    finally:
        state.graph = state.capturing_on = None
    current_stream().wait_stream(side)


def index_of(device: torch.device | int | str | None) -> int:
    if isinstance(device, int):
        return device
    index = torch.device(device).index if device is not None else None
    return state.device if index is None else index


def current_stream(device: torch.device | int | str | None = None) -> Stream:
    return state.streams[index_of(device)]


def stream_of(handle: int) -> Stream:
    return _by_handle[handle]


def set_stream(stream: Stream) -> None:
    state.streams[stream.device.index], state.device = stream, stream.device.index


@contextlib.contextmanager
def use_stream(stream: Stream | None) -> Iterator[None]:
    """torch.cuda.stream: also its device is the current one."""
    before, device = list(state.streams), state.device
    if stream is not None:
        set_stream(stream)
    try:
        yield
    finally:
        state.streams[:], state.device = before, device


def capturing() -> Graph | None:
    """The graph that the current stream records, if it does."""
    return state.graph if state.capturing_on is not None and current_stream() is state.capturing_on else None


def forbidden_in_capture(what: str) -> None:
    if capturing() is not None:
        raise RuntimeError(f"operation not permitted when stream is capturing: {what}")


def synchronized() -> None:
    """The host waits: an error in a capture, and where set_sync_debug_mode asks for one."""
    forbidden_in_capture("a wait of the host")
    if state.sync_debug == "error":
        raise RuntimeError("called a synchronizing operation")
    state.n_synchronized += 1


def synchronize(device: torch.device | int | str | None = None) -> None:
    """All streams of a device."""
    synchronized()
    for stream in list(_by_handle.values()):
        if stream.device.index == index_of(device):
            stream.run()


_DEFAULT = [Stream(torch.device("cpu", 0).index or index) for index in range(N_DEVICES)]


def default_stream(device: torch.device | int | str | None = None) -> Stream:
    return _DEFAULT[index_of(device)]


def finish() -> None:
    """Run what nobody has waited for."""
    for stream in list(_by_handle.values()):
        stream.run()


def reset() -> None:
    """As at the start; what is left to do is dropped."""
    for stream in _by_handle.values():
        stream._queue.clear()
        stream.n_run = stream.n_put
        stream._after()
    for handle in _by_handle.keys() - {stream.stream_id for stream in _DEFAULT}:
        del _by_handle[handle]
    state.__init__()
    state.streams = list(_DEFAULT)


state.streams = list(_DEFAULT)
