"""What each preset is, found out by calling it: a row of a table for each, and those that a word is about."""

import inspect
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch.optim.optimizer import ParamsT

from ..engine.optimizer import FusedOptimizer
from .preset import PRESETS, Preset

Options = dict[str, Any]

LETTERS = dict(lr="lr", alpha="α", momentum="μ", eps="ε")
HEADERS = "preset", "source", "averages", "ε", "lr", "from", "clips", "decays", "by default"


class Member(NamedTuple):
    """What a preset is, found out by calling it. Where an argument changes something, that is told too: "outside; inside with centered".

    Attributes:
        name: Name of the function in `fusedrms.presets`.
        make: The function.
        system: Whose optimizer it is.
        version: Version of the source that was read, or where the paper is.
        about: First line of the function's docstring.
        averages: What it can keep: "plain", the average of squares alone; "centered", that of gradients too; "momentum", that of updates;
            or "SMORMS3".
        eps: Where epsilon stands: "outside" the root, "inside", "both", or "floor", the least value of the root.
        lr: Where the learning rate stands: "inside" the momentum buffer or "outside".
        start: What the square average starts from.
        clipping: What it can clip: "value", "norm" of all gradients, "norm of each", "norm, of updates", "weights"; "–" for nothing.
        decay: How weights can decay: "L2", "decoupled"; "–" for not at all.
        numbers: The usual numbers by default. Without lr where it must be given.
    """

    name: str
    make: Callable[..., FusedOptimizer]
    system: str
    version: str
    about: str
    averages: str
    eps: str
    lr: str
    start: str
    clipping: str
    decay: str
    numbers: str

    def in_words(self) -> str:
        """What it is, in words; what it does not have is left out."""
        said = [self.averages, f"ε {self.eps}", *([f"from {self.start}"] if self.start != "0" else [])]
        for words, value in (("lr {} of momentum", self.lr), ("clips {}", self.clipping), ("decay {}", self.decay)):
            said += [words.format(value)] if value != "–" else []
        return " · ".join(said)

    def __repr__(self) -> str:
        return f"<{self.name}: {self.system}, {self.version}: {self.in_words()}: {self.numbers}>"


def options_of(preset: Preset, **arguments: Any) -> Options:
    """All options of the optimizer that a preset makes."""
    return preset.optimizer._class_defaults() | inspect.unwrap(preset.make)(None, **{**_needed(preset), **arguments})


def made(preset: Preset, params: ParamsT, lr: float) -> FusedOptimizer:
    """The optimizer that a preset makes by default, with another learning rate."""
    optimizer = preset.make(params, **_needed(preset))
    for group in optimizer.param_groups:
        group["lr"] = lr
    return optimizer


def _needed(preset: Preset) -> Options:
    """The arguments without a default, learning rates, as 1."""
    return {name: 1.0 for name, parameter in _arguments(preset).items() if parameter.default is parameter.empty}


def defaults_of(preset: Preset) -> Options:
    """All options of the optimizer that it makes by default; lr is None where it must be given."""
    return options_of(preset) | dict.fromkeys(["lr"] if _needed(preset) else [])


def _arguments(preset: Preset) -> dict[str, inspect.Parameter]:
    return {name: parameter for name, parameter in inspect.signature(preset.make).parameters.items() if name != "params"}


def _another(default: Any) -> Any:
    """A value that an argument with this default may have, too."""
    return not default if isinstance(default, bool) else 0.5


def _ways(preset: Preset) -> Iterator[tuple[str, Options]]:
    """The options by default, and with one or two arguments that have another value, and which these are."""
    others = {name: _another(each.default) for name, each in _arguments(preset).items() if not isinstance(each.default, str)}
    for n in range(3):
        for names in itertools.combinations(others, n):
            said = (name if others[name] else f"{name}=False" for name in names)
            try:
                yield " and ".join(said), options_of(preset, **{name: others[name] for name in names})
            except ValueError:  # these two exclude each other
                continue


def equations(options: Options) -> str:
    """The rule that options make, without clipping and decay of weights, in the letters of docs/coming_from.md."""
    if "alpha" not in options:
        return "SMORMS3: w ← w − g·min(lr, m²/(v + ε)) / (√v + ε)"
    bare, d = ("v − m²", "(v − m²)") if options["centered"] else ("v", "v")
    inside = f"√({bare} + ε)"
    root = {"outside": f"(√{d} + ε)", "inside": inside, "both": f"({inside} + ε)", "floor": f"max(√{d}, ε)"}[options["eps_placement"]]
    start = options["initial_square_avg"]
    scale = options["rescale_grad"]
    lines = [f"g ← {scale:g}·g"] if scale != 1 else []
    lines += [f"v ← α·v + (1 − α)·g²{f', from {start:g}' if start else ''}"]
    lines += ["m ← α·m + (1 − α)·g"] if options["centered"] else []
    if not options["momentum"]:
        return "; ".join([*lines, f"w ← w − lr·g / {root}"])
    within, without = ("lr·", "") if options["lr_in_momentum"] else ("", "lr·")
    return "; ".join([*lines, f"b ← μ·b + {within}g / {root}; w ← w − {without}b"])


def averages(options: Options) -> str:
    """Which an optimizer of the family keeps beside that of squares, or "plain"."""
    return ", ".join(word for word in ("centered", "momentum") if options.get(word)) or "plain"


def _clipping(options: Options) -> list[str]:
    found = ["value"] if options["clip_grad_value"] else []
    if options["clip_grad_norm"]:
        of_each = options["clip_norm_over"] == "parameter"
        found.append("norm, of updates" if options.get("clip_norm_on") == "update" else "norm of each" if of_each else "norm")
    return found + (["weights"] if options["clip_weights"] else [])


def _all(values: Iterator[str] | list[str]) -> str:
    return ", ".join(dict.fromkeys(value for value in values if value)) or "–"


def _with(ways: list[tuple[str, Options]], option: str) -> str:
    """An option's value by default, and what arguments make of it."""
    found = {str(ways[0][1][option]): ""}
    for said, options in ways:
        found.setdefault(str(options[option]), said)
    return "; ".join(f"{value} with {said}" if said else value for value, said in found.items())


def _start(ways: list[tuple[str, Options]]) -> str:
    """Of the square average; 0 where there is no choice."""
    start = ways[0][1].get("initial_square_avg", 0)
    alone = [said for said, options in ways if options.get("initial_square_avg", 0) != start and " and " not in said]
    return " or ".join([f"{start:g}", *alone])


def numbers(options: Options) -> str:
    """The usual ones that are there and not 0, by their letters."""
    return ", ".join(f"{letter} {options[name]:.4g}" for name, letter in LETTERS.items() if options.get(name))


def _member(name: str, preset: Preset) -> Member:
    ways = list(_ways(preset))
    every, default = [options for _, options in ways], ways[0][1]
    is_family = "alpha" in default  # SMORMS3 has no choice
    return Member(
        name=name,
        make=preset.make,
        system=preset.system,
        version=preset.version,
        about=(inspect.getdoc(preset.make) or "").partition("\n")[0],
        averages=_all(word for options in every for word in averages(options).split(", ")) if is_family else "SMORMS3",
        eps=_with(ways, "eps_placement") if is_family else "both",
        lr=_all(["outside", "inside"][options["lr_in_momentum"]] if options["momentum"] else "" for options in every) if is_family else "–",
        start=_start(ways),
        clipping=_all([word for options in every for word in _clipping(options)]),
        decay=_all(["L2", "decoupled"][options["decoupled_weight_decay"]] if options["weight_decay"] else "" for options in every),
        numbers=numbers(defaults_of(preset)),
    )


def find(words: str = "") -> list[Member]:
    """The presets whose name, system, version or docstring contains all of the words, in upper or lower case.

    Args:
        words: Words, separated by spaces. Default "": all presets.

    Returns:
        What each preset is, in the order of their names. An empty list if there is none.

    Raises:
        TypeError: `words` is no text.

    Examples:
        >>> [preset.name for preset in presets.find("dqn")]
        ['dopamine', 'dqn2015', 'dqn_zoo']
        >>> dopamine = presets.find("dopamine")[0]
        >>> dopamine.eps, dopamine.start, dopamine.numbers
        ('inside', '1', 'lr 0.00025, α 0.95, ε 1e-05')
        >>> optimizer = dopamine.make([torch.nn.Parameter(torch.ones(3))])
    """
    if not isinstance(words, str):
        raise TypeError(f"words={words!r}: it must be text, such as 'dqn'")
    return [
        _member(name, preset)
        for name, preset in sorted(PRESETS.items())
        if all(word in f"{name} {preset.system} {preset.version} {inspect.getdoc(preset.make)}".lower() for word in words.lower().split())
    ]


def named(word: str) -> Preset:
    """The preset of a name, or of its beginning: "keras_rmsprop", "keras", "impala".

    Raises:
        ValueError: it begins no name, or several.
    """
    begin = [name for name in PRESETS if name.startswith(word)] if word else []
    for name in (word, f"{word}_rmsprop", *(begin if len(begin) == 1 else ())):
        if name in PRESETS:
            return PRESETS[name]
    about = [member.name for member in find(word)] if word else []
    choice = ", ".join(sorted(begin or about or PRESETS))
    raise ValueError(f"{word!r} {'begins several presets' if begin else 'is not a preset'}: take one of {choice}")
