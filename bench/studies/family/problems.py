"""Three small problems. Each gives a preset's result for a seed, and a digest of the bits by which two runs can be told apart."""

import hashlib
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fusedrms.presets.family import made
from fusedrms.presets.preset import Preset
from fusedrms.tools import quadratic

QUADRATIC_STEPS, LAST = 500, 100
EPOCHS, BATCH = 8, 64
ENVIRONMENTS, ROLLOUT, TICKS = 16, 8, 5000  # 16 * 5,000 = 80,000 steps of environments
DISCOUNT, TRACE, ENTROPY, VALUE, CLIP_NORM = 0.98, 0.95, 0.01, 0.5, 0.5
GUESTS = {"sklearn": "scikit-learn", "gymnasium": "gymnasium", "matplotlib": "matplotlib"}  # module -> package


class Result(NamedTuple):
    figures: dict[str, float]
    digest: str


class Problem(NamedTuple):
    title: str
    unit: str
    lr: float
    run: Callable[[Preset, float, int], Result]


def missing(*modules: str) -> list[str]:
    """Packages that are not installed; of all where none is named."""
    found = []
    for module in modules or GUESTS:
        try:
            importlib.import_module(module)
        except ImportError:
            found.append(GUESTS[module])
    return found


def _digest(*values: Any) -> str:
    """Of numbers and of tensors' bits."""
    code = hashlib.sha256()
    for value in values:
        code.update(value.detach().numpy().tobytes() if isinstance(value, Tensor) else repr(value).encode())
    return code.hexdigest()


def run_quadratic(preset: Preset, lr: float, seed: int) -> Result:
    """The mean loss of the last 100 of 500 steps."""
    losses = quadratic.losses(preset, lr, QUADRATIC_STEPS, seed)
    return Result(dict(quadratic=float(np.mean(losses[-LAST:]))), _digest(losses))


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images and labels to train with, and a third that is held out, the same for all seeds."""
    found = importlib.import_module("sklearn.datasets").load_digits()
    images, labels = torch.tensor(found.images / 16, dtype=torch.float32).unsqueeze(1), torch.tensor(found.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    held_out, train = order[: len(order) // 3], order[len(order) // 3 :]
    return images[train], labels[train], images[held_out], labels[held_out]


def convnet() -> nn.Module:
    """9,930 parameters."""
    layers = nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10))


def run_digits(preset: Preset, lr: float, seed: int) -> Result:
    """Held-out accuracy in percent, and the mean loss of the last epoch."""
    images, labels, held_images, held_labels = digits()
    torch.manual_seed(seed)
    model = convnet()
    optimizer = made(preset, model.parameters(), lr)
    losses: list[float] = []
    for _ in range(EPOCHS):
        losses.clear()
        for batch in torch.randperm(len(labels)).split(BATCH):
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    with torch.no_grad():
        right = (model(held_images).argmax(1) == held_labels).double().mean().item()
    return Result(dict(digits=100 * right, digits_loss=float(np.mean(losses))), _digest(losses, *model.parameters()))


class Agent(nn.Module):
    """A policy, the logit of pushing to the right, and a value, each of a layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 1))
        self.value = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 1))


class Rollout(NamedTuple):
    """Of ROLLOUT steps of all environments, first dimension time; of obs and values one more."""

    obs: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    done: Tensor
    begins: Tensor  # the environment only begins anew in this step, whatever the action


def advantages(rollout: Rollout, values: Tensor) -> Tensor:
    """Generalized advantage estimates; an episode that was cut off for its length is worth what its last observation is."""
    delta = rollout.rewards + DISCOUNT * values[1:] * (1 - rollout.terminated) - values[:-1]
    found = torch.zeros_like(delta)
    last = torch.zeros_like(delta[0])
    for t in reversed(range(len(delta))):
        found[t] = last = delta[t] + DISCOUNT * TRACE * (1 - rollout.done[t]) * last
    return found


def a2c_loss(agent: Agent, rollout: Rollout) -> Tensor:
    values = agent.value(rollout.obs).squeeze(-1)
    advantage = advantages(rollout, values.detach())
    logits = agent.policy(rollout.obs[:-1]).squeeze(-1)
    signs = 2 * rollout.actions - 1
    log_probs, entropy = nn.functional.logsigmoid(signs * logits), nn.functional.softplus(logits) - logits * logits.sigmoid()
    value_loss = (advantage + values[:-1].detach() - values[:-1]).square()
    each = -log_probs * advantage + VALUE * value_loss - ENTROPY * entropy
    counted = 1 - rollout.begins
    return (each * counted).sum() / counted.sum()


class Cartpoles:
    """Environments side by side, and the returns of the episodes that have ended."""

    def __init__(self, seed: int) -> None:
        gymnasium = importlib.import_module("gymnasium")
        self.envs = gymnasium.make_vec("CartPole-v1", num_envs=ENVIRONMENTS, vectorization_mode="vector_entry_point")
        self.obs, _ = self.envs.reset(seed=seed)
        self.done = np.zeros(ENVIRONMENTS, dtype=bool)
        self.running = np.zeros(ENVIRONMENTS)
        self.returns: list[float] = []

    def rollout(self, agent: Agent, n_steps: int) -> Rollout:
        noise, steps = torch.logit(torch.rand(n_steps, ENVIRONMENTS)).numpy(), []  # below a logit with the probability that it stands for
        in_weight, in_bias, out_weight, out_bias = (param.detach().numpy() for param in agent.policy.parameters())
        for t in range(n_steps):
            before, begins = self.obs, self.done
            hidden = np.tanh(before @ in_weight.T + in_bias)  # torch's calls take longer than such small sums
            actions = noise[t] < (hidden @ out_weight.T + out_bias)[:, 0]
            self.obs, rewards, terminated, truncated, _ = self.envs.step(actions.astype(np.int64))
            self.done = terminated | truncated
            self.running += rewards
            self.returns += self.running[self.done].tolist()
            self.running[self.done] = 0
            steps.append((before, actions, rewards, terminated.copy(), self.done, begins))
        obs, *others = (torch.from_numpy(np.stack(each).astype(np.float32)) for each in zip(*steps, strict=True))
        return Rollout(torch.cat([obs, torch.from_numpy(self.obs)[None]]), *others)


def run_cartpole(preset: Preset, lr: float, seed: int) -> Result:
    """The mean return of the last fifth of the episodes of an A2C."""
    cartpoles = Cartpoles(seed)
    torch.manual_seed(seed)
    agent = Agent()
    optimizer = made(preset, agent.parameters(), lr)
    for _ in range(TICKS // ROLLOUT):
        loss = a2c_loss(agent, cartpoles.rollout(agent, ROLLOUT))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(agent.parameters(), CLIP_NORM)
        optimizer.step()
    returns = cartpoles.returns
    last = returns[-max(1, len(returns) // 5) :]
    return Result(dict(cartpole=float(np.mean(last)) if last else 0.0), _digest(returns, *agent.parameters()))


PROBLEMS = {
    "quadratic": Problem("noisy quadratic", "loss", 1e-2, run_quadratic),
    "digits": Problem("digits", "held-out accuracy, %", 1e-3, run_digits),
    "cartpole": Problem("CartPole", "return", 4e-3, run_cartpole),
}
