"""The equations in the docstring of each preset are its rule: they are read, computed, and held against the rule as its source has it."""

import inspect
import re

import numpy as np
import pytest

from fusedrms import presets
from systems import RULES
from test_presets import VALUES, relative

NAMES = [member.name for member in presets.find()]
WORDS = {
    r"\lVert g \rVert_2": "norm(g)",
    r"\operatorname{clip}": "clip",
    r"\bar w": "w_bar",
    r"\gamma_1": "gamma1",
    r"\gamma_2": "gamma2",
    r"\cdot": "*",
    r"\pm": "",
    r"\left": "",
    r"\right": "",
    "\\ ": " ",
    "^": "**",
    r"\min": "np.fmin",
    r"\max": "np.maximum",
}


def blocks(name: str) -> list[tuple[str, list[str]]]:
    """When each block of equations holds, and its lines."""
    text = inspect.getdoc(getattr(presets, name)) or ""
    found = re.findall(r"([^\n]*)\n\n\$\$\n\\begin\{aligned\}\n(.*?)\n\\end\{aligned\}\n\$\$", text, re.S)
    return [(said.partition("and with ")[2].strip("`").replace("=True", "") or "True", body.split(" \\\\\n")) for said, body in found]


def python(latex: str) -> str:
    """An expression of Python."""
    text = re.sub(r"\\text\{(\w+)\}", r"\1", latex.replace(r"\_", "_"))
    for command, word in WORDS.items():
        text = text.replace(command, word)
    while (at := re.search(r"\\(frac|sqrt)\{", text)) is not None:
        inner, rest = group(text[at.end() :])
        if at[1] == "frac":
            below, rest = group(rest[1:])
            text = f"{text[: at.start()]}(({inner}) / ({below})){rest}"
        else:
            text = f"{text[: at.start()]}np.sqrt({inner}){rest}"
    text = re.sub(r"\{(-\d+)\}", r"(\1)", text)
    return re.sub(r"\\([a-z]+)", r"\1", text)


def group(text: str) -> tuple[str, str]:
    """What stands before the brace that closes, and after."""
    depth = 1
    for n, character in enumerate(text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return text[:n], text[n + 1 :]
    raise AssertionError(text)


FUNCTIONS = dict(
    np=np,
    norm=lambda g: np.sqrt(np.sum(g * g)),
    clip=lambda x, limit: x if np.isnan(limit) else np.clip(x, -limit, limit),  # a NaN is no limit
)


class Equations:
    """A step by the lines of one block."""

    def __init__(self, lines: list[str], options: dict, w: np.ndarray):
        limits = {key: value for key, value in options.items() if "clip" in key or "average" in key}
        limits = {key: np.nan if value is None or value < 0 else value for key, value in limits.items()}
        others = {key: 0.0 if value is None else value for key, value in options.items() if key not in limits}
        self.known = {**others, **limits, "b": 0.0, "m": 0.0, "v": 0.0, "w": w.copy(), "w_bar": w.copy()}
        self.lines = []
        for line in lines:
            left, _, right = re.sub(r"&(\\leftarrow|=)", "=", line).partition(" = ")
            value, *said = re.split(r",? \\qquad ", right)
            condition = "True"
            for each in said:
                if start := re.fullmatch(r"(.*)_0 = (.*)", each):
                    self.known[python(start[1])] = eval(python(start[2]), FUNCTIONS, self.known)
                elif when := re.fullmatch(r"\\text\{if ([\w\\]+), else \} (\w) = (\d)", each):
                    condition = when[1].replace("\\", "")
                    self.known[when[2]] = float(when[3])
                else:
                    self.lines.append((*map(python, each.split(" = ")), "True"))
            self.lines.append((python(left).strip(), python(value), condition))

    def step(self, g: np.ndarray, t: int) -> None:
        self.known |= dict(g=g, t=t)
        for name, value, condition in self.lines:
            if eval(condition, FUNCTIONS, self.known):
                self.known[name] = eval(value, FUNCTIONS, self.known)


def arguments(name: str) -> list[dict]:
    """By default, and each argument that the equations name with each of its values; rates where they must be given."""
    said = "".join(line for _, lines in blocks(name) for line in lines) + " ".join(condition for condition, _ in blocks(name))
    signature = inspect.signature(RULES[name]).parameters
    values = {key: known for keys, known in VALUES.items() for key in keys}
    default = {key: 0.02 if each.default is each.empty else each.default for key, each in signature.items()}
    named = [key for key in signature if re.search(rf"\b{key}\b", python(said))]
    assert named or not signature, f"{name}: no argument is named in its equations"
    return [default, *({**default, key: value} for key in named for value in values[key])]


@pytest.mark.parametrize("name", NAMES)
def test_equations(name):
    for options in arguments(name):
        (lines,) = [lines for condition, lines in blocks(name)[::-1] if eval(condition, {}, dict(options))][:1]
        generator = np.random.default_rng(0)
        w = generator.standard_normal(50)
        ours, step = Equations(lines, options, w), RULES[name](**options)
        params = [w.copy()]
        states = [dict(square_avg=0 * w + ours.known["v"], grad_avg=0 * w, momentum_buffer=0 * w, param_ema=w.copy(), mem=0 * w + 1)]
        for t in range(1, 21):
            g = generator.standard_normal(50)
            ours.step(g.copy(), t)
            step(params, [g.copy()], states, t)
            relative(1e-11)(ours.known["w"], params[0])
            if any(left == "w_bar" for left, *_ in ours.lines) and options["moving_average_decay"]:
                relative(1e-11)(ours.known["w_bar"], states[0]["param_ema"])
