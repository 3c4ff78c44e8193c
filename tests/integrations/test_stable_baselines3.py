"""A2C of stable-baselines3: the same episodes as with the optimizers that ours replace."""

from collections.abc import Callable

import pytest
import torch
from stable_baselines3 import A2C
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike

from fusedrms import FusedRMSProp, presets
from pages import distance, run, values

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
