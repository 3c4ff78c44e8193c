"""FusedSMORMS3: its rule and its options; everything else is RuleOptimizer's."""

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from .engine.options.naming import suggests
from .engine.options.types import MasterWeights, ModelParallelGroup, NormOver, StateDtype
from .rules.declared import ByHand, Number
from .rules.optimizer import RuleOptimizer


class FusedSMORMS3(RuleOptimizer):
    r"""SMORMS3: RMSProp that chooses, for each element, how long its averages remember and how large its steps are.

    Both follow from the gradient's noise: where gradients agree, steps are large; where they contradict each other, steps are small.

    Examples:
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = FusedSMORMS3(model.parameters(), lr=1e-3)
        >>> model(torch.ones(8, 4)).square().mean().backward()
        >>> optimizer.step()
        >>> sorted(optimizer.state[model.weight])
        ['grad_avg', 'mem', 'square_avg', 'step']

    # Equations

    $k$ is the memory, in steps, and $x$ is the share of the gradient that is signal, from 0 to 1:

    $$
    \begin{aligned}
    r &= \frac{1}{k + 1} \\
    v &\leftarrow (1 - r) v + r g^2 \\
    m &\leftarrow (1 - r) m + r g \\
    x &= \frac{m^2}{v + \epsilon} \\
    w &\leftarrow w - \frac{\min(\eta, x) \, g}{\sqrt{v} + \epsilon} \\
    k &\leftarrow 1 + (1 - x) k
    \end{aligned}
    $$

    The options change the gradient $g$ before these equations, and the parameter $w$ after them, as in points 1 to 4 and 14 to 16 of
    `FusedRMSProp`.

    Args:
        params: Tensors, named tensors or parameter groups, as in `FusedRMSProp`.
        lr: Largest learning rate $\eta$: a number or a tensor of one element. Default 1e-3.
        eps: $\epsilon$, added to the square average and to its root. Default 1e-16.
        weight_decay: L2 penalty, added to the gradient. Default 0.

    Options as in `FusedRMSProp`: `capturable`, `foreach`, `maximize`, `differentiable`, `decoupled_weight_decay`, `corrected_weight_decay`,
    `max_lr_snapshot`, `rescale_grad`, `clip_grad_value`, `clip_after_decay`, `clip_grad_norm`, `clip_norm_over`, `clip_weights`,
    `stochastic_rounding`, `master_weights`, `state_dtype`, `seed`, `skip_nonfinite`, `ema_decay`, `ema_warmup`, `stats`, `skip_above`,
    `model_parallel_group`. `caution` is not among them, because updates always have the gradient's sign.

    # States

    A state has the shape and the strides of its parameter. It is float32, or float64 or complex for such parameters.

    | state | starts from | what it is |
    |---|---|---|
    | `square_avg` | 0 | the average $v$ |
    | `grad_avg` | 0 | the average $m$ |
    | `mem` | 1 | the memory $k$; it stays in full precision in every `state_dtype` |

    `step`, `param_ema` and `master_param` are as in `FusedRMSProp`. A `state_dtype` of fewer bits stores `square_avg` as the variance
    about `grad_avg`.

    Raises:
        ValueError: A hyperparameter is negative, NaN or infinite, or an option has a value that it does not allow.
        TypeError: An option must be a number and is none.
        RuntimeError: From `step()`, as in `FusedRMSProp`.

    Source: Funk, "RMSprop loses to SMORMS3" (2015); computed as in PuzzleLib and Chainer. A gradient whose square is infinite makes no
    step, where $m^2 / (v + \epsilon)$ would be NaN.
    """

    declared = ByHand("smorms3", eps=Number(1e-16))
    kinds = declared.states

    @suggests
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        eps: float | Tensor = 1e-16,
        weight_decay: float | Tensor = 0,
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        decoupled_weight_decay: bool = False,
        corrected_weight_decay: bool = False,
        max_lr_snapshot: float | Tensor | None = None,
        rescale_grad: float | Tensor = 1.0,
        clip_grad_value: float | Tensor | None = None,
        clip_after_decay: bool = False,
        clip_grad_norm: float | Tensor | None = None,
        clip_norm_over: NormOver = "optimizer",
        clip_weights: float | Tensor | None = None,
        stochastic_rounding: bool = False,
        master_weights: MasterWeights | None = None,
        state_dtype: StateDtype = torch.float32,
        seed: int | None = None,
        skip_nonfinite: bool = False,
        ema_decay: float | Tensor | None = None,
        ema_warmup: bool = False,
        stats: bool | int = False,
        skip_above: tuple[float, int] | None = None,
        model_parallel_group: ModelParallelGroup | None = None,
    ):
        super().__init__(params, locals())
