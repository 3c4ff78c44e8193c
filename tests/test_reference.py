"""The API reference: every public name has a docstring that says all and holds, an example that runs, and one place in docs/reference."""

import ast
import doctest
import importlib
import inspect
import math
import pathlib
import re
import types
from collections import Counter
from typing import Any

import pytest
import torch

import fusedrms
from fusedrms.engine.statistics import Stats

ROOT = pathlib.Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs/reference").glob("*.md"))
MODULES = [importlib.import_module(f"fusedrms.{name}") for name in ("presets", "schedules", "planner", "timm")]
RETURNED = [Stats]  # by what is public
BETWEEN = {"check_group", "recipe", "kinds", "declared"}  # what a class of this package tells the engine of its rule
OWN = ("fusedrms", "kernels")
NAMESPACE = {"math": math, "torch": torch, "fusedrms": fusedrms} | {name: getattr(fusedrms, name) for name in fusedrms.__all__}


def is_own(definer: Any) -> bool:
    return definer.__module__.split(".")[0] in OWN


def members(cls: type) -> dict[str, Any]:
    """What this package gives a class, as it is defined; without fields, and methods of which a base has said all."""
    fields = {*getattr(cls, "_fields", ()), *getattr(cls, "__dataclass_fields__", ())}
    found = {}
    for name in dir(cls):
        definers = [base for base in cls.__mro__ if name in vars(base)]
        if name.startswith("_") or name in BETWEEN | fields or not definers or not is_own(definers[0]):
            continue
        member = vars(definers[0])[name]
        if member.__doc__ or len(definers) == 1:
            found[name] = member
    return found


def public() -> dict[str, Any]:
    """By dotted name: modules, functions, classes and what classes define."""
    found: dict[str, Any] = {"fusedrms": fusedrms} | {module.__name__: module for module in MODULES}
    found |= {f"fusedrms.{name}": getattr(fusedrms, name) for name in fusedrms.__all__}
    for module in MODULES:
        found |= {
            f"{module.__name__}.{name}": value
            for name, value in vars(module).items()
            if not name.startswith("_") and callable(value) and value.__module__.startswith(module.__name__)
        }
    found |= {f"{cls.__module__}.{cls.__qualname__}": cls for cls in RETURNED}
    for name, value in list(found.items()):
        if inspect.isclass(value):
            found |= {f"{name}.{member}": defined for member, defined in members(value).items()}
    first = {id(value): name for name, value in reversed(found.items())}  # of what several classes inherit
    return {name: value for name, value in found.items() if not isinstance(value, str) and first[id(value)] == name}


PUBLIC = public()
TOP = {name: value for name, value in PUBLIC.items() if inspect.isclass(value) or isinstance(value, types.FunctionType)}
TOP = {name: value for name, value in TOP.items() if name.rpartition(".")[0] in ("fusedrms", *(module.__name__ for module in MODULES))}


def docstring(value: Any) -> str:
    return inspect.cleandoc(value.__doc__ or "")


def section(text: str, title: str) -> dict[str, str]:
    """What a section of a docstring says of each name."""
    body = re.search(rf"^{title}:\n((?:    .*\n?|\n)+)", text, re.M)
    parts = re.split(r"^    (\w+): ", body[1], flags=re.M) if body else [""]
    return {name: " ".join(said.split()) for name, said in zip(parts[1::2], parts[2::2], strict=True)}


def signature(value: Any) -> dict[str, inspect.Parameter]:
    function = value.__func__ if isinstance(value, classmethod) else value
    if isinstance(value, property) or not callable(function) or hasattr(value, "func"):
        return {}
    if inspect.isclass(value) and issubclass(value, Exception):
        return {}
    return {name: one for name, one in inspect.signature(function).parameters.items() if name not in ("self", "cls")}


def described(value: Any) -> dict[str, str]:
    """What a docstring says of each parameter, and of the fields of a class that users never make."""
    text = docstring(value)
    found = section(text, "Args")
    if hasattr(value, "__dataclass_fields__"):
        found |= section(text, "Attributes")
    for path, listed in re.findall(r"^(?:Options|Arguments) as in `([\w.]+)`: ([^.]*)\.", text, re.M):
        other = getattr(fusedrms, path, None) or resolved(path)
        for name in re.findall(r"`(\w+)`", listed):
            assert name not in found, f"{name} is described twice"
            assert signature(other)[name].default == signature(value)[name].default, f"{name} has another default than in {path}"
            found[name] = section(docstring(other), "Args")[name] if is_own(other) else ""
    return found


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring(name):
    text = docstring(PUBLIC[name])
    assert text.split("\n")[0].endswith((".", "`", ":")), "its first line is a sentence"
    assert not re.search(r"^ *Example:$", text, re.M), "as code the site shows Examples alone"
    assert "``" not in text.replace("```", "")
    assert not re.search(r":\w+:`|^\.\. ", text, re.M), "reStructuredText"


@pytest.mark.parametrize("name", PUBLIC)
def test_every_parameter(name):
    given = signature(PUBLIC[name])
    assert described(PUBLIC[name]).keys() == given.keys()
    for option, said in described(PUBLIC[name]).items():
        defaults = re.findall(r"\bdefault (\(.*?\)|\"[^\"]*\"|[\w.+*-]*\w|-?\.?\d\S*)", said, re.I)
        assert defaults or not said or given[option].default is inspect.Parameter.empty, f"{option}: its default is not said"
        for default in defaults:
            assert eval(default, dict(NAMESPACE)) == given[option].default, f"{option}: default {default}"


@pytest.mark.parametrize("name", TOP)
def test_there_are_examples(name):
    assert re.search(r"^Examples:\n    >>> ", docstring(TOP[name]), re.M)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("name", [name for name, value in PUBLIC.items() if ">>> " in docstring(value)])
def test_example(name):
    example = doctest.DocTestParser().get_doctest(docstring(PUBLIC[name]), dict(NAMESPACE), name, None, None)
    told: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    torch.manual_seed(0)
    runner.run(example, out=told.append)
    assert not told, "".join(told)


def resolved(path: str) -> Any:
    """A public name as a page writes it, as it is defined."""
    parts = path.split(".")
    for n in range(len(parts), 0, -1):
        try:
            value: Any = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        for part in parts[n:]:
            value = inspect.getattr_static(value, part)
        return value
    raise AssertionError(path)


def shown_by(path: str, options: str) -> list[Any]:
    """What a directive of mkdocstrings shows: the name, and its members unless it says which."""
    value = resolved(path)
    listed = re.search(r"members: *(\[.*?\]|\w+|(?:\n +- .*)+)", options)
    words = re.findall(r"\w+", listed[1]) if listed else ["true"]
    if words == ["false"]:
        return [value]
    if inspect.ismodule(value):
        inner = {name: member for name, member in PUBLIC.items() if name.startswith(f"{path}.") and "." not in name[len(path) + 1 :]}
        chosen = [name for name in inner if words == ["true"] or name.rpartition(".")[2] in words]
        return [value] + [member for name in chosen for member in shown_by(name, "")]
    if not inspect.isclass(value):
        return [value]
    return [value] + [member for name, member in members(value).items() if (name in vars(value) if words == ["true"] else name in words)]


def test_pages():
    """Each public name has one place; what several classes have in common stands at one of them."""
    text = "".join(f"{page.read_text()}\n" for page in PAGES)
    directives = re.findall(r"^::: (\S+)\n((?:(?:    .*)?\n)*)", text, re.M)
    count = Counter(id(value) for path, options in directives for value in shown_by(path, options))
    pages = {name: count[id(value)] for name, value in PUBLIC.items() if not inspect.ismodule(value)}
    assert {name: times for name, times in pages.items() if times != 1} == {}


def test_index():
    """Its table has every name of the package and of the modules that serve other libraries, and the package's own docstring too."""
    links = re.findall(r"\[`([\w.]+)`\]", (ROOT / "docs/reference/index.md").read_text())
    others = [name for name in TOP if name.startswith(("fusedrms.planner.", "fusedrms.timm."))]
    assert sorted(links) == sorted({*fusedrms.__all__, *(name.removeprefix("fusedrms.") for name in others)} - {"__version__"})
    named = {*re.findall(r"`(\w+)`", fusedrms.__doc__), *section(fusedrms.__doc__, "Attributes")}
    assert named >= {*fusedrms.__all__}


@pytest.mark.parametrize(
    ("said", "message"), [("b: Another; default 2.", "b: default 2"), ("b: Another.", "b: its default is not said"), ("", "'a', 'b'")]
)
def test_wrong_docstrings_are_found(said, message, monkeypatch):
    def wrong(a, b=1):
        pass

    wrong.__doc__ = f"One.\n\nArgs:\n    a: A number.\n    {said}\n"
    monkeypatch.setitem(PUBLIC, "wrong", wrong)
    with pytest.raises(AssertionError, match=message):
        test_every_parameter("wrong")


def test_defaults_are_read():
    assert ast.literal_eval("1e-2") == signature(fusedrms.FusedRMSProp)["lr"].default
