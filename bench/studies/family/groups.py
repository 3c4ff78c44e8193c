"""Which presets are the same, and what each group is by default."""

from collections.abc import Iterable
from typing import Any

from fusedrms.presets.family import averages, find, numbers, options_of
from fusedrms.presets.preset import PRESETS

EPS_PLACES = "outside", "inside", "both", "floor"


def _options(name: str) -> tuple[str, dict[str, Any]]:
    """The class and its options by default, but the learning rate."""
    preset = PRESETS[name]
    return preset.optimizer.__name__, {option: value for option, value in options_of(preset).items() if option != "lr"}


def equal_by_default() -> list[list[str]]:
    """All presets; those whose options by default are equal, but for the learning rate, stand together."""
    groups: list[list[str]] = []
    for member in find():
        own = _options(member.name)
        same = next((group for group in groups if _options(group[0]) == own), None)
        if same is None:
            groups.append([member.name])
        else:
            same.append(member.name)
    return groups


def alike(digests: dict[str, tuple[str, ...]], groups: Iterable[list[str]]) -> list[list[list[str]]]:
    """Groups of equal options, by the first name of each; those whose runs were the same bit for bit stand together."""
    found: dict[tuple[str, ...], list[list[str]]] = {}
    for group in groups:
        found.setdefault(digests[group[0]], []).append(group)
    return list(found.values())


def about(name: str) -> dict[str, str]:
    """The columns of the table that tell what a preset is by default."""
    _, options = _options(name)
    known = [numbers(options)]
    known += [f"decay {options['weight_decay']:g}"] if options["weight_decay"] else []
    known += [f"g·{options['rescale_grad']:g}"] if options["rescale_grad"] != 1 else []
    if "alpha" not in options:
        return dict(eps="both", numbers=", ".join(known), start="0", averages="SMORMS3")
    start = f"{options['initial_square_avg']:g}"
    return dict(eps=options["eps_placement"], numbers=", ".join(known), start=start, averages=averages(options))


def kinship(name: str) -> tuple:
    """What presets are sorted by: kin stand together, torch's is the first."""
    _, options = _options(name)
    if "alpha" not in options:
        return (True,)
    means = bool(options["momentum"]), options["centered"], options["initial_square_avg"] > 0.5
    return (False, *means, EPS_PLACES.index(options["eps_placement"]), -options["alpha"], options["eps"], name != "torch_rmsprop")
