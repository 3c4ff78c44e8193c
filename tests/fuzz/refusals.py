"""What no step can do."""

import itertools
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from torch import Tensor
from torch.nn import Parameter

from .draws import STATES, change, laid_out, which
from .steps import Steps


class Refusals(Steps):
    """Rules about steps that are refused."""

    def pair(self, n: int, alike: Callable[[Parameter], Any], params: list[Parameter]) -> tuple[Parameter, Parameter] | None:
        """Two of some parameters that are alike."""
        pairs = [(a, b) for a, b in itertools.permutations(params, 2) if alike(a) == alike(b)]
        return pairs[n % len(pairs)] if pairs else None

    def active(self) -> list[Parameter]:
        return [param for param in self.listed() if param.grad is not None and param.numel()]

    @change(n=which)
    def tie(self, n):
        """Two parameters over the same memory, all of the one and the end of the other."""
        if pair := self.pair(n, lambda param: param.dtype, self.active()):
            first, second = sorted(pair, key=Tensor.numel)
            before, second.data = first.data, laid_out(second, "dense")
            first.data = second.data.view(-1)[second.numel() - first.numel() :].view(first.shape)
            self.refuse()
            first.data = before

    @change(n=which, key=st.sampled_from(STATES))
    def tie_states(self, n, key):
        params = [param for param in self.active() if key in self.used(param) and key in self.state(param)]
        params = [param for param in params if self.fits(param, self.state(param)[key])]
        if pair := self.pair(n, lambda param: (param.shape, param.dtype, param.stride()), params):
            a, b = map(self.state, pair)
            before, b[key] = b[key], a[key]
            self.refuse()
            b[key] = before

    @change(n=which)
    def grad_is_param(self, n):
        param = self.param(n)
        before, param.grad = param.grad, None
        param.grad = param.data
        self.refuse(must=False, but=(n % len(self.params), "grad"))
        param.grad = before

    @change(n=which)
    def shared_grad(self, n):
        """Read twice, which does no harm."""
        if pair := self.pair(n, lambda param: (param.shape, param.dtype), self.active()):
            first, second = pair
            second.grad = first.grad
            self.refuse(must=False)
            second.grad = first.grad.clone()

    @change(n=which, m=which)
    def list_twice(self, n, m):
        if (listed := self.listed()) and (param := listed[n % len(listed)]).grad is not None:
            self.group(m)["params"].append(param)
            before = self.visible()
            try:
                self.optimizer.step()
            except (RuntimeError, ValueError):
                self.check_visible(before)
            else:
                raise AssertionError("a parameter is listed twice")
            self.group(m)["params"].pop()

    @change(n=which)
    def expanded_param(self, n):
        param = self.param(n)
        if param.numel() > 1 and param.grad is not None and any(param is each for each in self.listed()):
            before = param.data
            param.data = self.values((1,) * param.dim(), param.dtype).expand(param.shape)
            self.refuse()
            param.data = before

    @change(n=which, of=st.sampled_from(["param", "grad", "square_avg"]))
    def free_memory(self, n, of):
        """As FSDP1 frees parameters: the tensor is there, its memory is not."""
        param = self.param(n)
        tensor = param.data if of == "param" else param.grad if of == "grad" else self.state(param).get(of)
        active = param.grad is not None and any(param is each for each in self.listed())
        if tensor is None or not tensor.numel() or not active or not tensor.is_contiguous():
            return
        storage, size = tensor.untyped_storage(), tensor.untyped_storage().nbytes()
        shared = [each for each in self.storages() if each._cdata == storage._cdata]
        if len(shared) > 1 or storage.is_shared() or not storage.resizable():
            return
        values, shape, start = tensor.clone(), tensor.shape, tensor.storage_offset()
        before = {key: value for key, value in self.visible().items() if key not in ((n % len(self.params), of),)}
        storage.resize_(0)
        try:
            self.optimizer.step()
        except RuntimeError:
            pass
        else:
            raise AssertionError("memory that was freed is updated")
        finally:
            storage.resize_(size)
            tensor.as_strided(shape, tensor.stride(), start).copy_(values)
        self.check_visible(before)
