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
    r"""The RMSProp of DQN (Mnih et al., Nature 2015): centered, epsilon .01 inside the root, for sums over a minibatch.

    $$
    \begin{aligned}
    g &\leftarrow \text{minibatch\_size} \cdot g + \text{wc} \cdot w \\
    v &\leftarrow 0.95 \cdot v + 0.05 \cdot g^2 \\
    m &\leftarrow 0.95 \cdot m + 0.05 \cdot g \\
    w &\leftarrow w - \frac{\text{lr} \cdot g}{\sqrt{v - m^2 + 0.01}}
    \end{aligned}
    $$

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        lr: Learning rate, a number or a 1-element tensor. Default 0.00025.
        wc: L2 penalty added to the gradient ("weight cost"). Default 0.0.
        minibatch_size: The batch size if your loss is a mean, as torch's are; 1 if it is a sum. Gradients are multiplied by it, since
            epsilon is meant for sums over 32 transitions. Default 32.

    Raises:
        ValueError: `minibatch_size` is not above 0.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.dqn2015(params)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9989, 0.9989, 0.9989])

    Source: DeepMind's DQN 3.0, 9d9b1d1, `NeuralQLearner.lua`. Two entries of the paper's table mean something else than they say.
    "Gradient momentum .95" is the decay of the average of gradients $m$ that is subtracted; the code's momentum buffer is set to 0 at
    each step. "Min squared gradient .01" is added to the variance; it is no minimum.

    DeepMind's dqn_zoo has means and .01 / 32**2, [`dqn_zoo`][fusedrms.presets.dqn_zoo]. Dopamine rounds that to 1e-5, and starts from 1,
    [`dopamine`][fusedrms.presets.dopamine]. DQN clips errors to [-1, 1]: use `torch.nn.functional.smooth_l1_loss`.
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
    r"""The RMSProp of DeepMind's dqn_zoo, DQN in JAX: centered, epsilon inside the root.

    $$
    \begin{aligned}
    v &\leftarrow 0.95 \cdot v + 0.05 \cdot g^2 \\
    m &\leftarrow 0.95 \cdot m + 0.05 \cdot g \\
    w &\leftarrow w - \frac{\text{learning\_rate} \cdot g}{\sqrt{v - m^2 + \text{optimizer\_epsilon}}}
    \end{aligned}
    $$

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        learning_rate: Learning rate, a number or a 1-element tensor. Default 0.00025.
        optimizer_epsilon: Added to the variance $v - m^2$, of gradients of means over 32 transitions, in the square of the gradient's
            unit. Default (0.01 / 32**2).

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.dqn_zoo(params)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9989, 0.9989, 0.9989])

    Source: dqn_zoo 45061f4 (2023), `dqn/run_atari.py`, whose optimizer is optax.rmsprop. It makes the steps of
    [`dqn2015`][fusedrms.presets.dqn2015].
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
    r"""The RMSProp of Dopamine's DQN, in TensorFlow: centered, epsilon inside the root, square averages start from 1.

    $$
    \begin{aligned}
    v &\leftarrow \text{decay} \cdot v + (1 - \text{decay}) \cdot g^2, \qquad v_0 = 1 \\
    m &\leftarrow \text{decay} \cdot m + (1 - \text{decay}) \cdot g \qquad \text{if centered, else } m = 0 \\
    b &\leftarrow \text{momentum} \cdot b + \frac{\text{learning\_rate} \cdot g}{\sqrt{v - m^2 + \epsilon}} \\
    w &\leftarrow w - b
    \end{aligned}
    $$

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        learning_rate: Learning rate, a number or a 1-element tensor. Default 0.00025.
        decay: Decay of the averages $v$ and $m$, per step. Default 0.95.
        momentum: Decay of the momentum buffer $b$, per step; 0 for no buffer. Default 0.0.
        epsilon: $\epsilon$, added to the variance, or to the square average, in the square of the gradient's unit. Default 0.00001.
        centered: Divide by the standard deviation of the gradient instead of its root mean square. Default True.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.dopamine(params)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9999, 0.9999, 0.9999])

    Source: Dopamine 5873f54 (2026), `dopamine/tf/agents/dqn/dqn_agent.py`. For a hundred steps and more the square average remembers the
    1 it began with, and steps are smaller than DQN's. Its agents in JAX take Adam.
    """
    return tensorflow_options(learning_rate, decay, momentum, epsilon, centered)


@preset(FusedRMSProp, "A3C 2016, Mnih et al.", "arXiv:1602.01783")
def a3c2016(
    params: ParamsT, eta: float | Tensor = 7e-4, alpha: float = 0.99, epsilon: float = 0.1, *, clip_norm: float | None = None
) -> dict[str, Any]:
    r"""The RMSProp of A3C (Mnih et al. 2016): epsilon inside the root, no momentum; all workers share its statistics.

    $$
    \begin{aligned}
    g &\leftarrow g \cdot \min\left(1,\ \frac{\text{clip\_norm}}{\lVert g \rVert_2}\right) \\
    v &\leftarrow \alpha \cdot v + (1 - \alpha) \cdot g^2 \\
    w &\leftarrow w - \frac{\eta \cdot g}{\sqrt{v + \epsilon}}
    \end{aligned}
    $$

    `optimizer.share_memory()` shares the statistics.

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        eta: $\eta$, learning rate, a number or a 1-element tensor, which A3C anneals linearly to 0. Default 7e-4.
        alpha: $\alpha$, decay of the average of squares $v$, per step. Default 0.99.
        epsilon: $\epsilon$, added to the square average, in the square of the gradient's unit. Default 0.1.
        clip_norm: Limit of the L2 norm of a worker's gradients, in the gradient's unit; None, 0 or less for none. The paper has none,
            well-known codes have 40. Default None.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.a3c2016(params)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9989, 0.9989, 0.9989])

    Source: arXiv:1602.01783, equations (8) and (9), whose $g$ is $v$ here. The paper draws eta from 1e-4 to 1e-2 and has no epsilon; 7e-4
    and .1 are what its author told others (muupan's async-rl). Nor does it say what the average starts from: 0 here and there, 1 in
    miyosuda's async_deep_reinforce, which is TensorFlow's. SharedRMSprop of other codes for torch has epsilon outside the root, where .1
    makes other steps.
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
    r"""The RMSProp of IMPALA (Espeholt et al. 2018): epsilon inside the root, square averages start from 1.

    $$
    \begin{aligned}
    g &\leftarrow g \cdot \min\left(1,\ \frac{\text{clip\_norm}}{\lVert g \rVert_2}\right) \\
    v &\leftarrow \text{decay} \cdot v + (1 - \text{decay}) \cdot g^2, \qquad v_0 = 1 \\
    b &\leftarrow \text{momentum} \cdot b + \frac{\text{learning\_rate} \cdot g}{\sqrt{v + \epsilon}} \\
    w &\leftarrow w - b
    \end{aligned}
    $$

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        learning_rate: Learning rate, a number or a 1-element tensor, which IMPALA anneals linearly to 0. Default 0.00048.
        decay: Decay of the average of squares $v$, per step. Default 0.99.
        momentum: Decay of the momentum buffer $b$, per step; 0 for no buffer. Default 0.0.
        epsilon: $\epsilon$, added to the square average, in the square of the gradient's unit. Default 0.1.
        clip_norm: Limit of the L2 norm of all gradients, in the gradient's unit; None, 0 or less for none. Default None.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.impala2018(params)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9998, 0.9998, 0.9998])

    Source: scalable_agent 6c0c8a7, `experiment.py`. It clips nothing; its losses are sums over batch and time. For Atari the paper
    (arXiv:1802.01561) has a rate of 6e-4, epsilon .01 and clip_norm 40. torchbeast takes torch's RMSprop instead: epsilon outside the
    root, averages from 0.
    """
    return tensorflow_options(learning_rate, decay, momentum, epsilon) | dict(clip_grad_norm=positive_or_none(clip_norm))
