"""Which configuration a launch takes: the one that was measured to be best on the device, or a default.

No bit of a result depends on it. Files of configurations, one for each model of a device, are written by tune.py, and looked up in
``FUSEDRMS_CONFIG_DIR``, in the user's cache directory, and among those that the package brings; a row in an earlier one counts.
"""

import contextlib
import functools
import json
import os
import pathlib
import re
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import distributed

from ...kernels import devices, launch
from ...kernels.caches import source_hash
from ...kernels.launch import Config, CPUConfig, GPUConfig, default_config
from ...kernels.storage import Storage

FORMAT = 1
ENVIRONMENT = "FUSEDRMS_CONFIG_DIR"
SHIPPED = pathlib.Path(__file__).parents[2] / "configs"
SIZES = {"small": 1 << 13, "mixed": 1 << 21, "huge": 1 << 63}  # below how many elements a tensor has on average
MOST_BYTES = 1 << 22  # no honest file is larger


class Key(NamedTuple):
    """What a configuration is for."""

    rule: str
    storage: str  # Storage.label
    aligned: bool
    size: str  # a name of SIZES


class Row(NamedTuple):
    """What is known of a Key."""

    config: Config
    default_us: float  # of a launch, median
    best_us: float  # with config, in the same rounds


Rows = dict[Key, Row]


class File(NamedTuple):
    """A file of configurations as it was found."""

    path: pathlib.Path
    rows: Rows
    problem: str | None  # why its rows do not count


def device_name(device: torch.device) -> str:
    """The model of a device as a file name: "NVIDIA_H200", "cpu-AMD_EPYC"."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", devices.model(device)).strip("_")
    return name if devices.is_gpu(device) else f"cpu-{name}"


def size_of(numels: np.ndarray) -> str:
    """The name in SIZES of a launch over tensors of so many elements."""
    mean = numels.mean() if len(numels) else 0
    return next(name for name, limit in SIZES.items() if mean < limit)


def user_directory() -> pathlib.Path | None:
    """Where the user's caches are; None in a checkout that runs uninstalled, where nothing may know."""
    try:
        from platformdirs import user_cache_path
    except ImportError:
        return None
    return user_cache_path("fusedrms", appauthor=False)


def own_directory() -> pathlib.Path | None:
    """The one that ENVIRONMENT names, whatever its name; files are written there, too."""
    own = os.environ.get(ENVIRONMENT)
    return pathlib.Path(own) if own else None


def directories() -> list[pathlib.Path]:
    """Where files are looked up, the one that counts most first."""
    own, user = own_directory(), user_directory()
    return [*([own] if own else []), *([user] if user else []), SHIPPED]


def header(name: str) -> dict[str, Any]:
    """What a file for a device_name() begins with, or its rows do not count."""
    return dict(format=FORMAT, device=name, kernels=source_hash())


def to_json(rows: Rows) -> list[dict[str, Any]]:
    return [
        {**key._asdict(), "config": row.config._asdict(), "default_us": row.default_us, "best_us": row.best_us} for key, row in rows.items()
    ]


def _config(numbers: dict) -> Config:
    kind = {frozenset(kind._fields): kind for kind in (GPUConfig, CPUConfig)}[frozenset(numbers)]
    if not all(type(number) is int for number in numbers.values()):
        raise TypeError
    return kind(**numbers)


def from_json(rows: Any) -> Rows:
    """The rows that to_json() made; ValueError if they are none."""
    try:
        return {
            Key(*(row[name] for name in Key._fields)): Row(_config(row["config"]), float(row["default_us"]), float(row["best_us"]))
            for row in rows
        }
    except (TypeError, KeyError, ValueError, OverflowError, AttributeError):
        raise ValueError("its rows are damaged") from None


def read(path: pathlib.Path, name: str) -> File:
    """What a file holds for a device_name(), whatever is in it."""
    try:
        if not path.is_file():  # a pipe would block
            raise ValueError("it is not a regular file")
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES} bytes")
        content = json.loads(path.read_text())
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        if content.get("device") != name:
            raise ValueError(f"it is for {str(content.get('device'))[:80]!r}")
        if content.get("kernels") != source_hash():
            raise ValueError("it was made for other kernels than those of this version")
        return File(path, from_json(content.get("rows")), None)
    except (OSError, ValueError, RecursionError) as error:
        return File(path, {}, str(error))


def files(name: str) -> list[File]:
    """Those there are for a device_name(), the one that counts most first."""
    paths = [directory / f"{name}.json" for directory in directories()]
    return [read(path, name) for path in paths if os.path.lexists(path)]


@functools.cache
def rows_for(name: str) -> Rows:
    """What counts for a device_name() in this process, read once."""
    rows: Rows = {}
    for file in reversed(files(name)):
        if file.problem and file.path.parent != SHIPPED:  # of which a user can mend none
            warnings.warn(f"{file.path} is ignored, {file.problem}: run fusedrms tune, or delete the file", stacklevel=2)
        rows |= file.rows
    return _shared(name, rows)


def _shared(name: str, rows: Rows) -> Rows:
    """Every process of a job goes by the rows of the first that asks, lest one be slower than the others; none waits for another."""
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return rows
    try:
        store = distributed.distributed_c10d._get_default_store()
        return from_json(json.loads(store.compare_set(f"fusedrms/{source_hash()}/{name}", "", json.dumps(to_json(rows)))))
    except (AttributeError, NotImplementedError, RuntimeError, ValueError):  # a store that cannot do it
        return rows


_forced: list[Config] = []


@contextlib.contextmanager
def forced(config: Config) -> Iterator[None]:
    """Every launch that is prepared meanwhile takes this configuration."""
    _forced.append(config)
    try:
        yield
    finally:
        _forced.pop()


def unusable(config: Config, device: torch.device, storage: Storage) -> str | None:
    """Why no launch on a device takes a configuration; None where one does."""
    kind = type(default_config(device, storage))
    if type(config) is not kind:
        return f"{', '.join(config._fields)}: it takes {', '.join(kind._fields)} there"
    return launch.out_of_range(config, storage)


def dropped(file: File, device: torch.device) -> dict[Key, str]:
    """Which rows of a file no launch on its device takes, and why."""
    found = {}
    for key, row in file.rows.items():
        try:
            problem = unusable(row.config, device, Storage.of_label(str(key.storage)))
        except ValueError as error:
            problem = str(error)
        if problem:
            found[key] = problem
    return found


def choose(rule: str, device: torch.device, storage: Storage, aligned: bool, numels: np.ndarray) -> Config:
    """The configuration of a launch over tensors of so many elements."""
    if _forced:
        return _forced[-1]
    default = default_config(device, storage, int(numels.sum()))
    if launch.lang.interpreted():
        return default
    # on a CPU addresses of any kind run the same code
    row = rows_for(device_name(device)).get(Key(rule, storage.label, aligned or not devices.is_gpu(device), size_of(numels)))
    return row.config if row and unusable(row.config, device, storage) is None else default
