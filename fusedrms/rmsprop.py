"""FusedRMSProp: options in, Recipe out; everything else is FusedOptimizer's."""

from typing import Any, get_args

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from .engine.optimizer import FusedOptimizer
from .engine.options.checks import check_at_least_zero, check_choice, check_flags, is_live, is_positive, number
from .engine.options.naming import suggests
from .engine.options.recipe import Recipe, recipe_of
from .engine.options.types import EpsPlacement, MasterWeights, ModelParallelGroup, NormOn, NormOver, StateDtype
from .kernels.rule import RULES
from .kernels.rules import RMSPropNumbers

# how often eps is added inside of the root, and outside
EPS: dict[EpsPlacement, tuple[float, float]] = {"outside": (0.0, 1.0), "inside": (1.0, 0.0), "both": (1.0, 1.0), "floor": (0.0, 1.0)}


class FusedRMSProp(FusedOptimizer):
    r"""RMSProp that updates all parameters in one launch. It takes the place of `torch.optim.RMSprop`, and has more options.

    A launch is one call of a compiled kernel. It updates all parameters of one device and dtype whose groups follow the same equations.

    Examples:
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = FusedRMSProp(model.parameters(), lr=1e-3, momentum=0.9)
        >>> model(torch.ones(8, 4)).square().mean().backward()
        >>> optimizer.step()
        >>> sorted(optimizer.state[model.weight])
        ['momentum_buffer', 'square_avg', 'step']

    # Equations

    With momentum $\mu$, the gradient $g$ and the parameter $w$:

    $$
    \begin{aligned}
    v &\leftarrow \alpha v + (1 - \alpha) g^2 \\
    b &\leftarrow \mu b + \frac{g}{\sqrt{v} + \epsilon} \\
    w &\leftarrow w - \eta b
    \end{aligned}
    $$

    Step $t$ of a parameter, counted from 1, computes for each element, in this order:

    1. The gradient is $g \leftarrow r g$, where $r$ is `rescale_grad`. With `maximize` it is $g \leftarrow -r g$.
    2. `clip_grad_value` $c$: $g \leftarrow \min(\max(g, -c), c)$.
    3. `clip_grad_norm` $L$: $g \leftarrow g \min(1, L / N)$. $N$ is the L2 norm of all gradients after point 2, or of this parameter's
       alone with `clip_norm_over="parameter"`.
    4. `weight_decay` $\lambda$: $g \leftarrow g + \lambda w$. With `clip_after_decay`, point 2 comes after this one.
    5. The averages: $v \leftarrow \alpha v + (1 - \alpha) g^2$ and, if `centered`, $m \leftarrow \alpha m + (1 - \alpha) g$.
    6. `bias_correction`: from here on, $v / (1 - \alpha^t)$ stands for $v$, and $m / (1 - \alpha^t)$ for $m$. The states keep $v$ and $m$.
    7. The second moment is $s = v$ or, if `centered`, the variance $s = \max(0, v - m^2)$.
    8. The denominator $d$, by `eps_placement`: $\sqrt{s} + \epsilon$ ("outside"), $\sqrt{s + \epsilon}$ ("inside"),
       $\sqrt{s + \epsilon} + \epsilon$ ("both"), or $\max(\sqrt{s}, \epsilon)$ ("floor").
    9. The update is $u = \eta g / d$.
    10. `momentum` $\mu$: $b \leftarrow \mu b + g / d$, and $u = \eta b$. With `nesterov`, $u = \eta (\mu b + g / d)$ with the new $b$.
    11. `lr_in_momentum`, in place of point 10: $b \leftarrow \mu b + \eta g / d$, and $u = b$. With `nesterov`, $u = \mu b + \eta g / d$.
    12. `clip_norm_on="update"`, in place of point 3: $\eta \min(1, L / N)$ stands for $\eta$ in points 9 to 11. $N$ is the norm before
        point 2.
    13. `caution`: $u$ becomes 0 where $u g \le 0$. Elsewhere $u$ is divided by $\max(0.001, p)$. $p$ is the share of the parameter's
        elements with $u g > 0$.
    14. `decoupled_weight_decay`, in place of point 4: $w \leftarrow w - \eta \lambda w$. With `corrected_weight_decay`,
        $w \leftarrow w - (\eta^2 / \eta_{max}) \lambda w$. $\eta_{max}$ is `max_lr_snapshot`.
    15. The parameter is $w \leftarrow w - u$. `clip_weights` $C$: $w \leftarrow \min(\max(w, -C), C)$.
    16. `ema_decay` $\delta$: $a \leftarrow \delta a + (1 - \delta) w$. With `ema_warmup`, $\min(\delta, (1 + t) / (10 + t))$ stands for
        $\delta$. After that, a 16-bit $w$ is rounded.

    Args:
        params: Parameters, named parameters or parameter groups, of any shape, on CPU, CUDA or ROCm devices. float32, bfloat16 and float16,
            with gradients of any of these three; float64; complex, as pairs of real numbers.
        lr: Learning rate $\eta$: a number or a tensor of one element, which is read on its device. Default 1e-2.
        alpha: Decay $\alpha$ of the averages per step, from 0 to 1. Default 0.99.
        eps: $\epsilon$, in the unit of the gradient. Inside of the root it is in the square of that unit. Default 1e-8.
        weight_decay: L2 penalty $\lambda$, added to the gradient. Default 0.
        momentum: Decay $\mu$ of the momentum buffer per step. 0: there is no buffer. Default 0.
        centered: Divide by the gradient's standard deviation instead of its root mean square. Default False.
        capturable: Allow a CUDA graph to capture `step()`, after one step outside of the graph. Default False.
        foreach: Accepted as torch's argument, without effect: every step is fused. Default None.
        maximize: Ascend instead of descend. Default False.
        differentiable: Must be False; torch's argument. Default False.
        eps_placement: Where `eps` stands: "outside" of the root, "inside" (Graves, TensorFlow, Keras), "both" (neon) or "floor" (Blocks).
            "floor" has a kernel of its own. Default "outside".
        lr_in_momentum: The momentum buffer holds updates that are already multiplied by `lr`. So a new `lr` leaves earlier updates as they
            are. It decides the buffer's unit: change it only together with a new buffer. Default False.
        nesterov: Nesterov's momentum. It needs `momentum > 0`. Default False.
        decoupled_weight_decay: Take `lr * weight_decay * w` from the parameter, instead of the L2 penalty. Default False.
        corrected_weight_decay: Let decoupled decay follow `lr**2`, so that the balance of decay and gradients does not depend on the
            schedule (Defazio, arXiv:2506.02285). It needs `decoupled_weight_decay`. Default False.
        max_lr_snapshot: Highest `lr` of the schedule, for `corrected_weight_decay`. Default None: the `lr` that the optimizer, or the
            parameter group, is made with.
        initial_square_avg: What `square_avg` starts from, in the square of the gradient's unit. Default 0.
        bias_correction: Divide the averages by $1 - \alpha^t$ where they are used. It needs `alpha < 1`. Default False.
        rescale_grad: Multiplies the gradient before all else: 1 / batch size, 1 / loss scale. Default 1.
        clip_grad_value: Limit of the magnitude of each element of the gradient. Default None: no limit.
        clip_after_decay: Clip to `clip_grad_value` after the L2 penalty is added, as MXNet 1 does, not before. Default False.
        clip_grad_norm: Limit of the L2 norm of all gradients together. `math.inf` measures the norm only. Default None: neither.
        clip_norm_on: What the limit of the norm scales: the "gradient", or the "update" alone, so that the averages do not see the limit
            (neon). Default "gradient".
        clip_norm_over: Whose norm is limited: that of all gradients of the "optimizer", or of each "parameter" by itself (`clipnorm` of
            Keras). Default "optimizer".
        clip_weights: Limit of the magnitude of each element of the parameter after the step. Default None: no limit.
        caution: Leave out the elements of an update that do not have their gradient's sign (Liang et al., arXiv:2411.16085; timm). It needs
            `momentum > 0`, and reads gradients and states once more. Default False.
        stochastic_rounding: Round 16-bit parameters up or down at random, so that the mean is exact. Rounding to nearest loses small
            updates. Default False.
        master_weights: A more precise copy of 16-bit parameters: "float32"; "split" or "split24", for bfloat16, keep only the bits that the
            parameter lacks of 32 or 24. Not with `stochastic_rounding`. Default None: no copy.
        state_dtype: How the averages and the momentum buffer of real parameters up to 32 bits are stored: torch.float32, torch.bfloat16,
            "8bit" or "4bit". Default torch.float32.
        seed: Seed of the random bits, from 0 to 2**64 - 1. Default None: one made from the parameters' shapes and dtypes.
        skip_nonfinite: Leave out a step in which any gradient holds a NaN, an infinity, or in float32 a magnitude above 1e19. The device
            decides; the host does not wait. Default False.
        ema_decay: Decay $\delta$ per step, from 0 to 1, of an average of each parameter: see `averaged()`. Default None: no average.
        ema_warmup: Let the average decay faster in the first steps, as TensorFlow does with `num_updates`. Default False.
        stats: Measure norms for `stats()`: True at every step; 100 at steps 1, 101, 201. Default False.
        skip_above: (factor, window), such as (5.0, 128): leave out a step whose gradient norm is above `factor` times the median norm of
            the last `window` steps. factor > 1, window from 2 to 1024. Default None: leave out none.
        model_parallel_group: Process groups (a ProcessGroup, a DeviceMesh or a list of them) whose other processes hold other parameters.
            Norms are added up over them. Default None.

    Every option may differ between parameter groups and change between steps. `skip_above` must be the same in all groups that have it.
    Every number but `initial_square_avg` and `seed` may be a tensor of one element. "Options in detail" in the documentation tells more.

    # States

    A state has the shape and the strides of its parameter. It is float32 for 16-bit parameters, else it has the parameter's dtype.
    `state_dtype` and `master_weights` store it in fewer bits; `state_dict()` has all of it in full precision.

    | state | exists with | what it is |
    |---|---|---|
    | `step` | always | number of steps, 0-d: float32, or float64 where that is the default dtype |
    | `square_avg` | always | the average $v$ |
    | `grad_avg` | `centered` | the average $m$ |
    | `momentum_buffer` | `momentum > 0` | the buffer $b$ |
    | `param_ema` | `ema_decay` | the average $a$ of the parameter |
    | `master_param` | `master_weights` | what the 16-bit parameter is rounded from, or the bits that it lacks |

    Raises:
        ValueError: A hyperparameter is negative, NaN or infinite (`clip_grad_norm` may be infinite), an option has a value that it does not
            allow, or two options exclude each other.
        TypeError: An option must be a number and is none.
        RuntimeError: From `step()`, before any parameter has changed: a parameter or gradient is sparse or on the meta device, has an
            unsupported device or dtype, or the gradient has another device or shape than the parameter; "split" masters of float16
            parameters, a `state_dtype` of fewer bits for float64 or complex ones.

    Source: Tieleman and Hinton, Lecture 6.5 of "Neural Networks for Machine Learning" (2012); `centered`: Graves, arXiv:1308.0850 (2013),
    equations 38 to 45. The defaults are torch's: `eps` is outside of the root, and `lr` is outside of the momentum buffer. The arithmetic
    is torch's but for one thing: a centered variance that rounding has made negative counts as 0, where torch makes NaN.
    """

    kinds = RULES["rmsprop_centered_momentum"].states

    @suggests
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        alpha: float | Tensor = 0.99,
        eps: float | Tensor = 1e-8,
        weight_decay: float | Tensor = 0,
        momentum: float | Tensor = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        *,
        eps_placement: EpsPlacement = "outside",
        lr_in_momentum: bool = False,
        nesterov: bool = False,
        decoupled_weight_decay: bool = False,
        corrected_weight_decay: bool = False,
        max_lr_snapshot: float | Tensor | None = None,
        initial_square_avg: float = 0.0,
        bias_correction: bool = False,
        rescale_grad: float | Tensor = 1.0,
        clip_grad_value: float | Tensor | None = None,
        clip_after_decay: bool = False,
        clip_grad_norm: float | Tensor | None = None,
        clip_norm_on: NormOn = "gradient",
        clip_norm_over: NormOver = "optimizer",
        clip_weights: float | Tensor | None = None,
        caution: bool = False,
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

    def check_group(self, group: dict[str, Any]) -> None:
        super().check_group(group)
        check_at_least_zero(
            group,
            eps="epsilon value",
            momentum="momentum value",
            alpha="alpha value",
            initial_square_avg="initial_square_avg value",
        )
        check_flags(group, "centered", "lr_in_momentum", "nesterov", "bias_correction", "caution")
        check_choice(group, "eps_placement", EPS)
        check_choice(group, "clip_norm_on", get_args(NormOn))
        for option in ("nesterov", "caution"):
            if group[option] and not is_positive(group["momentum"]):
                raise ValueError(f"{option}=True needs a momentum, but momentum={group['momentum']}: set momentum > 0 or {option}=False")
        if is_live(group["initial_square_avg"]):
            raise ValueError("initial_square_avg is a tensor on a GPU, but it is needed once, when states are made: pass a number")
        if is_live(group["alpha"]):
            return
        if group["bias_correction"] and not group["alpha"] < 1:
            raise ValueError(f"bias_correction=True divides by 1 - alpha**step, but alpha={group['alpha']}: set alpha < 1")
        if group["alpha"] > 1:
            raise ValueError(f"Invalid alpha value: {group['alpha']}; it must be a finite number from 0 to 1, above which averages diverge")

    def recipe(self, group: dict[str, Any]) -> Recipe:
        alpha, eps, momentum = (number(group, option) for option in ("alpha", "eps", "momentum"))
        rule = "rmsprop"
        rule += "_centered" if group["centered"] else ""
        rule += "_momentum" if is_positive(momentum) else ""
        rule += "_floor" if group["eps_placement"] == "floor" else ""
        inside, outside = EPS[group["eps_placement"]]
        numbers = RMSPropNumbers(
            alpha=alpha,
            one_minus_alpha=1 - alpha,
            correction=1.0,
            eps_inside=inside * eps,
            eps_outside=outside * eps,
            momentum=momentum,
            lr_in_momentum=float(group["lr_in_momentum"]),
            nesterov=float(group["nesterov"]),
        )
        return recipe_of(
            group,
            rule,
            numbers,
            self.kinds,
            starts=dict(square_avg=number(group, "initial_square_avg")),
            at_step=(lambda steps: dict(correction=1 / (1 - alpha**steps))) if group["bias_correction"] else None,
        )
