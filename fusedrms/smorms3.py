"""FusedSMORMS3: its rule and its options; everything else is RuleOptimizer's."""

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from .rules.declared import ByHand, Number
from .rules.optimizer import RuleOptimizer


class FusedSMORMS3(RuleOptimizer):
    r"""SMORMS3 in one launch: RMSProp whose averages remember as long, and whose steps are as large, as the gradient's noise allows.

    .. math::
        r &= 1 / (\mathrm{mem} + 1), \qquad
        m \leftarrow (1-r) m + r g, \qquad
        v \leftarrow (1-r) v + r g^2, \qquad
        x = m^2 / (v + \epsilon) \\
        w &\leftarrow w - g \min(\mathrm{lr}, x) / (\sqrt{v} + \epsilon), \qquad
        \mathrm{mem} \leftarrow 1 + \mathrm{mem} (1 - x)

    Args:
        params: tensors, named tensors or parameter groups, as of :class:`FusedRMSProp`.
        lr: the largest learning rate, a number or a 1-element tensor; default 1e-3.
        eps: added to the square average and to its root; default 1e-16.
        weight_decay: L2 penalty added to the gradient; default 0.
        capturable, foreach, maximize, differentiable: as of :class:`FusedRMSProp`.
        decoupled_weight_decay, corrected_weight_decay, max_lr_snapshot, rescale_grad, clip_grad_value, clip_after_decay,
            clip_grad_norm, clip_norm_over, clip_weights, stochastic_rounding, master_weights, state_dtype, seed, skip_nonfinite,
            skip_above, ema_decay, ema_warmup, stats, model_parallel_group: likewise. There is no caution: updates always have the
            gradient's sign.

    State of a parameter, of its shape and strides, float32, float64 for float64 parameters, complex for complex ones: ``square_avg`` and
    ``grad_avg``, from 0, ``mem``, from 1; ``param_ema`` and ``step``, as of :class:`FusedRMSProp`. In another state_dtype the first two
    are kept in it, as variance and mean; ``mem`` stays as it is.

    Raises:
        ValueError: a hyperparameter that is negative, NaN or infinite, and what else an option does not allow.
        RuntimeError: from step(), as of :class:`FusedRMSProp`.

    Source: Funk, "RMSprop loses to SMORMS3" (2015); as PuzzleLib and Chainer compute it. A gradient whose square is infinite
    makes no step, where m²/(v + eps) would be NaN.
    """

    declared = ByHand("smorms3", eps=Number(1e-16))
    kinds = declared.states

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        eps: float = 1e-16,
        weight_decay: float = 0,
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        decoupled_weight_decay: bool = False,
        corrected_weight_decay: bool = False,
        max_lr_snapshot: float | None = None,
        rescale_grad: float = 1.0,
        clip_grad_value: float | None = None,
        clip_after_decay: bool = False,
        clip_grad_norm: float | None = None,
        clip_norm_over: str = "optimizer",
        clip_weights: float | None = None,
        stochastic_rounding: bool = False,
        master_weights: str | None = None,
        state_dtype: torch.dtype | str = torch.float32,
        seed: int | None = None,
        skip_nonfinite: bool = False,
        ema_decay: float | None = None,
        ema_warmup: bool = False,
        stats: bool | int = False,
        skip_above: tuple[float, int] | None = None,
        model_parallel_group: Any = None,
    ):
        super().__init__(params, locals())
