"""The rooms: who may import whom, how large a file, a function and a call may be, and what `import fusedrms` loads."""

import ast
import graphlib
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FOLDERS = ("fusedrms", "kernels", "bench", "tests", "examples")
FILES = {str(path.relative_to(ROOT)): path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))}
FILES = {name: path for name, path in FILES.items() if not name.startswith("fusedrms/kernels/")}  # a link to kernels/

# the folders whose __init__.py says which rooms they may import; X.* is X and all rooms in it
FOLDER_ROOMS = {str(path.parent.relative_to(ROOT)): path for name, path in FILES.items() if name.endswith("/__init__.py")}
FOLDER_ROOMS = {folder: path for folder, path in FOLDER_ROOMS.items() if not folder.startswith(("tests", "examples"))}
# finer rooms, and folders without an __init__.py: how the paths of their files begin, and what they may import
OTHER_ROOMS = {
    "fusedrms.classes": (("fusedrms/",), "fusedrms.engine.*, fusedrms.rules, kernels.*"),
    "fusedrms.engine.sharded": (("fusedrms/engine/sharded.py",), "kernels.*"),
    "kernels.launch": (("kernels/launch.py",), "kernels.*"),
    "bench.commands": (("bench/",), "fusedrms.*, kernels.*, bench.*"),
    "tests": (("tests/test_", "tests/integrations/", "tests/wheel/"), "fusedrms.*, kernels.*, bench.*, examples, tests.helpers"),
    "tests.helpers": (("tests/",), "fusedrms.*, kernels.*, examples"),
    "examples": (("examples/",), "fusedrms.*, kernels.*"),
}
# by room; of a path the longest beginning that fits counts
BEGINS = {folder.replace("/", "."): (f"{folder}/",) for folder in FOLDER_ROOMS} | {
    room: begins for room, (begins, _) in OTHER_ROOMS.items()
}
BEGINS |= {
    "fusedrms": ("fusedrms/__init__.py",),
    "fusedrms.presets": ("fusedrms/presets/", "fusedrms/timm.py"),
    "fusedrms.tools": ("fusedrms/tools/", "fusedrms/__main__.py"),
    "bench": ("bench/__init__.py",),
}


def rooms(text: str) -> set[str]:
    """Those that a list names."""
    found = set()
    for name in text.split(", ") if text != "nothing" else ():
        within = name.removesuffix(".*")
        named = {room for room in BEGINS if room == within or (room.startswith(f"{within}.") and within != name)}
        assert named, f"{name} is no room: {', '.join(BEGINS)}"
        found |= named
    return found


def may_import() -> dict[str, set[str]]:
    """What each room may import beside itself."""
    found = {room: rooms(text) for room, (_, text) in OTHER_ROOMS.items()}
    for folder, path in FOLDER_ROOMS.items():
        said = re.findall(r"May import: (.*)\.(?:\"\"\")?$", path.read_text(), re.M)
        assert len(said) == 1, f'{path}: it must say once, at the end of a line, "May import: ROOM, ROOM." or "May import: nothing."'
        found[folder.replace("/", ".")] = rooms(said[0])
    return found


MAY = may_import()
LIBRARY = rooms("fusedrms.*, kernels.*")
ALLOWED = {("fusedrms/tools/bench.py", "bench/__main__.py")}  # where there is a checkout
ONLY_TOOLS = ("rich", "matplotlib", "filelock")  # import in fusedrms/

BARE = dict(kernels="fusedrms.kernels", tests="the module alone", examples="the module alone")  # how else it would be two modules

MOST_LINES, MOST_OF_A_FUNCTION, MOST_ARGUMENTS = 300, 60, 6


def room_of(name: str) -> str:
    return max(((begin, room) for room, begins in BEGINS.items() for begin in begins if name.startswith(begin)), key=lambda p: len(p[0]))[1]


def modules() -> dict[str, str]:
    """Dotted name, as it is imported -> file."""
    found = {}
    for name in FILES:
        parts = name.removesuffix(".py").removesuffix("/__init__").split("/")
        top = {"kernels": ["fusedrms", "kernels"], "tests": [], "examples": []}.get(parts[0], parts[:1])
        found[".".join([*top, *parts[1:]])] = name
    return found


MODULES = modules()


def imported(name: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of each import of a file."""
    own = next(dotted for dotted, file in MODULES.items() if file == name)
    package = own.split(".") if name.endswith("__init__.py") else own.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*(package[: len(package) - node.level + 1] if node.level else []), *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                one = ".".join([*base, alias.name])
                yield node.lineno, one if one in MODULES else ".".join(base)


def wrong_imports(name: str, text: str) -> list[str]:
    """What a file imports against the rules."""
    room, found = room_of(name), []
    for line, dotted in imported(name, ast.parse(text)):
        top = dotted.partition(".")[0]
        if top in BARE:
            found.append(f"{name}:{line}: imports {dotted}: say {BARE[top]}")
        elif room in LIBRARY - {"fusedrms.tools"} and top in ONLY_TOOLS:
            found.append(f"{name}:{line}: {room} imports {dotted}: in fusedrms/ only tools may")
        elif (name, file := MODULES.get(dotted, name)) not in ALLOWED and (other := room_of(file)) not in MAY[room] | {room}:
            found.append(f"{name}:{line}: {room} imports {file} of {other}: it may import {', '.join(sorted(MAY[room])) or 'nothing'}")
    return found


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring, which is as long as users need it."""
    said = function.body[0] if ast.get_docstring(function) else None
    return (function.end_lineno or 0) - function.lineno + 1 - (((said.end_lineno or 0) - said.lineno + 1) if said else 0)


def over(name: str, text: str) -> set[str]:
    """What of a file is over a limit."""
    found = {"lines"} if text.count("\n") > MOST_LINES else set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and length(node) > MOST_OF_A_FUNCTION:
            found.add(f"def {node.name}")
        if isinstance(node, ast.Call) and len(node.args) > MOST_ARGUMENTS and not name.startswith("kernels/"):
            found.add(f"call {ast.unparse(node.func)}")
    return found


@pytest.mark.parametrize("room", BEGINS)
def test_imports(room):
    names = [name for name in FILES if room_of(name) == room]
    assert names
    found = [problem for name in names for problem in wrong_imports(name, FILES[name].read_text())]
    assert not found, "\n".join(found)


def test_a_room_that_is_not_there_is_seen():
    with pytest.raises(AssertionError, match=r"kernels\.x is no room"):
        rooms("kernels, kernels.x")


def test_no_circles():
    graphlib.TopologicalSorter({room: others - {room} for room, others in MAY.items()}).prepare()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "fusedrms/engine/tables/plan.py",
            "import torch\nfrom ...rmsprop import FusedRMSProp",
            "plan.py:2: fusedrms.engine.tables imports fusedrms/rmsprop.py of fusedrms.classes",
        ),
        (
            "fusedrms/engine/tables/plan.py",
            "def f():\n    from ...tools import variants",
            "plan.py:2: fusedrms.engine.tables imports fusedrms/tools/variants.py of fusedrms.tools",
        ),
        ("fusedrms/rmsprop.py", "from . import timm", "rmsprop.py:1: fusedrms.classes imports fusedrms/timm.py of fusedrms.presets"),
        ("fusedrms/timm.py", "import fusedrms.kernels.launch", "fusedrms.presets imports kernels/launch.py of kernels.launch"),
        ("fusedrms/rmsprop.py", "from rich.table import Table", "fusedrms.classes imports rich.table: in fusedrms/ only tools may"),
        ("fusedrms/tools/cli.py", "from bench.__main__ import main", "fusedrms.tools imports bench/__main__.py of bench.commands"),
        ("fusedrms/tools/cli.py", "import gpt", "fusedrms.tools imports examples/gpt.py of examples"),
        ("kernels/gpu/step.py", "from ..cpu import step", "kernels.gpu imports kernels/cpu/step.py of kernels.cpu: it may import kernels"),
        (
            "kernels/rules.py",
            "from .gpu.step import step_kernel",
            "kernels imports kernels/gpu/step.py of kernels.gpu: it may import nothing",
        ),
        ("tests/test_rooms.py", "from kernels import rules", "test_rooms.py:1: imports kernels: say fusedrms.kernels"),
        ("tests/test_rooms.py", "import tests.tools", "test_rooms.py:1: imports tests.tools: say the module alone"),
        ("bench/timing/measure.py", "from bench.report import report", "bench.timing imports bench/report/report.py of bench.report"),
        ("kernels/launch.py", "from .gpu.step import step_kernel\nfrom .cpu import norm", None),
        ("fusedrms/__init__.py", "from . import presets", None),
    ],
)
def test_wrong_imports_are_seen(name, text, said):
    found = wrong_imports(name, text)
    assert len(found) == (said is not None)
    assert not found or said in found[0]


@pytest.mark.parametrize("folder", FOLDERS)
def test_sizes(folder):
    found = {name: wrong for name, path in FILES.items() if name.startswith(f"{folder}/") and (wrong := over(name, path.read_text()))}
    assert not found, f"over {MOST_LINES} lines, {MOST_OF_A_FUNCTION} of a function or {MOST_ARGUMENTS} arguments by position: {found}"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("pass\n" * 300, set()),
        ("pass\n" * 301, {"lines"}),
        ("def f():\n" + " pass\n" * 59, set()),
        ("class A:\n def f(self):\n" + "  pass\n" * 60, {"def f"}),
        ("async def f():\n" + " pass\n" * 60, {"def f"}),
        ('def f():\n """\n' + "x\n" * 60 + '"""\n' + " pass\n" * 59, set()),
        ('def f():\n """x\n"""\n' + " pass\n" * 60, {"def f"}),
        ("a.b(1, 2, 3, 4, 5, 6, x=7)", set()),
        ("a.b(1, 2, 3, 4, 5, 6, *x)", {"call a.b"}),
    ],
)
def test_what_is_over_is_seen(text, found):
    assert over("fusedrms/x.py", text) == found
    assert over("kernels/x.py", text) == found - {"call a.b"}


def test_import_loads_no_command():
    code = f"import fusedrms, sys; found = {{*{ONLY_TOOLS}, 'fusedrms.tools', 'pytest'}} & set(sys.modules); assert not found, found"
    for more, fails in (("", False), ("import fusedrms.tools.cli; ", True)):
        run = subprocess.run([sys.executable, "-c", more + code], cwd=ROOT, capture_output=True, text=True, check=False)
        assert bool(run.returncode) == fails, run.stderr
        assert ("fusedrms.tools" in run.stderr) == fails
