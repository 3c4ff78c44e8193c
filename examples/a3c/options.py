"""The command line of train_a3c.py."""

from __future__ import annotations

import argparse
import sys

from a3c.by_hand import OPTIMIZERS
from fusedrms.tools.files import place
from training.settings import Rule, integer


def parser(about: str | None) -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    above_0 = Rule((float,), lambda x: 0 < x <= sys.float_info.max, "a finite number above 0", "X")
    at_least_0 = Rule((float,), lambda x: 0 <= x <= sys.float_info.max, "a finite number of at least 0", "X")
    for name, default, rule, meaning in (
        ("--workers", 2, integer(1, 1024), "processes of A3C, each with an environment"),
        ("--environments", 8, integer(1, 1024), "environments of A2C"),
        ("--rollout", 50, integer(1, 10_000), "steps of an environment from one update to the next"),
        ("--steps", 200_000, integer(1), "steps of environments in all, for each algorithm"),
        ("--lr", 3e-3, above_0, "learning rate at the start, which falls linearly to 0 at the last step"),
        ("--eps", 1e-5, above_0, "RMSProp's epsilon, inside of the root"),
        ("--clip", 40.0, above_0, "limit of the norm of all gradients"),
        ("--entropy", 0.01, at_least_0, "weight of the policy's entropy in the loss"),
        ("--solved", 475.0, at_least_0, "mean return of evaluations that ends an algorithm; above 500 none does"),
        ("--seed", 0, integer(0), "of the weights, the environments and the actions; workers make no two runs the same"),
    ):
        result.add_argument(name, default=default, type=rule.parse, metavar=rule.metavar, help=f"{meaning} (default: {default})")
    result.add_argument("--algorithm", default="both", choices=("a3c", "a2c", "both"), help="what to learn by (default: both)")
    result.add_argument("--optimizer", default=OPTIMIZERS[0], choices=OPTIMIZERS, help=f"of both (default: {OPTIMIZERS[0]})")
    result.add_argument("--lock", action="store_true", help="have A3C's workers step one at a time, by share_memory(lock=True)")
    result.add_argument("--output", type=place, metavar="FOLDER", help="new or empty folder to write to (default: runs/<time>)")
    return result
