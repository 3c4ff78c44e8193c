"""The rooms: who may import whom, how large a file, a function and a call may be, and what `import fusedrms` loads."""

import ast
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FOLDERS = ("fusedrms", "kernels", "bench", "tests", "examples")
FILES = {str(path.relative_to(ROOT)): path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))}
FILES = {name: path for name, path in FILES.items() if not name.startswith("fusedrms/kernels/")}  # a link to kernels/

# room -> how the paths of its files begin; the longest that fits counts
ROOMS = {
    "package": ("fusedrms/__init__.py", "fusedrms/__main__.py"),
    "presets": ("fusedrms/presets", "fusedrms/timm.py"),
    "classes": ("fusedrms/",),
    "engine": ("fusedrms/engine/",),
    "engine.sharded": ("fusedrms/engine/sharded.py",),
    **{f"engine.{name}": (f"fusedrms/engine/{name}/",) for name in ("state", "options", "ownership", "tables", "checkpoints")},
    "tools": ("fusedrms/tools/",),
    "shared": ("kernels/",),
    "launch": ("kernels/launch.py",),
    "gpu": ("kernels/gpu/",),
    "cpu": ("kernels/cpu/",),
    "bench": ("bench/",),
    **{f"bench.{name}": (f"bench/{name}/",) for name in ("common", "timing", "studies", "gpu", "report")},
    "tests": ("tests/",),
    "examples": ("examples/",),
}
KERNELS = {"shared", "launch", "gpu", "cpu"}
ENGINE = {room for room in ROOMS if room.startswith("engine")}
LIBRARY = {"package", "presets", "classes", *ENGINE, "tools", *KERNELS}
BENCH = {room for room in ROOMS if room.startswith("bench")}
# room -> what it may import beside itself
MAY = {
    "package": {"presets", "classes", *ENGINE, "tools"},
    "presets": {"classes", *ENGINE},
    "classes": {*ENGINE, *KERNELS},
    "engine": {*ENGINE, *KERNELS},
    "engine.sharded": KERNELS,
    "engine.state": {"engine.sharded", *KERNELS},
    "engine.options": {"engine.sharded", "engine.state", *KERNELS},
    "engine.ownership": {"engine.sharded", *KERNELS},
    "engine.tables": {"engine.sharded", "engine.state", "engine.options", "engine.ownership", *KERNELS},
    "engine.checkpoints": {"engine.sharded", "engine.state", "engine.options", "engine.tables", *KERNELS},
    "tools": LIBRARY,
    "shared": set(),
    "launch": KERNELS,
    "gpu": {"shared"},
    "cpu": {"shared"},
    "bench": LIBRARY | BENCH,
    "bench.common": LIBRARY,
    "bench.timing": {*LIBRARY, "bench.common"},
    "bench.studies": {*LIBRARY, "bench.common", "bench.timing", "tests", "examples"},
    "bench.gpu": {*LIBRARY, "bench.common", "bench.timing", "tests", "examples"},
    "bench.report": LIBRARY | BENCH,
    "tests": LIBRARY | BENCH | {"examples"},
    "examples": LIBRARY,
}
ALLOWED = {("fusedrms/tools/bench.py", "bench/__main__.py")}  # where there is a checkout
ONLY_TOOLS = ("rich", "matplotlib", "filelock")  # import in fusedrms/

MOST_LINES, MOST_OF_A_FUNCTION, MOST_ARGUMENTS = 300, 60, 6
# what is still over a limit
OVER: dict[str, set[str]] = {}


def room_of(name: str) -> str:
    return max(((begin, room) for room, begins in ROOMS.items() for begin in begins if name.startswith(begin)), key=lambda p: len(p[0]))[1]


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
        if top == "kernels":
            found.append(f"{name}:{line}: imports {dotted}: say fusedrms.kernels")
        elif room in LIBRARY - {"tools"} and top in ONLY_TOOLS:
            found.append(f"{name}:{line}: {room} imports {dotted}: in fusedrms/ only tools may")
        elif (name, file := MODULES.get(dotted, name)) not in ALLOWED and (other := room_of(file)) not in MAY[room] | {room}:
            found.append(f"{name}:{line}: {room} imports {file} of {other}: it may import {', '.join(sorted(MAY[room])) or 'none'}")
    return found


def over(name: str, text: str) -> set[str]:
    """What of a file is over a limit."""
    found = {"lines"} if text.count("\n") > MOST_LINES else set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= MOST_OF_A_FUNCTION:
            found.add(f"def {node.name}")
        if isinstance(node, ast.Call) and len(node.args) > MOST_ARGUMENTS and not name.startswith("kernels/"):
            found.add(f"call {ast.unparse(node.func)}")
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_imports(room):
    names = [name for name in FILES if room_of(name) == room]
    assert names
    found = [problem for name in names for problem in wrong_imports(name, FILES[name].read_text())]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "fusedrms/engine/tables/plan.py",
            "import torch\nfrom ...rmsprop import FusedRMSProp",
            "plan.py:2: engine.tables imports fusedrms/rmsprop.py of classes",
        ),
        (
            "fusedrms/engine/tables/plan.py",
            "def f():\n    from ...tools import variants",
            "plan.py:2: engine.tables imports fusedrms/tools/variants.py of tools",
        ),
        ("fusedrms/rmsprop.py", "from . import timm", "rmsprop.py:1: classes imports fusedrms/timm.py of presets"),
        ("fusedrms/timm.py", "import fusedrms.kernels.launch", "presets imports kernels/launch.py of launch"),
        ("fusedrms/rmsprop.py", "from rich.table import Table", "classes imports rich.table: in fusedrms/ only tools may"),
        ("fusedrms/tools/cli.py", "from bench.__main__ import main", "tools imports bench/__main__.py of bench"),
        ("fusedrms/tools/cli.py", "import gpt", "tools imports examples/gpt.py of examples"),
        ("kernels/gpu/step.py", "from ..cpu import step", "gpu imports kernels/cpu/step.py of cpu: it may import shared"),
        ("kernels/rules.py", "from .gpu.step import step_kernel", "shared imports kernels/gpu/step.py of gpu: it may import none"),
        ("tests/test_rooms.py", "from kernels import rules", "test_rooms.py:1: imports kernels: say fusedrms.kernels"),
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
    known = {name: wrong for name, wrong in OVER.items() if name.startswith(f"{folder}/")}
    for name in found.keys() | known.keys():
        new, gone = found.get(name, set()) - known.get(name, set()), known.get(name, set()) - found.get(name, set())
        assert not new, (
            f"{name}: {new} is over {MOST_LINES} lines, {MOST_OF_A_FUNCTION} of a function or {MOST_ARGUMENTS} arguments by place"
        )
        assert not gone, f"{name}: {gone} is within the limits: take it out of OVER"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("pass\n" * 300, set()),
        ("pass\n" * 301, {"lines"}),
        ("def f():\n" + " pass\n" * 59, set()),
        ("class A:\n def f(self):\n" + "  pass\n" * 60, {"def f"}),
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
