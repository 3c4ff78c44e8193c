"""neon."""

from typing import Any

from torch.optim.optimizer import ParamsT

from ..engine.options.checks import check_flags, check_positive
from ..rmsprop import FusedRMSProp
from .preset import preset


def _magnitude(limit: float | None) -> float | None:
    """A limit that is off at 0, and whose sign does not matter; the class checks what is no number."""
    return (abs(limit) or None) if isinstance(limit, int | float) else limit


@preset(FusedRMSProp, "neon", "1f3036c")
def neon_rmsprop(
    params: ParamsT,
    stochastic_round: bool = False,
    decay_rate: float = 0.95,
    learning_rate: float = 0.002,
    epsilon: float = 1e-6,
    gradient_clip_norm: float | None = None,
    gradient_clip_value: float | None = None,
    param_clip_value: float | None = None,
    *,
    batch_size: int = 1,
) -> dict[str, Any]:
    r"""neon's RMSProp: epsilon inside the root and outside; the limit of the norm shortens the update alone, not what is averaged.

    $$
    \begin{aligned}
    s &= \min\left(1,\ \frac{\text{gradient\_clip\_norm} \cdot \text{batch\_size}}{\lVert g \rVert_2}\right) \\
    g &\leftarrow \operatorname{clip}\left(\frac{g}{\text{batch\_size}},\ \pm \text{gradient\_clip\_value}\right) \\
    v &\leftarrow \text{decay\_rate} \cdot v + (1 - \text{decay\_rate}) \cdot g^2 \\
    w &\leftarrow w - \frac{\text{learning\_rate} \cdot s \cdot g}{\sqrt{v + \epsilon} + \epsilon} \\
    w &\leftarrow \operatorname{clip}(w,\ \pm \text{param\_clip\_value})
    \end{aligned}
    $$

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        stochastic_round: Round 16-bit parameters stochastically, to the bits that they have; neon's number of bits is not supported.
            Default False.
        decay_rate: Decay of the average of squares $v$, per step. Default 0.95.
        learning_rate: Learning rate, a number. Default 0.002.
        epsilon: $\epsilon$, added to the square average, in the square of the gradient's unit, and to its root, in the gradient's unit.
            Default 1e-6.
        gradient_clip_norm: Limit of the L2 norm of all gradients, before they are clipped by value, in the gradient's unit; None or 0 for
            none. Default None.
        gradient_clip_value: Limit of each element's magnitude in the gradient, in the gradient's unit, its sign ignored; None or 0 for
            none. Default None.
        param_clip_value: Limit of the parameters' magnitude after the step, in their unit, its sign ignored; None or 0 for none. Default
            None.
        batch_size: What gradients are divided by; neon's are sums over a batch, torch's mean losses need 1. Default 1.

    Raises:
        ValueError: `stochastic_round` is neither True nor False, or `batch_size` is not above 0.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.neon_rmsprop(params)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9911, 0.9911, 0.9911])

    Source: neon 1f3036c, `neon/optimizers/optimizer.py`. Its documentation calls the norm a root mean squared average; the code computes
    the plain L2 norm. neon's schedules are in [`fusedrms.schedules`](schedules.md).
    """
    check_flags(dict(stochastic_round=stochastic_round), "stochastic_round")
    check_positive(dict(batch_size=batch_size), "batch_size")
    return dict(
        lr=learning_rate,
        alpha=decay_rate,
        eps=epsilon,
        eps_placement="both",
        rescale_grad=1 / batch_size,
        clip_grad_value=_magnitude(gradient_clip_value),
        clip_grad_norm=None if gradient_clip_norm == 0 else gradient_clip_norm,
        clip_norm_on="update",
        clip_weights=_magnitude(param_clip_value),
        stochastic_rounding=stochastic_round,
    )
