"""FusedRMSProp and FusedRMSPropGraves: options in, Recipe out; everything else is FusedOptimizer's."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from .engine.optimizer import FusedOptimizer
from .engine.options.checks import check_at_least_zero, check_choice, check_flags, is_live, is_positive, number
from .engine.options.naming import check_keywords
from .engine.options.recipe import NORM_ON, Recipe, recipe_of
from .kernels.rule import RULES
from .kernels.rules import RMSPropNumbers

EPS = {"outside": (0.0, 1.0), "inside": (1.0, 0.0), "both": (1.0, 1.0), "floor": (0.0, 1.0)}  # how often inside of the root and outside


class FusedRMSProp(FusedOptimizer):
    r"""RMSProp that updates a whole model in one launch: a drop-in for :class:`torch.optim.RMSprop`, and the family around it.

    .. math::
        v &\leftarrow \alpha v + (1-\alpha) g^2, \qquad
        m \leftarrow \alpha m + (1-\alpha) g \quad\text{(centered)} \\
        b &\leftarrow \mu b + g / (\sqrt{v - m^2} + \epsilon), \qquad
        w \leftarrow w - \mathrm{lr} \cdot b

    Args:
        params: tensors, named tensors or parameter groups, of any shape, on CPU or CUDA (ROCm) devices: float32, bfloat16
            or float16 with gradients of any of these; float64; complex, as pairs of real numbers.
        lr: learning rate, a number or a 1-element tensor, which is read on its device; default 1e-2.
        alpha: decay of the averages, per step; default 0.99.
        eps: added to the root, in the gradient's unit, or to the square average, in the square of it; default 1e-8.
        weight_decay: L2 penalty added to the gradient; default 0.
        momentum: decay of the momentum buffer, per step; default 0, no buffer.
        centered: divide by the standard deviation of the gradient instead of its root mean square; default False.
        capturable: CUDA graphs may capture step(), after one outside of them with gradients of the same shapes and strides; then steps
            are counted on the GPU. A replay takes the hyperparameters of the capture, and of those that are tensors the values they have
            then; default False.
        foreach: accepted and without effect, every step is fused.
        maximize: ascend instead of descend; default False.
        differentiable: must be False.
        eps_placement: "outside" of the root, sqrt(v) + eps; "inside", sqrt(v + eps), as Graves, TensorFlow and Keras have it;
            "both", sqrt(v + eps) + eps, as neon has it; "floor", max(sqrt(v), eps), as Blocks has it, in a kernel of its own;
            default "outside".
        lr_in_momentum: the buffer holds updates already multiplied by lr, b = momentum * b + lr * g / (...), w = w - b, so that
            a changed lr does not act on earlier ones; default False.
        nesterov: step to momentum * b + u, u being what was just added to b; needs momentum > 0; default False.
        decoupled_weight_decay: w = w - lr * weight_decay * w before the step, instead of the L2 penalty; default False.
        corrected_weight_decay: w = w - lr**2 / max_lr_snapshot * weight_decay * w in its place, so that what decay and gradients come to
            does not depend on the schedule (Defazio, arXiv:2506.02285); needs decoupled_weight_decay; default False.
        max_lr_snapshot: the highest rate of the schedule, for that; default None, the lr that the optimizer, or the group, was made with.
        initial_square_avg: what ``square_avg`` starts from, in the square of the gradient's unit, at the first step of a
            parameter; default 0.
        bias_correction: divide ``square_avg`` and ``grad_avg`` by 1 - alpha**step wherever they are used; default False.
        rescale_grad: the gradient is multiplied by it before all else (1 / batch size, 1 / loss scale); default 1.
        clip_grad_value: limit of the gradient's magnitude, elementwise; default None.
        clip_after_decay: clip to clip_grad_value after the L2 penalty is added, as MXNet 1 does; default False, before.
        clip_grad_norm: limit of the L2 norm of all gradients of the optimizer together, those of groups without this option
            included; they are scaled by min(1, limit / norm), after clip_grad_value; math.inf limits nothing, and measures
            alone; default None. The norm stays on the device; see :attr:`last_grad_norm`. :func:`apply_in_backward` needs
            norm_from="previous" for a finite one. DTensors count whole. Where other processes hold other parameters, as in
            pipeline stages, it is the norm of a part unless model_parallel_group says so; likewise skip_nonfinite and skip_above.
        clip_norm_on: what that factor scales: the "gradient", or the "update" alone, so that the averages do not see it, and
            the norm is taken before clip_grad_value (neon); it multiplies lr, and so the whole momentum buffer unless
            lr_in_momentum; default "gradient".
        clip_norm_over: whose norm it is: that of all gradients of the "optimizer", or of each "parameter" by itself
            (Keras' clipnorm); default "optimizer".
        clip_weights: limit of the parameters' magnitude after the step, elementwise; default None.
        caution: leave out, of an update, the elements whose sign is not that of the gradient (with its L2 penalty), and divide the others
            by the share of the parameter's elements that they are, at least 0.001; the momentum buffer does not see it. Reads gradients
            and states once more. Needs momentum > 0, without which updates have the gradient's sign (Liang et al., arXiv:2411.16085;
            timm); default False.
        stochastic_rounding: round bfloat16 and float16 parameters up or down with the probabilities that make the mean exact,
            instead of to nearest, where small updates are lost; wider parameters are left as they are; default False.
        master_weights: what 16-bit parameters are rounded from, to nearest: None, themselves; "float32", ``master_param`` in
            their state; "split", for bfloat16, the parameter and the 16 bits that it lacks, int16 in ``master_param``, together the
            same float32 bit for bit; "split24" the same with 8 bits, int8: a float32 of 24 bits, whose lowest 8 are 0, rounded
            stochastically by each step. Not with stochastic_rounding; wider parameters need none; default None.
        state_dtype: of the averages and the momentum buffer of real parameters up to 32 bits: torch.float32; torch.bfloat16,
            rounded stochastically; "8bit" or "4bit", codes of 64 elements to a scale, likewise; default torch.float32.
        seed: of the random bits, which depend on it, the parameter's place among all, its steps and the element's index, and this
            process's rank in model_parallel_group; 0 to 2**64 - 1. Default None: made of the parameters' shapes and dtypes, and the
            first number that no other optimizer of such parameters has that lives in this process, so that no two draw the same bits.
            Processes draw the same if each makes the same optimizers, as replicas must: pass a seed where one makes more, and where
            processes hold other parameters of the same shapes. A checkpoint brings its own.
        skip_nonfinite: leave a step out, as if it had not been called, if any gradient of the optimizer holds a NaN or an infinity,
            or in float32 a magnitude above 1e19, whose square is infinite; found and heeded on the device, counted by
            :attr:`skipped_steps`; reads gradients once more, unless clip_grad_norm does so already; not with both clip_grad_value
            and a finite clip_grad_norm; an infinite one is measured before clip_grad_value then; default False.
        ema_decay: decay, per step, of an exponential moving average of the parameter itself, from 0 to 1: with each step the launch makes
            average = ema_decay * average + (1 - ema_decay) * w of the new w, before that is rounded to 24 or 16 bits; it begins as the
            parameter when its states are made: at its first step with this option, or in :meth:`prepare` before. A parameter without
            a gradient, or whose step is left out, keeps its average. :meth:`averaged` puts averages in place of the parameters,
            :meth:`averages` yields them; default None, no average.
        ema_warmup: the average decays by min(ema_decay, (1 + t) / (10 + t)) at a parameter's step t, counted from 1, as TensorFlow's does
            that is given the number of updates; default False.
        stats: True, or every how many steps: measure norms of gradients, changes, parameters and states for :meth:`stats`; 100 measures
            steps 1, 101, 201 of this object. Not in checkpoints; default False.
        skip_above: (factor, window), (5.0, 128) say: leave a step out, as if it had not been called, if the L2 norm of all gradients is
            more than factor times the median of the norms of the last ``window`` steps that were made (of two middle ones the
            lower); found and heeded on the device, counted by :attr:`skipped_steps_by_reason`. Norms that the window still lacks count
            as the largest, so that nothing is left out before half of it is there. The norm is :attr:`last_grad_norm`, taken before
            clip_grad_value unless clip_grad_norm limits it too. One that is 0, NaN or infinite is no spike and is not remembered:
            skip_nonfinite leaves out the last two. What is left out does not move the limit. If norms come to stay above it, so that
            every step is left out, set a larger factor, or None for a step, after which the window begins anew. factor > 1, window
            from 2 to 1024, the same in all groups that have it; the window is in checkpoints, pickles and copies; default None.
            OLMo-core's SkipStepOptimizer has mean and standard deviation instead: a step is left out if its loss or its norm is 6
            deviations above or below the mean of the last 128, which has those of steps left out too; its checkpoints have no window.
        model_parallel_group: process groups (a ProcessGroup, a DeviceMesh, or a list of them) whose other processes hold other
            parameters, or other parts of these that are no DTensors: pipeline stages, experts, ZeroRedundancyOptimizer, FSDP1. Squares
            are added up over it for the norm of all gradients, and to find what is not finite; every process in it must call step(),
            one without parameters too, ``[{"params": []}]``. A ``torch.amp.GradScaler`` knows of its own process alone: use torch's
            ``ShardedGradScaler(process_group=...)``, and its ``unscale_`` before each step. Neither in a checkpoint nor in a
            pickle; default None.

    Every option may differ between parameter groups, and change between steps; but lr_in_momentum only with a new momentum
    buffer, whose unit it decides. Every number but initial_square_avg and seed may be a 1-element tensor, on a GPU one that is read
    there: each step takes its value of that moment, unchecked, and a momentum counts as one even if it is 0. Float64 keeps all digits.

    State of a parameter, with torch's names, the parameter's shape and strides, float32 for 16-bit parameters and else its dtype:
    ``square_avg``, ``momentum_buffer`` if momentum > 0, ``grad_avg`` if centered, ``param_ema`` if there is an ema_decay; ``step``, 0-d
    float32, or float64 where that is the default dtype, on the CPU, or on the GPU if that alone knows of a step (capturable,
    skip_nonfinite, skip_above, a scaler). In another state_dtype a centered ``square_avg`` holds the variance, square_avg - grad_avg²;
    codes of 8 bits are uint8 or, of what has a sign, int8, those of 4 bits int16 [ceil(numel / 4)], four to a word, the first in its
    lowest bits, in the order of the parameter's memory (``square_avg_dim_order``, if the last dimension is not innermost there); with
    float32 [ceil(numel / 64)] in ``square_avg_scale`` and so on. :meth:`state_dict` has all of it in full precision.

    Raises:
        ValueError: a hyperparameter that is negative, NaN or infinite (but for clip_grad_norm), alpha or ema_decay above 1, ema_warmup
            without ema_decay, a tensor lr of several elements, a limit or rescale_grad that is not positive, a word that is none of the
            options', nesterov without momentum, bias_correction with alpha >= 1, stochastic_rounding with master_weights, skip_above that
            differs between groups, or differentiable.
        TypeError: an option that is no number where it must be one.
        RuntimeError: from step(), before any parameter has changed: a sparse or meta tensor, an unsupported device or
            dtype, a gradient of another device or shape than its parameter's; a split master of float16 parameters, a
            lean state_dtype of float64 or complex ones.

    Source: Tieleman and Hinton, Lecture 6.5 of "Neural Networks for Machine Learning" (2012); centered: Graves,
    arXiv:1308.0850 (2013), equations 38-45, but by default as torch has it, with eps outside of the root and lr outside of the
    momentum. Differs from torch's arithmetic in one thing: a centered variance that rounding has made negative counts as 0,
    where torch makes NaN. :mod:`fusedrms.presets` has the options of other systems.
    """

    kinds = RULES["rmsprop_centered_momentum"].states

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        *,
        eps_placement: str = "outside",
        lr_in_momentum: bool = False,
        nesterov: bool = False,
        decoupled_weight_decay: bool = False,
        corrected_weight_decay: bool = False,
        max_lr_snapshot: float | None = None,
        initial_square_avg: float = 0.0,
        bias_correction: bool = False,
        rescale_grad: float = 1.0,
        clip_grad_value: float | None = None,
        clip_after_decay: bool = False,
        clip_grad_norm: float | None = None,
        clip_norm_on: str = "gradient",
        clip_norm_over: str = "optimizer",
        clip_weights: float | None = None,
        caution: bool = False,
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

    def check_group(self, group: dict) -> None:
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
        check_choice(group, "clip_norm_on", NORM_ON)
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

    def recipe(self, group: dict) -> Recipe:
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


class FusedRMSPropGraves(FusedRMSProp):
    """Graves' RMSProp: centered, with momentum, eps inside of the root and lr inside of the momentum buffer.

    Args:
        params: as of :class:`FusedRMSProp`.
        lr: learning rate; default 1e-4.
        alpha: decay of the averages and weight of what enters them, per step; default 0.95.
        momentum: decay of the momentum buffer, per step; default 0.9.
        eps: added to the variance, in the square of the gradient's unit; default 1e-4.
        weight_decay: L2 penalty added to the gradient; default 0.
        options: the others of :class:`FusedRMSProp`, by name; centered, eps_placement and lr_in_momentum only as they are here.

    State: ``square_avg``, ``grad_avg``, ``momentum_buffer``, ``step``, as of :class:`FusedRMSProp`, and checkpoints of one load
    into the other where it has these options.

    Raises:
        as FusedRMSProp.

    Source: Graves, arXiv:1308.0850 (2013), equations 38-45; PuzzleLib's RMSPropGraves, Chainer's RMSpropGraves.
    """

    _fixed: ClassVar[dict[str, Any]] = dict(centered=True, eps_placement="inside", lr_in_momentum=True)

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        alpha: float = 0.95,
        momentum: float = 0.9,
        eps: float = 1e-4,
        weight_decay: float = 0,
        **options: Any,
    ):
        check_keywords("FusedRMSPropGraves.__init__()", options, FusedRMSProp._class_defaults())
        own = dict(lr=lr, alpha=alpha, momentum=momentum, eps=eps, weight_decay=weight_decay)
        super().__init__(params, **own, **{**self._fixed, **options})

    def check_group(self, group: dict) -> None:
        super().check_group(group)
        for option, value in self._fixed.items():
            if group[option] != value:
                raise ValueError(
                    f"{option}={group[option]!r} is not supported by FusedRMSPropGraves, whose rule has {option}={value!r}: "
                    "leave the option out, or use FusedRMSProp"
                )
