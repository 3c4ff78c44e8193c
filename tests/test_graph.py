"""Steps captured in CUDA graphs."""

import pytest
import torch

from fusedrms import FusedRMSProp
from tools import parameters, random_grads, twins

OPTIONS = {
    "plain": {},
    "everything": dict(centered=True, momentum=0.9, bias_correction=True, clip_grad_norm=0.5, skip_nonfinite=True),
    "stochastic": dict(stochastic_rounding=True, state_dtype="8bit"),
}


def test_without_capturable(monkeypatch):
    """An error, before anything has changed."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    for options, message in ((dict(), "capturable=False"), (dict(capturable=True), "make a step before")):
        params = parameters([(3,)])
        before = params[0].detach().clone()
        random_grads(params)
        optimizer = FusedRMSProp(params, **options)
        with pytest.raises(RuntimeError, match=message):
            optimizer.step()
        assert torch.equal(params[0], before)
        assert not optimizer.state


@pytest.mark.gpu
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_capture_and_replay(options):
    """As eager steps with the same gradients; a new lr and other gradients count at the next replay."""
    dtype = torch.bfloat16 if "state_dtype" in options else torch.float32
    captured = parameters([(1000,), (3, 5)], "cuda", dtype)
    eager = twins(captured)
    lr = torch.tensor(1e-2, device="cuda")
    ours = FusedRMSProp(captured, lr=lr, capturable=True, **options)
    expected = FusedRMSProp(eager, lr=1e-2, **options)

    def next_gradients(first=False):
        for param, other in zip(captured, eager, strict=True):
            grad = torch.randn_like(param)
            other.grad = grad.clone()
            if first:
                param.grad = grad
            else:
                param.grad.copy_(grad)

    next_gradients(first=True)
    ours.step()
    expected.step()
    for param in captured:  # captured at other addresses than those of the step before
        param.grad = param.grad.clone()
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        ours.step()
    for new_lr in (1e-2, 1e-3, 0.5):
        lr.fill_(new_lr)
        expected.param_groups[0]["lr"] = new_lr
        next_gradients()
        graph.replay()
        expected.step()
        torch.cuda.synchronize()
        for param, other in zip(captured, eager, strict=True):
            torch.testing.assert_close(param, other, rtol=1e-5 if dtype == torch.float32 else 0, atol=0)
            assert ours.state[param]["step"] == expected.state[other]["step"]
    random_grads(captured)  # and eagerly again
    ours.step()


@pytest.mark.gpu
def test_whole_step():
    """Forward, backward and step in one graph, whose gradients live in its own pool."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1)).cuda()
    optimizer = FusedRMSProp(model.parameters(), lr=torch.tensor(1e-3, device="cuda"), capturable=True)
    x = torch.randn(32, 64, device="cuda")

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    optimizer.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()
    losses = []
    for _ in range(50):
        graph.replay()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert optimizer.state[next(model.parameters())]["step"] == 53
