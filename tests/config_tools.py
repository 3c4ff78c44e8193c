"""A configuration of the CPU, files that hold it, and what a launch takes."""

import json
import pathlib

import numpy as np
import torch

from fusedrms.engine.tables import configs
from fusedrms.engine.tables.configs import Key, Row
from fusedrms.kernels.launch import CPUConfig
from fusedrms.kernels.storage import Storage

CPU = torch.device("cpu")
STORAGE = Storage((("float32",),) * 3)
OTHER = CPUConfig(1 << 12, 1 << 18)
KEY = Key("rmsprop", STORAGE.label, True, "small")


def chosen(key=KEY, storage=STORAGE):
    configs.rows_for.cache_clear()
    return configs.choose(key.rule, CPU, storage, key.aligned, np.array([64, 64]))


def content(config=OTHER, **changed) -> dict:
    name = configs.device_name(CPU)
    return {**configs.header(name), "rows": configs.to_json({KEY: Row(config, 2.0, 1.0)}), **changed}


def write(folder: pathlib.Path, text) -> pathlib.Path:
    path = folder / f"{configs.device_name(CPU)}.json"
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return path
