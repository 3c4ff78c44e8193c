"""PuzzleLib."""

from typing import Any

from torch.optim.optimizer import ParamsT

from ..graves import FusedRMSPropGraves
from ..rmsprop import FusedRMSProp
from ..smorms3 import FusedSMORMS3
from .preset import preset


@preset(FusedRMSProp, "PuzzleLib", "bd59115")
def puzzlelib_rmsprop(params: ParamsT, learnRate: float = 1e-3, factor: float = 0.9, epsilon: float = 1e-5) -> dict[str, Any]:
    r"""PuzzleLib's RMSProp: epsilon outside the root.

    $$
    \begin{aligned}
    v &\leftarrow \text{factor} \cdot v + (1 - \text{factor}) \cdot g^2 \\
    w &\leftarrow w - \frac{\text{learnRate} \cdot g}{\sqrt{v} + \epsilon}
    \end{aligned}
    $$

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        learnRate: Learning rate, a number. Default 1e-3.
        factor: Decay of the average of squares $v$, per step. Default 0.9.
        epsilon: $\epsilon$, added to the root, in the gradient's unit. Default 1e-5.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.puzzlelib_rmsprop(params)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9968, 0.9968, 0.9968])

    Source: PuzzleLib bd59115, `Optimizers/RMSProp.py`. Its gradients are -dL/dw, so its code adds what is subtracted here.
    """
    return dict(lr=learnRate, alpha=factor, eps=epsilon)


@preset(FusedRMSPropGraves, "PuzzleLib", "bd59115")
def puzzlelib_rmsprop_graves(
    params: ParamsT, learnRate: float = 1e-4, alpha: float = 0.95, momRate: float = 0.9, epsilon: float = 1e-4
) -> dict[str, Any]:
    r"""PuzzleLib's RMSPropGraves: centered, epsilon inside the root, the learning rate inside the momentum.

    $$
    \begin{aligned}
    v &\leftarrow \alpha \cdot v + (1 - \alpha) \cdot g^2 \\
    m &\leftarrow \alpha \cdot m + (1 - \alpha) \cdot g \\
    b &\leftarrow \text{momRate} \cdot b + \frac{\text{learnRate} \cdot g}{\sqrt{v - m^2 + \epsilon}} \\
    w &\leftarrow w - b
    \end{aligned}
    $$

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        learnRate: Learning rate, a number. Default 1e-4.
        alpha: Decay of the averages $v$ and $m$, per step. Default 0.95.
        momRate: Decay of the momentum buffer $b$, per step. Default 0.9.
        epsilon: $\epsilon$, added to the variance $v - m^2$, in the square of the gradient's unit. Default 1e-4.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.puzzlelib_rmsprop_graves(params)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9995, 0.9995, 0.9995])

    Source: PuzzleLib bd59115, `Optimizers/RMSPropGraves.py`. Its documentation swaps the two averages below the root; the code computes
    what stands here. Its buffer is $-b$: it has the opposite sign of `momentum_buffer`.
    """
    return dict(lr=learnRate, alpha=alpha, momentum=momRate, eps=epsilon)


@preset(FusedSMORMS3, "PuzzleLib", "bd59115")
def puzzlelib_smorms3(params: ParamsT, learnRate: float = 1e-3, epsilon: float = 1e-16) -> dict[str, Any]:
    r"""PuzzleLib's SMORMS3: it chooses its own step sizes, up to `learnRate`.

    $$
    \begin{aligned}
    r &= \frac{1}{\text{mem} + 1}, \qquad \text{mem}_0 = 1 \\
    m &\leftarrow (1 - r) \cdot m + r \cdot g \\
    v &\leftarrow (1 - r) \cdot v + r \cdot g^2 \\
    x &= \frac{m^2}{v + \epsilon} \\
    w &\leftarrow w - \frac{\min(\text{learnRate},\ x) \cdot g}{\sqrt{v} + \epsilon} \\
    \text{mem} &\leftarrow 1 + \text{mem} \cdot (1 - x)
    \end{aligned}
    $$

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        learnRate: The largest learning rate, a number. Default 1e-3.
        epsilon: $\epsilon$, added to $v$, in the square of the gradient's unit, and to its root, in the gradient's unit. Default 1e-16.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.puzzlelib_smorms3(params)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9986, 0.9986, 0.9986])

    Source: PuzzleLib bd59115, `Optimizers/SMORMS3.py`. Its documentation swaps $r$ and $1 - r$, puts epsilon inside the last root, and
    gives 1e-5 as its default; the code does none of this.
    """
    return dict(lr=learnRate, eps=epsilon)
