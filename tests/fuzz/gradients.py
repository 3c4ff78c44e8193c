"""What users do to gradients."""

import warnings

import torch
from hypothesis import strategies as st

from cases import BF16, F32, F64

from .draws import change, laid_out, layouts, which
from .steps import Steps


class Gradients(Steps):
    """Rules about gradients."""

    @change(to_none=st.booleans())
    def backward(self, to_none):
        self.optimizer.zero_grad(set_to_none=to_none)
        self.accumulate()

    @change()
    def accumulate_again(self):
        self.accumulate()

    def accumulate(self):
        for param in self.params:
            if param.grad is not None and 0 in param.grad.stride():  # into an expanded one nothing can be added
                param.grad = None
        with torch.enable_grad():
            losses = [(param * self.values(param.shape, param.dtype)).sum().float() for param in self.params if param.requires_grad]
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "grad and param do not obey the gradient layout contract")
                if losses:
                    torch.stack(losses).sum().backward()

    @change()
    def new_grads(self):
        self.set_grads()

    @change(n=which, layout=layouts, keep=st.booleans())
    def new_grad(self, n, layout, keep):
        param = self.param(n)
        if param.grad is not None:
            self.let_go(param.grad, keep)
        param.grad = laid_out(self.values(param.shape, param.dtype), layout)

    @change(n=which)
    def expanded_grad(self, n):
        param = self.param(n)
        param.grad = self.values((1,) * param.dim(), param.dtype).expand(param.shape)

    @change(n=which)
    def no_grad(self, n):
        self.param(n).grad = None

    @change(to_none=st.booleans())
    def zero_grad(self, to_none):
        self.optimizer.zero_grad(set_to_none=to_none)

    @change()
    def write_grads(self):
        for param in self.params:
            if param.grad is not None and 0 not in param.grad.stride():
                param.grad.copy_(self.values(param.shape, param.dtype))

    @change(of=st.sampled_from(["grad", "param"]))
    def flat(self, of):
        """Views of one buffer for each dtype, as DDP and FSDP1 make them."""
        with self.unchanged():
            for dtype in (F32, BF16, F64):
                mine = [param for param in self.params if param.dtype == dtype and (of == "param" or param.grad is not None)]
                buffer, start = torch.empty(sum(param.numel() for param in mine), dtype=dtype), 0
                for param in mine:
                    view = buffer[start : start + param.numel()].view(param.shape).copy_(param if of == "param" else param.grad)
                    start += param.numel()
                    if of == "param":
                        param.data = view
                    else:
                        param.grad = view
