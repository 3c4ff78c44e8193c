"""CartPole-v1 for train_a3c.py: the network, what is played with it, the loss of that, and how good the policy is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

NUMBERS, ACTIONS = 4, 2  # of an observation; to choose from
RANGE = np.array([2.4, 3.0, 0.21, 3.0], np.float32)  # about what place, speed, angle and its speed reach before an episode ends
DISCOUNT = 0.995


class ActorCritic(nn.Module):
    """A policy and its value, which share all layers but the last, as in the paper."""

    def __init__(self, width: int = 128):
        super().__init__()
        self.hidden, self.last = nn.Linear(NUMBERS, width), nn.Linear(width, ACTIONS + 1)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """[N, 4] observations -> [N, 2] logits of the actions and [N] values."""
        outputs = self.last(self.hidden(observations / torch.from_numpy(RANGE)).tanh())
        return outputs[:, :ACTIONS], outputs[:, ACTIONS]


def in_numpy(model: ActorCritic) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The same on the same memory, for a few observations: there torch's calls take several times as long as their arithmetic."""
    weight, bias, last_weight, last_bias = (param.detach().numpy() for param in model.parameters())

    def forward(observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        outputs = np.tanh(observations / RANGE @ weight.T + bias) @ last_weight.T + last_bias
        return outputs[:, :ACTIONS], outputs[:, ACTIONS]

    return forward


class Batch(NamedTuple):
    """N steps that were played."""

    observations: Tensor  # float32 [N, 4]
    actions: Tensor  # int64 [N]
    returns: Tensor  # float32 [N]: what followed, discounted, times 1 - DISCOUNT, so that it lies in 0..1 however long episodes are


class Players:
    """Environments that are stepped together with one policy."""

    def __init__(self, environments: int, seed: list[int]):
        self.random = np.random.default_rng(seed)
        self.environments = [gymnasium.make("CartPole-v1", disable_env_checker=True) for _ in range(environments)]
        self.observations = np.stack([env.reset(seed=int(self.random.integers(2**31)))[0] for env in self.environments])
        self.so_far = [0.0] * environments  # returns of the episodes under way, neither discounted nor scaled
        self.finished: list[float] = []  # those of episodes that have ended

    def play(self, model: ActorCritic, steps: int) -> Batch:
        """So many steps of each environment, with actions drawn from the policy, over the ends of episodes."""
        forward, shape = in_numpy(model), (steps, len(self.environments))
        observations, actions = np.empty((*shape, NUMBERS), np.float32), np.empty(shape, np.int64)
        rewards, goes_on, returns = (np.empty(shape, np.float32) for _ in range(3))
        for step in range(steps):
            observations[step] = self.observations
            logits, _ = forward(self.observations)
            actions[step] = (logits + self.random.gumbel(size=logits.shape)).argmax(1)  # draws with the policy's probabilities
            for number, action in enumerate(actions[step].tolist()):
                rewards[step, number], goes_on[step, number] = self._step(forward, number, action)
        _, value = forward(self.observations)
        for step in reversed(range(steps)):
            returns[step] = value = rewards[step] + DISCOUNT * goes_on[step] * value
        return Batch(*(torch.from_numpy(array.reshape(-1, *array.shape[2:])) for array in (observations, actions, returns)))

    def _step(self, forward: Callable, number: int, action: int) -> tuple[float, bool]:
        """One step of an environment: the reward, and whether its episode goes on."""
        environment = self.environments[number]
        observation, reward, fell, timed_out, _ = environment.step(action)
        reward = float(reward)
        self.so_far[number] += reward
        reward *= 1 - DISCOUNT
        if timed_out and not fell:  # the pole stands: what would have come counts
            reward += DISCOUNT * forward(observation[None])[1].item()
        if fell or timed_out:
            self.finished.append(self.so_far[number])
            self.so_far[number] = 0.0
            observation, _ = environment.reset()
        self.observations[number] = observation
        return reward, not (fell or timed_out)


def loss(model: ActorCritic, batch: Batch, entropy_weight: float) -> Tensor:
    """Policy gradient, half the squared error of the values, and less the entropy: summed over the steps."""
    logits, values = model(batch.observations)
    logarithms = logits.log_softmax(1)
    advantages = batch.returns - values
    chosen = logarithms.gather(1, batch.actions[:, None])[:, 0]
    entropy = -(logarithms.exp() * logarithms).sum(1)
    return (0.5 * advantages.square() - chosen * advantages.detach() - entropy_weight * entropy).sum()


def evaluate(model: ActorCritic, episodes: int, seed: int) -> float:
    """Mean return of so many episodes, with the likeliest action at each step."""
    forward = in_numpy(model)
    environments = [gymnasium.make("CartPole-v1", disable_env_checker=True) for _ in range(episodes)]
    observations = np.stack([env.reset(seed=seed + number)[0] for number, env in enumerate(environments)])
    total, running = 0.0, list(range(episodes))
    while running:
        for number, action in zip(tuple(running), forward(observations[running])[0].argmax(1).tolist(), strict=True):
            observations[number], reward, fell, timed_out, _ = environments[number].step(action)
            total += float(reward)
            if fell or timed_out:
                running.remove(number)
    return total / episodes
