"""The tests that are most likely to differ by version, in an environment for each row of a table: make test-versions.

ARGS=--list names the rows, ARGS="--session NAME" runs one. Environments stay in .nox for the next run.

Other sessions hold systems, which cannot be where this project is, against what was recorded of them: make test-recorded.
"""

import pathlib
import sys
from collections.abc import Callable
from typing import NamedTuple

import nox

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from version_rows import OLDEST, ROWS, Row  # noqa: E402

nox.options.default_venv_backend = "uv"  # it links what environments share, which is gigabytes
nox.options.download_python = "never"  # a row whose interpreter is missing is reported as skipped, and fails where CI is set
nox.options.envdir = str(ROOT / ".nox")
nox.options.reuse_venv = "yes"

TOOLS = ("pytest", "pytest-xdist", "hypothesis", "expecttest", "matplotlib")  # what these tests import beside the package
NAMES = (
    *("codegen", "rounding", "quantize", "dropin", "checkpoint", "migrating", "torch_loaders", "state_dict", "seeds"),
    *("cli", "configs", "config_files", "memory_command"),  # what needs rich, platformdirs and filelock
    *("stale", "inplace", "ptx", "ptx_machine", "ptx_triton", "ptx_optimizer", "rule_tracing", "rule_check", "rule_first_step"),
)
FILES = [f"tests/test_{name}.py" for name in NAMES]
INTERPRETED = [f"tests/test_{name}.py" for name in ("rounding", "quantize", "ptx", "ptx_bits", "rule_tracing", "rule_check")]
ONE_RULE = "not test_codegen.py or rmsprop-"


def versions(row: Row) -> Callable[[nox.Session], None]:
    """The session of a row."""

    def run(session: nox.Session) -> None:
        session.chdir(ROOT)
        resolution = "lowest-direct" if row.name == OLDEST else "highest"
        pins = (f"{name}=={version}" for name, version in row.pins.items())
        session.install("--upgrade", "--resolution", resolution, "--editable", ".", *pins)
        session.install(*TOOLS)
        runs = (
            (["-m", "not gpu and not exhaustive", *([] if row.compiled else ["-k", ONE_RULE]), *FILES], {}),
            (["-m", "interpret and not gpu and not exhaustive", *INTERPRETED], {"TRITON_INTERPRET": "1"}),
        )
        outcomes = [f"{session.create_tmp()}/{k}.xml" for k, _ in enumerate(runs)]
        for outcome, (selected, env) in zip(outcomes, runs, strict=True):
            command = ("pytest", "-q", "--tb=short", "-n", "2", "--continue-on-collection-errors", f"--junitxml={outcome}", *selected)
            session.run("python", "-m", *command, env=env, success_codes=(0, 1))
        session.run("python", "-m", "bench.studies.versions", session.name, *outcomes)  # fails if a test did

    run.__doc__ = ", ".join(f"{name} {version}" for name, version in row.pins.items()) or f"the {row.name} of every dependency"
    return run


for row in ROWS:
    nox.session(versions(row), python=row.python, name=row.session)


class Recorded(NamedTuple):
    """The environment of a system's sessions: what is installed, and before that what it is built with."""

    packages: tuple[str, ...]
    python: str = "3.11"
    built_with: tuple[str, ...] = ()
    source: bool = False  # whether it is in no package, and where it is must be told


CHAINER = Recorded(("chainer==7.8.1", "numpy==1.23.5"), built_with=("setuptools<66", "wheel", "numpy==1.23.5"))
THEANO = Recorded(("Theano==1.0.5", "Lasagne==0.1", "numpy==1.23.5"), built_with=("setuptools<60", "wheel", "numpy==1.23.5"))
RECORDED = {
    "chainer": CHAINER,
    "jax": Recorded(("jax==0.10.2",)),
    "mlx": Recorded(("mlx[cpu]==0.32.4", "numpy")),
    "paddle": Recorded(("paddlepaddle==3.3.1", "setuptools")),
    "tensorflow": Recorded(("tensorflow-cpu==2.15.1",)),
    "mindspore": Recorded(("mindspore==2.10.0",)),
    "lasagne": THEANO,
    "theano": THEANO._replace(source=True),
    "blocks": THEANO._replace(source=True, packages=(*THEANO.packages, "six", "toolz", "picklable_itertools", "pyyaml")),
}


def recorded(system: str, environment: Recorded) -> Callable[[nox.Session], None]:
    """The session of a system."""

    def run(session: nox.Session) -> None:
        if environment.source and "--source" not in session.posargs:
            session.skip("say where it is: -- --check --source PATH")
        if environment.built_with:
            session.install(*environment.built_with)
        session.install(*environment.packages, *(["--no-build-isolation"] if environment.built_with else []))
        session.run("python", str(ROOT / "tests" / "recorded"), system, *(session.posargs or ["--check"]))

    run.__doc__ = ", ".join(environment.packages)
    return run


for system, environment in RECORDED.items():
    name = f"recorded-{system}"
    nox.session(recorded(system, environment), python=environment.python, name=name, tags=["recorded"], default=False)
