"""Papers on reinforcement learning. Rewards, errors and rates that are clipped or annealed there are not the optimizer's."""

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..engine.options.checks import check_positive
from ..rmsprop import FusedRMSProp
from .preset import positive_or_none, preset
from .tensorflow import tensorflow_options


@preset(FusedRMSProp, "DQN 2015, Mnih et al.", "DeepMind's DQN 3.0, 9d9b1d1")
def dqn2015(params: ParamsT, lr: float | Tensor = 0.00025, wc: float = 0.0, *, minibatch_size: int = 32) -> dict[str, Any]:
    """The RMSProp of DQN, Mnih et al., Nature 2015: centered, decay .95, epsilon .01 inside of the root, no momentum.

    Args:
        params: as of FusedRMSProp.
        lr: learning rate.
        wc: L2 penalty ("weight cost").
        minibatch_size: the batch size if your loss is a mean, as torch's are; 1 if it is a sum. Gradients are multiplied by it, since
            epsilon is meant for sums over 32 transitions.

    Source: NeuralQLearner.lua of the published code. What the paper's table calls "gradient momentum .95" decays the average of gradients
    that is subtracted, centered; the code's momentum buffer is set to 0 at each step. "Min squared gradient .01" is added to the
    variance; it is no minimum. DeepMind's dqn_zoo has means and .01 / 32**2, :func:`dqn_zoo`; Dopamine rounds that to 1e-5, and starts
    from 1, :func:`dopamine`. Errors are clipped to [-1, 1], ``torch.nn.functional.smooth_l1_loss``.
    """
    check_positive(dict(minibatch_size=minibatch_size), "minibatch_size")
    return dict(
        lr=lr,
        alpha=0.95,
        eps=0.01,
        weight_decay=wc,
        centered=True,
        eps_placement="inside",
        rescale_grad=float(minibatch_size),
    )


@preset(FusedRMSProp, "dqn_zoo", "45061f4 (2023)")
def dqn_zoo(params: ParamsT, learning_rate: float | Tensor = 0.00025, optimizer_epsilon: float = 0.01 / 32**2) -> dict[str, Any]:
    """The RMSProp of DeepMind's dqn_zoo, DQN in JAX: centered, decay .95, epsilon inside of the root.

    Args:
        params: as of FusedRMSProp.
        learning_rate: learning rate.
        optimizer_epsilon: added to the variance, of gradients of means over 32 transitions.

    Source: dqn_zoo, dqn/run_atari.py, whose optimizer is optax.rmsprop. It makes the steps of :func:`dqn2015`.
    """
    return dict(lr=learning_rate, alpha=0.95, eps=optimizer_epsilon, centered=True, eps_placement="inside")


@preset(FusedRMSProp, "Dopamine", "5873f54 (2026)")
def dopamine(
    params: ParamsT,
    learning_rate: float | Tensor = 0.00025,
    decay: float = 0.95,
    momentum: float = 0.0,
    epsilon: float = 0.00001,
    centered: bool = True,
) -> dict[str, Any]:
    """The RMSProp of Dopamine's DQN, in TensorFlow: centered, epsilon inside of the root, square averages from 1.

    Args:
        params: as of FusedRMSProp.
        learning_rate, decay, momentum, epsilon, centered: as of tensorflow_rmsprop.

    Source: Dopamine, dopamine/tf/agents/dqn/dqn_agent.py. For a hundred steps and more the square average remembers the 1 it began
    with, and steps are smaller than DQN's. Its agents in JAX take Adam.
    """
    return tensorflow_options(learning_rate, decay, momentum, epsilon, centered)


@preset(FusedRMSProp, "A3C 2016, Mnih et al.", "arXiv:1602.01783")
def a3c2016(
    params: ParamsT, eta: float | Tensor = 7e-4, alpha: float = 0.99, epsilon: float = 0.1, *, clip_norm: float | None = None
) -> dict[str, Any]:
    """The RMSProp of A3C, Mnih et al. 2016: epsilon inside of the root, no momentum; its statistics are shared by all workers.

    Args:
        params: as of FusedRMSProp.
        eta: learning rate, which A3C anneals linearly to 0.
        alpha: decay of the square average.
        epsilon: added to the square average.
        clip_norm: limit of the L2 norm of a worker's gradients; None, 0 or less for none. The paper has none, well-known codes 40.

    ``optimizer.share_memory()`` shares the statistics.

    Source: equations (8) and (9). The paper draws eta from 1e-4 to 1e-2 and has no epsilon; 7e-4 and .1 are what its author told others
    (muupan's async-rl). Nor does it say what the average starts from: 0 here and there, 1 in miyosuda's async_deep_reinforce, which is
    TensorFlow's. SharedRMSprop of other codes for torch has epsilon outside of the root, where .1 makes other steps.
    """
    return dict(lr=eta, alpha=alpha, eps=epsilon, eps_placement="inside", clip_grad_norm=positive_or_none(clip_norm))


@preset(FusedRMSProp, "IMPALA 2018, Espeholt et al.", "scalable_agent, 6c0c8a7")
def impala2018(
    params: ParamsT,
    learning_rate: float | Tensor = 0.00048,
    decay: float = 0.99,
    momentum: float = 0.0,
    epsilon: float = 0.1,
    *,
    clip_norm: float | None = None,
) -> dict[str, Any]:
    """The RMSProp of IMPALA, Espeholt et al. 2018: epsilon inside of the root, square averages from 1.

    Args:
        params: as of FusedRMSProp.
        learning_rate: learning rate, which IMPALA anneals linearly to 0.
        decay: decay of the square average.
        momentum: decay of the momentum buffer, the rate inside.
        epsilon: added to the square average.
        clip_norm: limit of the L2 norm of all gradients; None, 0 or less for none.

    Source: experiment.py of the published code, which clips nothing; its losses are sums over batch and time. For Atari the paper
    (arXiv:1802.01561) has a rate of 6e-4, epsilon .01 and clip_norm 40. torchbeast takes torch's RMSprop, epsilon outside of the root and
    averages from 0.
    """
    return tensorflow_options(learning_rate, decay, momentum, epsilon) | dict(clip_grad_norm=positive_or_none(clip_norm))
