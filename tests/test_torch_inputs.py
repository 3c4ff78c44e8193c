"""The options that PyTorch's own tests try its RMSprop with, and the errors that they ask for."""

import pytest
import torch

from fusedrms import FusedRMSProp
from tools import assert_close, parameters, step_both, twins

common_optimizers = pytest.importorskip("torch.testing._internal.common_optimizers")
(info,) = (info for info in common_optimizers.optim_db if info.optim_cls is torch.optim.RMSprop)
ERRORS = info.optim_error_inputs_func("cpu", torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64], ids=str)
def test_inputs(device, dtype):
    inputs = info.optim_inputs_func(device.type)
    assert len(inputs) >= 8
    for each in inputs:
        ours = parameters([(2, 3), (5,), (), (0, 4)], device, dtype)
        theirs = twins(ours)
        a, b = FusedRMSProp(ours, **each.kwargs), torch.optim.RMSprop(theirs, **each.kwargs)
        step_both(a, b, ours, theirs, steps=3)
        assert_close(ours, theirs, steps=3)


@pytest.mark.parametrize("case", ERRORS, ids=lambda case: case.optimizer_error_input.desc)
def test_errors(case):
    each, error, message = case.optimizer_error_input, case.error_type, case.error_regex
    if error is UserWarning:  # a parameter twice in a group, which one launch would update twice at once
        error, message = ValueError, "the same parameter twice"
    with pytest.raises(error, match=message):
        FusedRMSProp(parameters([(1, 1)]) if each.params is None else each.params, **each.kwargs)
