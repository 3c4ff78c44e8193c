"""FusedRMSPropGraves: FusedRMSProp with other defaults, and three options fixed."""

from typing import Any, ClassVar

from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from .engine.options.naming import check_keywords
from .engine.options.types import GravesOptions
from .rmsprop import FusedRMSProp


class FusedRMSPropGraves(FusedRMSProp):
    r"""RMSProp as Graves wrote it: centered, with momentum, `eps` inside of the root and `lr` inside of the momentum buffer.

    It is `FusedRMSProp` with other defaults, and with three options fixed: `centered=True`, `eps_placement="inside"` and
    `lr_in_momentum=True`. Checkpoints of one class load into the other if it has these options.

    Examples:
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = FusedRMSPropGraves(model.parameters(), lr=1e-4, weight_decay=0.01)
        >>> model(torch.ones(8, 4)).square().mean().backward()
        >>> optimizer.step()

    # Equations

    $$
    \begin{aligned}
    n &\leftarrow \alpha n + (1 - \alpha) g^2 \\
    m &\leftarrow \alpha m + (1 - \alpha) g \\
    b &\leftarrow \mu b + \eta \frac{g}{\sqrt{n - m^2 + \epsilon}} \\
    w &\leftarrow w - b
    \end{aligned}
    $$

    The states are `square_avg` $n$, `grad_avg` $m$ and `momentum_buffer` $b$. The other options change these equations as they change those
    of `FusedRMSProp`.

    Args:
        params: As in `FusedRMSProp`.
        lr: Learning rate $\eta$: a number or a tensor of one element. Default 1e-4.
        alpha: Decay $\alpha$ of the averages per step, from 0 to 1. Default 0.95.
        momentum: Decay $\mu$ of the momentum buffer per step. Default 0.9.
        eps: $\epsilon$, added to the variance, in the square of the gradient's unit. Default 1e-4.
        weight_decay: L2 penalty, added to the gradient. Default 0.
        options: All other options of `FusedRMSProp`, by name.

    Raises:
        ValueError: One of the three fixed options has another value; and as in `FusedRMSProp`.
        TypeError: An option that `FusedRMSProp` does not have.
        RuntimeError: From `step()`, as in `FusedRMSProp`.

    Source: Graves, arXiv:1308.0850 (2013), equations 38 to 45; RMSPropGraves of PuzzleLib, RMSpropGraves of Chainer.
    """

    _fixed: ClassVar[dict[str, Any]] = dict(centered=True, eps_placement="inside", lr_in_momentum=True)

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        alpha: float | Tensor = 0.95,
        momentum: float | Tensor = 0.9,
        eps: float | Tensor = 1e-4,
        weight_decay: float | Tensor = 0,
        **options: Unpack[GravesOptions],
    ):
        check_keywords("FusedRMSPropGraves.__init__()", options, FusedRMSProp._class_defaults())
        others: dict[str, Any] = {**self._fixed, **options}
        super().__init__(params, lr=lr, alpha=alpha, momentum=momentum, eps=eps, weight_decay=weight_decay, **others)

    def check_group(self, group: dict[str, Any]) -> None:
        super().check_group(group)
        for option, value in self._fixed.items():
            if group[option] != value:
                raise ValueError(
                    f"{option}={group[option]!r} is not supported by FusedRMSPropGraves, whose rule has {option}={value!r}: "
                    "leave the option out, or use FusedRMSProp"
                )
