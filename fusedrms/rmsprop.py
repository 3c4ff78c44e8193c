"""FusedRMSProp: options in, Recipe out; everything else is FusedOptimizer's."""

from torch import Tensor

from .optimizer import FusedOptimizer, ParamsT, Recipe
from .options import check_at_least_zero, check_off, number


class FusedRMSProp(FusedOptimizer):
    r"""RMSProp that updates a whole model in one launch: a drop-in for :class:`torch.optim.RMSprop`.

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
        eps: added to the root, in the gradient's unit; default 1e-8.
        weight_decay: L2 penalty added to the gradient; default 0.
        momentum: decay of the momentum buffer, per step; default 0, no buffer.
        centered: divide by the standard deviation of the gradient instead of its root mean square; default False.
        capturable: must be False.
        foreach: accepted and without effect, every step is fused.
        maximize: ascend instead of descend; default False.
        differentiable: must be False.

    State of a parameter, with torch's names, the parameter's shape and strides, float32 for 16-bit parameters and else its
    dtype: ``square_avg``, ``momentum_buffer`` if momentum > 0, ``grad_avg`` if centered; ``step``, 0-d float32 on the CPU.

    Raises:
        ValueError: a negative or NaN hyperparameter, a tensor lr of several elements, capturable or differentiable.
        RuntimeError: from step(), before any parameter has changed: a sparse or meta tensor, an unsupported device or
            dtype, a gradient of another device or shape than its parameter's.

    Source: Tieleman and Hinton, Lecture 6.5 of "Neural Networks for Machine Learning" (2012); centered: Graves,
    arXiv:1308.0850 (2013), equations 38-45, but as torch has it with eps outside the root and lr outside the momentum.
    Differs from torch's arithmetic in one thing: a centered variance that rounding has made negative counts as 0, where torch
    makes NaN.
    """

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
    ):
        super().__init__(
            params,
            dict(
                lr=lr,
                momentum=momentum,
                alpha=alpha,
                eps=eps,
                centered=centered,
                weight_decay=weight_decay,
                capturable=capturable,
                foreach=foreach,
                maximize=maximize,
                differentiable=differentiable,
            ),
        )

    def check_group(self, group: dict) -> None:
        check_at_least_zero(
            group,
            lr="learning rate",
            eps="epsilon value",
            momentum="momentum value",
            weight_decay="weight_decay value",
            alpha="alpha value",
        )
        check_off(
            group,
            capturable="the step cannot be captured in a CUDA graph; leave it False",
            differentiable="a fused step has no gradient; use torch.optim.RMSprop",
        )

    def recipe(self, group: dict) -> Recipe:
        states = ("square_avg",)
        rule = "rmsprop"
        if group["centered"]:
            states += ("grad_avg",)
            rule += "_centered"
        momentum = number(group, "momentum")
        if momentum > 0:
            states += ("momentum_buffer",)
            rule += "_momentum"
        lr = group["lr"] if isinstance(group["lr"], Tensor) and group["lr"].numel() == 1 else number(group, "lr")
        alpha = number(group, "alpha")
        return Recipe(
            rule,
            states,
            common=(lr, -1.0 if group["maximize"] else 1.0, number(group, "weight_decay")),
            args=(alpha, 1 - alpha, number(group, "eps"), momentum),
        )
