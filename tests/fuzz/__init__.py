"""Everything that users do to an optimizer between steps, in any order; each step is held against torch.optim.RMSprop's.

``python tests/fuzz --steps 1000 --seed 3`` says on stderr what it does before it does it, so that a crash names its cause.
"""

import argparse
import faulthandler
import gc
import random
import sys

import hypothesis
import torch
from hypothesis.stateful import run_state_machine_as_test

from .checkpoints import Checkpoints
from .gradients import Gradients
from .groups import Groups
from .memory import Memory
from .refusals import Refusals
from .states import States
from .threads import Threads


class OptimizerMachine(Gradients, Memory, States, Groups, Checkpoints, Threads, Refusals):
    """All rules."""


def run(seed: int, steps: int, *, verbose: bool = False, machine: type[OptimizerMachine] = OptimizerMachine) -> int:
    """At least so many steps, in as many machines as it takes; how many there were. The same seed makes the same steps."""
    settings = hypothesis.settings(
        max_examples=10,
        stateful_step_count=40,
        phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    made = 0
    gc.freeze()  # what is imported, through which a collection would go each time
    try:
        while made < steps:
            each = hypothesis.seed(seed)(type("Machine", (machine,), dict(total=0, verbose=verbose)))
            run_state_machine_as_test(each, settings=settings)
            made += each.total
            seed += 1_000_003
    finally:
        gc.unfreeze()
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=None, help="the same seed makes the same steps")
    arguments = parser.parse_args()
    seed = random.randrange(1_000_000) if arguments.seed is None else arguments.seed
    faulthandler.enable()
    torch.set_num_threads(1)
    print(f"seed {seed}", file=sys.stderr, flush=True)
    print(run(seed, arguments.steps, verbose=True), "steps")
