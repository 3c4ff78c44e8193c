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
    """neon's RMSProp: epsilon inside of the root and outside; the norm limits the update, not what is averaged.

    Args:
        params: as of FusedRMSProp.
        stochastic_round: round 16-bit parameters stochastically, to the bits that they have; neon's number of bits is not supported.
        decay_rate: decay of the square average.
        learning_rate: learning rate.
        epsilon: added to the square average and to its root.
        gradient_clip_norm: limit of the L2 norm of all gradients, before they are clipped by value; it scales the update alone.
            None or 0 for none.
        gradient_clip_value: limit of the gradient's magnitude, its sign ignored; None or 0 for none.
        param_clip_value: limit of the parameters' magnitude after the step, likewise.
        batch_size: what gradients are divided by: neon's are sums over a batch, torch's mean losses need 1.

    Raises:
        ValueError: stochastic_round is neither True nor False.

    Source: neon, neon/optimizers/optimizer.py. Its documentation calls the norm a root mean squared average; the code computes
    the plain L2 norm. Schedules are in :mod:`fusedrms.schedules`.
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
