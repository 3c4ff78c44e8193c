"""Why 8-bit and 4-bit states have groups of 64 with a float32 scale: error, bytes and time of others.

    python -m bench.studies.group_size [--output bench/results]

Trains the byte-level GPT of examples/ for a while, encodes its square averages, gradient averages and momentum buffers with each
group size, and times a step of 2 tensors of 4096x4096 (bfloat16, split master, square average in 8 and in 4 bits) in a copy of the
package that has that size. Writes group_size.json.
"""

import functools
import json
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable

import torch

from bench.common.arguments import ROOT, check_output, make_parser, writing
from bench.common.machine import machine
from bench.common.text import table
from fusedrms import FusedRMSProp
from fusedrms.engine.state import quantized
from fusedrms.tools.files import write
from gpt import GPT, batch, corpus

SIZES = (32, 64, 128, 256)
SIGNED = ("grad_avg", "momentum_buffer")
TIMED = """
import time, torch, numba, statistics
from fusedrms import FusedRMSProp
from fusedrms.kernels.quant import GROUP
params = [torch.nn.Parameter(torch.randn(4096, 4096, dtype=torch.bfloat16)) for _ in range(2)]
for param in params:
    param.grad = torch.randn_like(param)
steps = {each: FusedRMSProp(params, master_weights="split", state_dtype=each).step for each in ("8bit", "4bit")}
seconds = {each: [] for each in steps}
for _ in range(12):
    for each, step in steps.items():
        begin = time.perf_counter()
        step()
        seconds[each].append(time.perf_counter() - begin)
print(GROUP, *(statistics.median(times[2:]) for times in seconds.values()))
"""


def states(steps: int = 200) -> dict[str, list[torch.Tensor]]:
    """name -> what training leaves in each parameter's state, in float32."""
    torch.manual_seed(0)
    train, _ = corpus()
    model = GPT(2, 192, 64, 4)
    optimizer = FusedRMSProp(model.parameters(), lr=3e-4, centered=True, momentum=0.9)
    for step in range(steps):
        optimizer.zero_grad()
        model(*batch(train, 0, step, 12, 64)).backward()
        optimizer.step()
    return {key: [state[key] for state in optimizer.state.values()] for key in ("square_avg", *SIGNED)}


def _scale(flat: torch.Tensor, size: int) -> torch.Tensor:
    """Of each element the largest magnitude in its group."""
    return torch.nn.functional.pad(flat.abs(), (0, -len(flat) % size)).view(-1, size).amax(1).repeat_interleave(size)[: len(flat)]


def companded(value: torch.Tensor, size: int) -> torch.Tensor:
    """After another signed code, 127 * 2y / (1 + |y|) of a share y."""
    flat = value.flatten()
    scale = _scale(flat, size)
    share = flat / scale.clamp(2.0**-100)
    level = (254 * share / (1 + share.abs())).round() / 127
    return (scale * level / (2 - level.abs())).view(value.shape)


def narrow(value: torch.Tensor, size: int) -> torch.Tensor:
    """After unsigned codes of 4 bits whose scale is the next bfloat16 above."""
    flat = value.flatten()
    scale = ((_scale(flat, size).clamp(2.0**-100).view(torch.int32) + 0xFFFF) >> 16 << 16).view(torch.float32)
    level = (15 * (flat / scale).sqrt()).round().maximum((flat > 0).float())
    return (scale * (level / 15) ** 2).view(value.shape)


def rooted(value: torch.Tensor, size: int, bits: int) -> torch.Tensor:
    """After the code that is used, unsigned for what is never negative."""
    before, quantized.GROUP = quantized.GROUP, size
    code = f"uint{bits}" if (value >= 0).all() else f"int{bits}"
    new = quantized.dequantize(*quantized.quantize(value, code), code, value)
    quantized.GROUP = before
    return new


def error(values: list[torch.Tensor], code: Callable[[torch.Tensor, int], torch.Tensor], size: int, roots: bool = False) -> float:
    """Root mean square of the error, as a share of the values' root mean square; or of their roots'."""
    found = [code(value, size) for value in values]
    new, old = (torch.cat([value.flatten().double() for value in tensors]) for tensors in (found, values))
    if roots:
        new, old = new.sqrt(), old.sqrt()
    return ((new - old).square().mean() / old.square().mean()).sqrt().item()


def seconds(size: int) -> list[float]:
    """With 8 bits, with 4."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("fusedrms", "kernels"):
            shutil.copytree(ROOT / name, pathlib.Path(folder, name), symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        quant = pathlib.Path(folder, "kernels/quant.py")
        quant.write_text(re.sub(r"^GROUP = \d+", f"GROUP = {size}", quant.read_text(), flags=re.M))
        printed = subprocess.run([sys.executable, "-c", TIMED], cwd=folder, capture_output=True, text=True, check=True).stdout.split()
    assert int(printed[0]) == size
    return [float(each) for each in printed[1:]]


def errors_of(trained: dict[str, list[torch.Tensor]], size: int, bits: int) -> dict[str, float]:
    code = functools.partial(rooted, bits=bits)
    return {key: error(values, code, size, roots=key == "square_avg") for key, values in trained.items()}


def _four(results: dict) -> list[str]:
    lines = []
    for size, row in results["sizes"].items():
        four = row["4bit"]
        errors = (f"{four[key]:.1%}" for key in ("square_avg", *SIGNED))
        narrow = f"{0.5 + 2 / int(size):.4f}", f"{four['bfloat16 scale']:.1%}"
        lines.append((str(size), f"{0.5 + 4 / int(size):.4f}", *errors, f"{four['seconds'] * 1e3:.1f}", *narrow))
    errors = "error of roots of square_avg", "of grad_avg", "of momentum_buffer"
    return table(("group", "bytes a state", *errors, "ms a step", "bytes with a bfloat16 scale", "error of roots"), lines)


def _table(results: dict) -> list[str]:
    lines = []
    for size, row in results["sizes"].items():
        errors = (f"{row[key]:.2%}" for key in ("square_avg", *SIGNED))
        others = ", ".join(f"{row[f'{key}, companded']:.2%}" for key in SIGNED)
        lines.append((str(size), f"{row['bytes']:.4f}", *errors, others, f"{row['seconds'] * 1e3:.1f}"))
    errors = "error of roots of square_avg", "of grad_avg", "of momentum_buffer", "the last two, companded"
    return table(("group", "bytes a state", *errors, "ms a step"), lines)


TABLES: dict[str, Callable[[dict], list[str]]] = {"group_size": _table, "group_size_4bit": _four}


def main() -> int:
    parser = make_parser("bench.studies.group_size", __doc__, output=True)
    given = parser.parse_args()
    check_output(parser, given.output)
    trained = states()
    rounds = [{size: seconds(size) for size in SIZES} for _ in range(3)]  # in turn, for a noisy machine
    sizes = {
        size: {
            "bytes": 1 + 4 / size,
            **errors_of(trained, size, 8),
            **{f"{key}, companded": error(trained[key], companded, size) for key in SIGNED},
            "seconds": statistics.median(times[size][0] for times in rounds),
            "4bit": {
                **errors_of(trained, size, 4),
                "bfloat16 scale": error(trained["square_avg"], narrow, size, roots=True),
                "seconds": statistics.median(times[size][1] for times in rounds),
            },
        }
        for size in SIZES
    }
    results = {**machine(torch.device("cpu"), parser.prog), "sizes": sizes}
    print("\n".join([*_table(results), "", *_four(results)]))
    with writing(parser):
        write(given.output / "group_size.json", json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
