"""Every option beside every other, against the float64 reference."""

import pytest
import torch

from cases import BF16, F32, F64, MODES
from fusedrms import FusedRMSProp, FusedSMORMS3
from pairs import pairwise
from sample import exhaustive
from tools import natively, parameters, random_grads, step_and_check

KINDS = "stochastic", "split", "8-bit state", "master, 8-bit state", "split, bfloat16 state", "split24, 4-bit state"

SHARED = dict(
    weight_decay=[0.0, 0.1],
    decoupled_weight_decay=[False, True],
    corrected_weight_decay=[False, True],
    maximize=[False, True],
    rescale_grad=[1.0, 0.5],
    clip_grad_value=[None, 0.5],
    clip_after_decay=[False, True],
    clip_grad_norm=[None, 0.5, float("inf")],
    clip_norm_over=["optimizer", "parameter"],
    clip_weights=[None, 0.75],
    skip_nonfinite=[False, True],
    skip_above=[None, (5.0, 4)],
    ema_decay=[None, 0.5],
    ema_warmup=[False, True],
    stats=[False, True, 2],
    capturable=[False, True],
    kind=[(F32, {}), (F64, {}), (torch.complex64, {}), *((BF16, MODES[name]) for name in KINDS)],
)
FAMILY = dict(
    centered=[False, True],
    momentum=[0.0, 0.9],
    nesterov=[False, True],
    lr_in_momentum=[False, True],
    caution=[False, True],
    eps_placement=["outside", "inside", "both", "floor"],
    bias_correction=[False, True],
    initial_square_avg=[0.0, 1.0],
    clip_norm_on=["gradient", "update"],
)
RULES = {FusedRMSProp: dict(FAMILY, **SHARED), FusedSMORMS3: SHARED}


def allowed(options: dict) -> bool:
    limits = options["clip_grad_norm"] not in (None, float("inf"))
    # a difference that may be 0, as it is in the first corrected step, has no digits
    digits = not (options.get("bias_correction") and options["centered"])
    return (
        (options["ema_decay"] is not None or not options["ema_warmup"])
        and (options["decoupled_weight_decay"] or not options["corrected_weight_decay"])
        and not (options["skip_nonfinite"] and limits and options["clip_grad_value"] is not None)
        and (options.get("momentum", 1) > 0 or not (options["nesterov"] or options["caution"]))
        and digits
    )


ROWS = [(cls, row) for cls, table in RULES.items() for row in pairwise(cls.__name__, table, allowed, tries=2000)]
SOME = [0, len(ROWS) // 2, len(ROWS) - 1]


@natively
@pytest.mark.parametrize(
    ("cls", "row"), [case if k in SOME else exhaustive(*case) for k, case in enumerate(ROWS)], ids=[f"{k}" for k in range(len(ROWS))]
)
def test_reference(cls, row):
    torch.manual_seed(0)
    options = dict(row)
    dtype, mode = options.pop("kind")
    params = parameters([(), (0,), (7,), (65, 3), (16384 + 3,)], dtype=dtype)
    optimizer = cls(params, lr=0.01, eps=1e-2, seed=0, **options, **{key: value for key, value in mode.items() if key != "seed"})
    for _ in range(4):
        random_grads(params)
        step_and_check(optimizer)
    if options["stats"]:
        assert optimizer.stats().total["grad_norm"] > 0
    if options["ema_decay"] is not None:
        with optimizer.averaged():
            assert len(list(optimizer.averages())) == len(params)
