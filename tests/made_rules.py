"""Rules that tests share, for each takes seconds to compile: those of examples/own_rules.py, one with everything, one with nothing."""

import pathlib
import sys

import torch

import fusedrms

sys.path.append(str(pathlib.Path(__file__).parent.parent / "examples"))
from own_rules import Adagrad, AdamW, Lion

__all__ = ["Adagrad", "AdamW", "Everything", "Lion", "Nothing"]

SQUARES = fusedrms.State(nonnegative=True)


@fusedrms.rule(
    states=dict(exp_avg=0.0, exp_avg_sq=SQUARES, max_exp_avg_sq=SQUARES, slow=fusedrms.State(0.5, full_precision=True), last=-1.0),
    amsgrad=False,
    beta1=0.9,
    beta2=0.99,
    eps=1e-3,
    beta3=0.75,
    a1=1.0,
    a2=0.5,
    a3=fusedrms.Number(-0.25, least=-1.0, most=1.0),
    a4=0.125,
    a5=2.0,
    a6=3.0,
    a7=0.7,
    a8=0.3,
    nesterov=False,
)
def Everything(grad, param, state, lr, n):
    """Five states, twelve numbers, two flags; the parameter is in its update."""
    m = n.beta1 * state.exp_avg + (1 - n.beta1) * grad
    v = n.beta2 * state.exp_avg_sq + (1 - n.beta2) * grad * grad
    most = torch.maximum(state.max_exp_avg_sq, v)
    slow = n.beta3 * state.slow + (1 - n.beta3) * grad
    ahead = n.beta1 * m + (1 - n.beta1) * grad if n.nesterov else m
    root = torch.sqrt((most if n.amsgrad else v) / (1 - n.beta2**n.step)) + n.eps
    mixed = n.a1 * ahead / root + n.a2 * slow + n.a3 * state.last + n.a4 * param
    more = (n.a5 * grad + n.a6 * slow) / (n.a7 + n.a8 * most)
    return lr * (mixed + more), state.replace(exp_avg=m, exp_avg_sq=v, max_exp_avg_sq=most, slow=slow, last=grad)


@fusedrms.rule()
def Nothing(grad, param, state, lr, n):
    return lr * grad, state
