"""Graves' own numbers."""

from typing import Any

from torch.optim.optimizer import ParamsT

from ..graves import FusedRMSPropGraves
from .preset import preset


@preset(FusedRMSPropGraves, "Graves 2013", "arXiv:1308.0850")
def graves2013(params: ParamsT) -> dict[str, Any]:
    r"""The optimizer of Graves 2013, with his numbers: centered, epsilon inside the root, the learning rate inside the momentum.

    $$
    \begin{aligned}
    v &\leftarrow 0.95 \cdot v + 0.05 \cdot g^2 \\
    m &\leftarrow 0.95 \cdot m + 0.05 \cdot g \\
    b &\leftarrow 0.9 \cdot b + \frac{10^{-4} \cdot g}{\sqrt{v - m^2 + 10^{-4}}} \\
    w &\leftarrow w - b
    \end{aligned}
    $$

    Args:
        params: Parameters, named parameters, or parameter groups.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.graves2013(params)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9995, 0.9995, 0.9995])

    Source: arXiv:1308.0850, equations 38-45. The paper calls the averages $v$ and $m$ here $n$ and $g$, the gradient $\epsilon$, and $-b$
    here $\Delta$. His clipping of derivatives inside the network is no part of the optimizer.
    """
    return {}
