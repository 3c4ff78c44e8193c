"""Steps captured in CUDA graphs."""

import pytest
import torch

import gpu
from fusedrms import FusedRMSProp
from made_rules import AdamW
from tools import parameters, random_grads, twins

OPTIONS = {
    "plain": {},
    "everything": dict(centered=True, momentum=0.9, bias_correction=True, clip_grad_norm=0.5, skip_nonfinite=True, skip_above=(5.0, 2)),
    "average": dict(ema_decay=0.5, ema_warmup=True),
    "stochastic": dict(stochastic_rounding=True, state_dtype="8bit", seed=0),
}


def test_without_capturable(monkeypatch):
    """An error, before anything has changed."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    for options, message in ((dict(), "capturable=False"), (dict(capturable=True), "make one step before")):
        params = parameters([(3,)])
        before = params[0].detach().clone()
        random_grads(params)
        optimizer = FusedRMSProp(params, **options)
        with pytest.raises(RuntimeError, match=message):
            optimizer.step()
        assert torch.equal(params[0], before)
        assert not optimizer.state


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("cls", "options"), [*((FusedRMSProp, options) for options in OPTIONS.values()), (AdamW, {})], ids=[*OPTIONS, "a rule"]
)
def test_capture_and_replay(cls, options):
    """As eager steps with the same gradients; a new lr and other gradients count at the next replay."""
    dtype = torch.bfloat16 if "state_dtype" in options else torch.float32
    captured = parameters([(1000,), (3, 5)], gpu.DEVICE, dtype)
    eager = twins(captured)
    lr = torch.tensor(1e-2, device=gpu.DEVICE)
    ours = cls(captured, lr=lr, capturable=True, **options)
    expected = cls(eager, lr=1e-2, **options)

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
    graph = gpu.module.CUDAGraph()
    gpu.module.synchronize()
    with gpu.module.graph(graph):
        ours.step()
    for new_lr in (1e-2, 1e-3, 0.5):
        lr.fill_(new_lr)
        expected.param_groups[0]["lr"] = new_lr
        next_gradients()
        graph.replay()
        expected.step()
        gpu.module.synchronize()
        for param, other in zip(captured, eager, strict=True):
            torch.testing.assert_close(param, other, rtol=1e-5 if dtype == torch.float32 else 0, atol=0)
            assert ours.state[param]["step"] == expected.state[other]["step"]
    random_grads(captured)  # and eagerly again
    ours.step()


@pytest.mark.gpu
def test_whole_step():
    """Forward, backward and step in one graph, whose gradients live in its own pool."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1)).to(gpu.DEVICE)
    optimizer = FusedRMSProp(model.parameters(), lr=torch.tensor(1e-3, device=gpu.DEVICE), capturable=True)
    x = torch.randn(32, 64, device=gpu.DEVICE)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    side = gpu.module.Stream()
    side.wait_stream(gpu.module.current_stream())
    with gpu.module.stream(side):
        for _ in range(3):
            step()
    gpu.module.current_stream().wait_stream(side)
    optimizer.zero_grad(set_to_none=True)
    graph = gpu.module.CUDAGraph()
    with gpu.module.graph(graph):
        loss = step()
    losses = []
    for _ in range(50):
        graph.replay()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert optimizer.state[next(model.parameters())]["step"] == 53
