"""What rounding does to parameters and averages in the long run, beside float32.

    python -m bench.studies.drift [--steps 10000] [--output bench/results]

Parameters shrink by the same share at each step: by how much of it they did, on average, and how far single ones are from that. Averages
are of normal gradients, whose spread differs from one parameter to the next: by how much their roots differ from those of float32, on
average and each. Writes drift.json.
"""

import json
import math
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.common.arguments import check_output, make_parser, writing
from bench.common.machine import machine
from bench.common.text import figure, table
from fusedrms import FusedRMSProp, export_master
from fusedrms.engine.state.masters import master_of, split
from fusedrms.engine.state.precision import MASTER
from fusedrms.tools.arguments import whole
from fusedrms.tools.files import write

N = 2**14  # elements
FEWEST = 40  # steps
SHARES = (2.0**-12, 2.0**-15, 2.0**-17, 2.0**-20)  # of a parameter, that a step takes
NEAREST = "24 bits, to nearest"
MASTERS: dict[str, dict[str, Any]] = {
    "bfloat16, to nearest": {},
    "bfloat16, stochastically": dict(stochastic_rounding=True),
    NEAREST: {},
    "24 bits, stochastically (`split24`)": dict(master_weights="split24"),
    "32 bits (`split`)": dict(master_weights="split"),
}
ALPHAS = (0.9, 0.99, 0.999)
STATES: dict[str, dict[str, Any]] = {
    "bfloat16": dict(state_dtype=torch.bfloat16),
    "8-bit": dict(state_dtype="8bit"),
    "4-bit": dict(state_dtype="4bit"),
}


def _without_bits(master: Tensor) -> Tensor:
    """A float32 as the 24 bits nearest to it."""
    param, remainder = split(master, torch.int8)
    rounded = master_of(param, {MASTER: remainder})
    assert rounded is not None
    return rounded


def shrunk(mode: str, share: float, steps: int) -> dict[str, float]:
    """Of parameters between 1 and 2: which part of the way they went, and the standard deviation of what they ended as, as a share."""
    begin = (1 + torch.rand(N, generator=torch.Generator().manual_seed(0))).bfloat16().float()
    if mode == NEAREST:
        end = begin.clone()
        for _ in range(steps):
            end = _without_bits(torch.addcmul(end, end, torch.tensor(-share)))
    else:
        param = torch.nn.Parameter(begin.bfloat16())
        param.grad = torch.zeros_like(param)
        optimizer = FusedRMSProp([param], lr=1.0, weight_decay=share, decoupled_weight_decay=True, seed=0, **MASTERS[mode])
        for _ in range(steps):
            optimizer.step()
        ((_, end),) = export_master(optimizer)
    ratio = end.double() / begin.double()
    return dict(went=ratio.mean().log().item() / (steps * math.log1p(-share)), spread=ratio.std().item() / ratio.mean().item())


def averaged(options: dict[str, Any], alpha: float, steps: int) -> dict[str, float]:
    """Mean and root mean square of how far roots of averages are from those of float32, as a share, in the last half of the steps."""
    spread = torch.exp(0.5 * torch.randn(N, generator=torch.Generator().manual_seed(1)))
    kinds: dict[str, Any] = dict(alpha=alpha, lr=0.0, initial_square_avg=1.0, seed=0)
    params = [torch.nn.Parameter(torch.zeros(N)) for _ in range(2)]
    wide, lean = FusedRMSProp(params[:1], **kinds), FusedRMSProp(params[1:], **kinds, **options)
    generator, off = torch.Generator().manual_seed(2), []
    for step in range(steps):
        params[0].grad = params[1].grad = spread * torch.randn(N, generator=generator)
        wide.step()
        lean.step()
        if step >= steps // 2 and step % max(1, steps // FEWEST) == 0:
            roots = [optimizer.state_dict()["state"][0]["square_avg"].double().sqrt() for optimizer in (wide, lean)]
            off.append(roots[1] / roots[0] - 1)
    errors = torch.stack(off)
    return dict(mean=errors.mean().item(), error=errors.square().mean().sqrt().item())


def _masters(results: dict) -> list[str]:
    lines = [(mode, *(f"{row['went']:.0%} ± {figure(100 * row['spread'])}%" for row in rows)) for mode, rows in results["masters"].items()]
    return table(("master", *(f"{share:.1e} a step" for share in results["shares"])), lines)


def _averages(results: dict) -> list[str]:
    lines = [
        (state, *(f"{row['mean']:+.2%}, {figure(100 * row['error'])}%" for row in rows)) for state, rows in results["averages"].items()
    ]
    return table(("state", *(f"alpha {alpha}" for alpha in results["alphas"])), lines)


TABLES: dict[str, Callable[[dict], list[str]]] = {"masters": _masters, "averages": _averages}


def main() -> int:
    parser = make_parser("bench.studies.drift", __doc__, output=True)
    parser.add_argument("--steps", type=whole, default=10_000, help="(default: %(default)s)")
    given = parser.parse_args()
    if given.steps < FEWEST:
        parser.error(f"--steps {given.steps}: must be at least {FEWEST}")
    check_output(parser, given.output)
    results = {
        **machine(torch.device("cpu"), f"{parser.prog} --steps {given.steps}"),
        "shares": SHARES,
        "alphas": ALPHAS,
        "masters": {mode: [shrunk(mode, share, given.steps) for share in SHARES] for mode in MASTERS},
        "averages": {name: [averaged(options, alpha, given.steps) for alpha in ALPHAS] for name, options in STATES.items()},
    }
    print("\n".join([*_masters(results), "", *_averages(results)]))
    with writing(parser):
        write(given.output / "drift.json", json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
