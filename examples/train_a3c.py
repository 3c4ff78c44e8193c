"""Learn to balance CartPole's pole by A3C, whose workers share one RMSProp without locks, and by A2C beside it.

    python examples/train_a3c.py                        # a minute or so on 2 CPU cores
    python examples/train_a3c.py --algorithm a3c --workers 8
    python examples/train_a3c.py --lock                 # workers step one at a time
    python examples/train_a3c.py --optimizer by-hand    # the usual RMSProp in Python in place of FusedRMSProp

A3C is that of Mnih et al., arXiv:1602.01783, algorithm S3. Each worker copies the shared parameters, plays a few steps, and has the
shared RMSProp step along its gradients, whatever the others do meanwhile. RMSProp has epsilon inside of the root, no momentum, and
one square average for all workers (section 4, "Shared RMSProp"); its rate falls linearly to 0. A2C is the same in one process:
several environments are played in step, and each update sees them all.

A run writes returns.png, episodes.csv and results.json to runs/<time>/. An algorithm ends early when an evaluation
reaches --solved, and so does a second one of the same weights, on other episodes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from a3c.by_hand import SharedRMSProp, compare
from a3c.cartpole import ActorCritic, Players, evaluate, loss
from a3c.course import FINAL_EPISODES, FINAL_SEED, Course, Spent
from a3c.options import parser
from a3c.workers import WorkerDied, workers
from fusedrms import presets
from fusedrms.engine.optimizer import FusedOptimizer
from fusedrms.tools.printing import console, plain_where_needed
from training.folder import locked, new_folder
from training.progress import Bars

Optimizer: TypeAlias = FusedOptimizer | SharedRMSProp


def rmsprop(name: str, params: Iterable[nn.Parameter], args: argparse.Namespace) -> Optimizer:
    """RMSProp as A3C has it."""
    if name == "by-hand":
        return SharedRMSProp(params, lr=args.lr, alpha=0.99, eps=args.eps, clip_grad_norm=args.clip)
    return presets.a3c2016(params, args.lr, epsilon=args.eps, clip_norm=args.clip)


class Learner:
    """Plays with a copy of the shared model, and has the shared optimizer step along the gradients of what it has played."""

    def __init__(self, model: ActorCritic, optimizer: Optimizer, args: argparse.Namespace, players: Players):
        self.model, self.optimizer, self.args, self.players = model, optimizer, args, players
        self.copy, self.warm = ActorCritic(), False
        self.spent = Spent()

    def update(self, steps: int) -> None:
        """One update, when so many steps of environments have been made by all."""
        began = time.perf_counter()
        self.copy.load_state_dict(self.model.state_dict())
        batch = self.players.play(self.copy, self.args.rollout)
        gradients = torch.autograd.grad(loss(self.copy, batch, self.args.entropy), list(self.copy.parameters()))
        for param, gradient in zip(self.model.parameters(), gradients, strict=True):
            param.grad = gradient
        self.optimizer.param_groups[0]["lr"] = self.args.lr * max(0.0, 1 - steps / self.args.steps)
        stepped = time.perf_counter()
        self.optimizer.step()
        ended = time.perf_counter()
        if self.warm:  # the first update compiles or loads the kernel
            self.spent += Spent(1, ended - began, ended - stepped)
        self.warm = True


class Shared(NamedTuple):
    """What A3C's workers have in common, in shared memory."""

    model: ActorCritic
    optimizer: Optimizer
    steps: Tensor  # int64 [workers]: those that each has made, where it alone writes
    stopped: Tensor  # bool [1]: whether all are to end


def work(number: int, pipe: Connection, shared: Shared, args: argparse.Namespace) -> None:
    """A worker of A3C: sends the steps of all and the returns of its episodes as they end, and at last what it has spent."""
    torch.set_num_threads(1)
    players = Players(1, [args.seed, number])
    learner = Learner(shared.model, shared.optimizer, args, players)
    try:
        while not shared.stopped and (steps := int(shared.steps.sum())) < args.steps:
            learner.update(steps)
            shared.steps[number] += args.rollout
            if players.finished:
                pipe.send((int(shared.steps.sum()), players.finished))
                players.finished = []
        pipe.send(learner.spent)
    except BrokenPipeError:  # the main process was killed
        pass


def a3c(model: ActorCritic, args: argparse.Namespace, course: Course) -> None:
    shared = Shared(
        model.share_memory(),
        rmsprop(args.optimizer, model.parameters(), args).share_memory(**(dict[str, Any](lock=True) if args.lock else {})),
        torch.zeros(args.workers, dtype=torch.int64).share_memory_(),
        torch.zeros(1, dtype=torch.bool).share_memory_(),
    )
    with workers() as started:
        started.start(args.workers, work, shared, args)
        for message in started.messages():
            if isinstance(message, Spent):
                course.spent += message
            else:
                course.note(*message)
                if not shared.stopped and course.is_solved(model, int(shared.steps.sum())):
                    shared.stopped.fill_(True)
    course.note(int(shared.steps.sum()), [])


def a2c(model: ActorCritic, args: argparse.Namespace, course: Course) -> None:
    players = Players(args.environments, [args.seed])
    learner = Learner(model, rmsprop(args.optimizer, model.parameters(), args), args, players)
    while course.steps < args.steps and not course.is_solved(model, course.steps):
        learner.update(course.steps)
        course.note(course.steps + args.environments * args.rollout, players.finished)
        players.finished = []
    course.spent = learner.spent


ALGORITHMS = {"A3C": a3c, "A2C": a2c}


def learn(name: str, args: argparse.Namespace, bars: Bars) -> Course:
    """Learn by one algorithm, from weights that are the same for all, and evaluate the policy."""
    torch.manual_seed(args.seed)
    model, course = ActorCritic(), Course(name, args, bars)
    ALGORITHMS[name](model, args, course)
    if course.final is None:
        course.end(evaluate(model, FINAL_EPISODES, FINAL_SEED))
    else:
        at = course.evaluations[-1][0]
        went_on = "; workers went on while these were evaluated" if at < course.steps else ""
        bars.console.print(f"{name} ends early: solved by the weights after {at:,} of {args.steps:,} steps{went_on}", highlight=False)
    return course


def compare_steps(args: argparse.Namespace) -> dict[str, float]:
    """What an update of a worker takes, apart from others: median seconds of each optimizer's step, and of the rest."""
    model, players = ActorCritic(), Players(1, [args.seed])

    def play() -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss(model, players.play(model, args.rollout), args.entropy), list(model.parameters()))

    return compare(lambda name, params: rmsprop(name, params, args), model, play)


def train(args: argparse.Namespace, folder: Path) -> None:
    """Learn by each algorithm, compare the optimizers' time, and write the results."""
    from a3c.results import tables, write_results  # which loads matplotlib: workers, who import this file too, start without

    torch.set_num_threads(1)  # the network is too small for more
    out, names = console(), [name for name in ALGORITHMS if args.algorithm in (name.lower(), "both")]
    with Bars(out, names, 0, args.steps) as bars:
        courses = [learn(name, args, bars) for name in names]
    seconds = compare_steps(args)
    write_results(courses, seconds, folder)
    tables(courses, seconds, out)
    out.print(f"Curves and figures are in {folder}", highlight=False, soft_wrap=True)


def main(argv: list[str] | None = None) -> int:
    command = parser(__doc__)
    args = command.parse_args(argv)
    if args.lock and args.optimizer == "by-hand":
        command.error("--lock: RMSProp by hand has none; leave it out, or --optimizer")
    try:
        folder = new_folder(args.output, "name a new or empty folder")
        with locked(folder):
            train(args, folder)
    except (ValueError, OSError) as error:
        command.error(str(error))
    except WorkerDied as error:
        command.exit(1, f"{command.prog}: error: {error}\n")
    return 0


if __name__ == "__main__":
    plain_where_needed(sys.stdout)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
