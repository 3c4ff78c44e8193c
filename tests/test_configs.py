"""Configurations: no bit depends on them, and which one a launch takes."""

import contextlib
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import distributed

from config_tools import CPU, KEY, OTHER, STORAGE, chosen, content, write
from fusedrms import FusedRMSProp, FusedSMORMS3
from fusedrms.engine.tables import configs
from fusedrms.kernels import devices, launch
from fusedrms.kernels.launch import CPUConfig, GPUConfig
from fusedrms.kernels.storage import Storage
from fusedrms.tools.variants import MODES, RULES, variant
from tools import parameters, random_grads, twins

pytestmark = pytest.mark.usefixtures("config_folders")


# few and large blocks: the interpreter takes milliseconds for each
GPU_CONFIGS = [GPUConfig(4096, 1024, 1, 0, 0), GPUConfig(8192, 256, 4, 3, 0), GPUConfig(16384, 64, 2, 0, 128)]
CPU_CONFIGS = [CPUConfig(1 << n, work) for n in (6, 11, 14, 20) for work in (1000, 1 << 40)]


@pytest.mark.exhaustive
@pytest.mark.interpret
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("optimizer", "dtype", "options"),
    [
        (FusedRMSProp, torch.float32, dict(centered=True, momentum=0.9, clip_grad_norm=0.5)),
        (FusedSMORMS3, torch.bfloat16, dict(master_weights="split", state_dtype="8bit", seed=0)),
    ],
    ids=["norm", "8-bit"],
)
def test_no_bit_depends_on_it(device, optimizer, dtype, options):
    start = parameters([(5000,), (77,), (33, 5), (16384 + 3,)], device, dtype)
    results = []
    for config in (None, *(GPU_CONFIGS if devices.uses_triton(device) else CPU_CONFIGS)):
        params = twins(start)
        ours = optimizer(params, **options)
        torch.manual_seed(1)
        with configs.forced(config) if config else contextlib.nullcontext():
            for _ in range(2):
                random_grads(params)
                ours.step()
        assert config is None or launch.is_valid(config, ours._run.plan._buckets[0].layout.storage)
        states = [state[name] for state in ours.state.values() for name in state]
        results.append([tensor.detach().clone() for tensor in (*params, *states)])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


class _Recorded:
    """A Triton kernel, and what it becomes, as launch.py sees them."""

    arg_names = ("x_ptr", "n", "y_ptr", "BLOCK", "RULE")
    __name__ = "recorded"

    def __init__(self, calls, compiled=None):
        self.calls, self.compiled = calls, compiled

    def __getitem__(self, grid):
        def run(*args, **named):
            self.calls.append((grid, args, named))
            return self.compiled

        return run

    def warmup(self, *args, grid, **constants):
        return self.compiled


def test_second_launch_takes_the_same_arguments():
    """Compiled kernels are called with everything in the order of the arguments: addresses, constants as well, options not."""
    first, later = [], []
    x, ys = torch.zeros(1), torch.zeros(3, 4)
    constants = dict(BLOCK=128, num_warps=4, RULE="rule", maxnreg=64)
    kernel = launch.Kernel(_Recorded(first, _Recorded(later)), 7, constants, dict(n=5, x_ptr=x), "y_ptr")
    for y in ys:
        kernel(y)
    ((grid, args, named),) = first
    assert (grid, args) == ((7, 1, 1), ())
    assert named.pop("x_ptr") is x
    assert named.pop("y_ptr").data_ptr() == ys[0].data_ptr()
    assert named == dict(n=5, **constants)
    assert later == [((7, 1, 1), (x.data_ptr(), 5, y.data_ptr(), 128, "rule"), {}) for y in ys[1:]]


def test_where_files_are_found(tmp_path):
    default = chosen()
    assert default == launch.default_config(CPU, STORAGE)
    write(tmp_path / "user", content())
    assert chosen() == OTHER
    assert chosen(KEY._replace(rule="smorms3")) == default
    assert chosen(storage=Storage((("float64",),) * 3)) == default
    write(tmp_path / "own", content(CPUConfig(1 << 10, 5)))
    assert chosen() == CPUConfig(1 << 10, 5)
    optimizer = FusedRMSProp(parameters([(64,), (64,)]))
    random_grads(optimizer.param_groups[0]["params"])
    optimizer.step()
    (bucket,) = optimizer._run.plan._buckets
    assert bucket.launch._chunk == 1 << 10


def test_stale_file_warns_once(tmp_path):
    write(tmp_path / "own", content(kernels="0" * 16))
    with pytest.warns(UserWarning, match=r"other kernels.*fusedrms tune"):
        assert chosen() == launch.default_config(CPU, STORAGE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        configs.choose(KEY.rule, CPU, STORAGE, True, np.array([64]))


@pytest.mark.parametrize(
    "config",
    [
        GPUConfig(1000, 256, 1, 0, 0),
        GPUConfig(1 << 14, 100, 1, 0, 0),
        GPUConfig(512, 256, 1, 0, 0),
        GPUConfig(1 << 14, 256, 3, 0, 0),
        GPUConfig(1 << 14, 256, 1, -1, 0),
        GPUConfig(1 << 14, 1024, 1, 0, 128),
        GPUConfig(1 << 14, 256, 1, 0, 8),
        GPUConfig(1 << 40, 256, 1, 0, 0),
        CPUConfig(0, 1),
        CPUConfig(100, 1),
        CPUConfig(1 << 14, 0),
        CPUConfig(1 << 14, 1.0),  # type: ignore[arg-type]
        CPUConfig(True, 1),
    ],
    ids=str,
)
def test_invalid(config):
    assert not launch.is_valid(config, STORAGE)


@pytest.mark.parametrize("mode", MODES)
def test_a_label_says_the_storage(mode):
    for rule in RULES:
        storage = variant(rule, mode).storage
        assert Storage.of_label(storage.label) == storage


@pytest.mark.parametrize("label", ["", "float32", "float32, float", "float32, stochastic, float32", "5"])
def test_no_label(label):
    with pytest.raises(ValueError, match=f"'{label}' is no label"):
        Storage.of_label(label)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(threads=100), "threads 100: it takes 64, 128, 256, 512 or 1024"),
        (dict(threads=0), "threads 0"),
        (dict(vectors=3), "vectors 3: it takes 1, 2 or 4"),
        (dict(chunk=512), "chunk 512: it takes a power of two from 1024 to"),
        (dict(programs=-1), "programs -1"),
        (dict(registers=8), "registers 8: it takes 0, or from 32 to 256"),
        (dict(registers=32.0), "registers 32.0: it takes a whole number"),
    ],
)
def test_out_of_range(change, said):
    right = GPUConfig(1 << 14, 256, 1, 0, 0)
    assert launch.out_of_range(right, STORAGE) is None
    assert said in launch.out_of_range(right._replace(**change), STORAGE)


def test_every_rank_takes_the_same(tmp_path, monkeypatch):
    """The first process of a job to ask decides, and what it says is checked as a file is."""
    store = distributed.HashStore()
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed.distributed_c10d, "_get_default_store", lambda: store)
    write(tmp_path / "own", content())
    assert chosen() == OTHER
    write(tmp_path / "own", content(CPUConfig(1 << 10, 5)))
    assert chosen() == OTHER
    store.set(f"fusedrms/{configs.source_hash()}/{configs.device_name(CPU)}", "nonsense")
    assert chosen() == CPUConfig(1 << 10, 5)


@pytest.mark.exhaustive
def test_steps_where_no_cache_can_be_read():
    """A home that is none takes nothing from a step."""
    code = (
        "import torch, fusedrms; p = torch.nn.Parameter(torch.ones(3)); p.grad = torch.ones(3);"
        " fusedrms.FusedRMSProp([p]).step(); assert p[0] < 1"
    )
    environment = {**os.environ, "HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null/x", configs.ENVIRONMENT: "/dev/null/y"}
    subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment, check=True)
