"""A2C of stable-baselines3: the same episodes as with the optimizers that ours replace; and DQN, by its paper's rule."""

from collections.abc import Callable

import pytest
import torch
from stable_baselines3 import A2C
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike

from fusedrms import FusedRMSProp, presets
from pages import distance, run, values
from systems import RULES
from tools import exact

pytestmark = pytest.mark.filterwarnings("default")  # the trainers' own are theirs
OPTIONS = dict(alpha=0.99, eps=1e-5)
BOUND = 2000 / 5 * 2**-23  # a rounding of weights below 2, each of the steps


def learned(optimizer: Callable[..., torch.optim.Optimizer] | None, **more) -> A2C:
    chosen = dict(policy_kwargs=dict(optimizer_class=optimizer, optimizer_kwargs={**OPTIONS, **more})) if optimizer else {}
    return A2C("MlpPolicy", "CartPole-v1", seed=0, **chosen).learn(2000)


def episodes(agent: A2C) -> list[float]:
    return agent.get_env().envs[0].get_episode_rewards()


def assert_same(ours: A2C, theirs: A2C) -> None:
    assert episodes(ours) == episodes(theirs)
    assert len(episodes(ours)) > 10
    assert distance(ours.policy, theirs.policy) < BOUND


def test_as_tensorflow_like():
    ours = run("stable-baselines3")["agent"]
    theirs = learned(RMSpropTFLike)
    assert_same(ours, theirs)
    assert distance(ours.policy, learned(None).policy) > 100 * BOUND  # another rule is seen


def test_as_tensorflow_like_with_momentum():
    options = dict(momentum=0.9, eps=0.1)  # an epsilon that counts beside square averages from 1
    assert_same(learned(presets.timm_rmsprop_tf, lr_in_momentum=False, **options), learned(RMSpropTFLike, **options))


def test_as_default():
    ours = learned(FusedRMSProp)
    assert type(ours.policy.optimizer) is FusedRMSProp
    assert_same(ours, learned(None))


def test_resume():
    """The optimizer's state comes back: a step from the same gradients gives the same bits."""
    ours = learned(presets.timm_rmsprop_tf)
    ours.save("agent")
    loaded = A2C.load("agent")
    for agent in ours, loaded:
        torch.manual_seed(0)
        for param in agent.policy.parameters():
            param.grad = torch.randn_like(param)
        agent.policy.optimizer.step()
    assert torch.equal(values(ours.policy), values(loaded.policy))
    assert {float(state["step"]) for state in loaded.policy.optimizer.state.values()} == {401}


def test_dqn():
    """As by the float64 reference: a step from the gradients of its own loss."""
    agent = run("stable-baselines3", kind="python dqn")["agent"]
    optimizer = agent.policy.optimizer
    group = optimizer.param_groups[0]
    assert (group["lr"], group["alpha"], group["eps"], group["rescale_grad"]) == (0.00025, 0.95, 0.01, 32.0)
    params = [param for param in agent.policy.parameters() if param in optimizer.state]
    values = [exact(param) for param in params]
    states = [{key: exact(optimizer.state[param][key]) for key in ("square_avg", "grad_avg")} for param in params]
    steps = {float(optimizer.state[param]["step"]) for param in params}
    assert len(steps) == 1
    assert steps.pop() > 400
    for param in params:
        param.grad = torch.randn_like(param) / 32
    RULES["dqn2015"]()(values, [exact(param.grad) for param in params], states, 2)
    optimizer.step()
    for param, expected in zip(params, values, strict=True):
        assert abs(exact(param) - expected).max() < 2e-6 * abs(expected).max() + 1e-9
