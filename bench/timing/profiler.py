"""What a step does, from torch's profiler: launches, copies to the device, waits for it."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from fusedrms.kernels import devices

SPAN = "fusedrms: one step"
WAITS = ("StreamSynchronize", "EventSynchronize", "DeviceSynchronize", "CtxSynchronize")  # of the CUDA and HIP runtimes


def tally(events: Iterable[Any]) -> dict[str, int]:
    """Launches, copies to the device and waits of the step that was profiled in SPAN."""
    events = list(events)
    marks = {event.name for event in events if event.device_type.name == "CPU"}  # are shown on the device, too
    spans = [event.time_range for event in events if event.name == SPAN and event.device_type.name == "CPU"]
    counts = dict(launches=0, copies=0, waits=0)
    for event in events:
        if event.device_type.name != "CPU":
            counts["copies"] += event.name.startswith(("Memcpy HtoD", "CopyHostToDevice"))
            counts["launches"] += event.name not in marks and not event.name.startswith(("Memcpy", "Memset", "Copy"))
        elif event.name.endswith(WAITS):  # the profiler itself waits after the span
            counts["waits"] += any(span.start <= event.time_range.start <= span.end for span in spans)
    return counts


def profiled(step: Callable[[], object], device: torch.device) -> dict[str, int | None]:
    """What a step does; None for each where the profiler does not know the device, which makes the step nonetheless."""
    activity = devices.KINDS[device.type].activity if devices.is_gpu(device) else None
    if activity is None:
        step()
        return dict(launches=None, copies=None, waits=None)
    devices.synchronize(device)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity[activity]], acc_events=True) as profiler:
        with record_function(SPAN):
            step()
        devices.synchronize(device)
    return {**tally(profiler.events() or [])}
