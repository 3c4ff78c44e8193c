"""The tests that are most likely to differ by version, in an environment for each row of a table: make test-versions.

ARGS=--list names the rows, ARGS="--session NAME" runs one. Environments stay in .nox for the next run.

Other sessions hold systems, which cannot be where this project is, against what was recorded of them: make test-recorded.
"""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

import nox

ROOT = pathlib.Path(__file__).parent.parent

nox.options.default_venv_backend = "uv"  # it links what environments share, which is gigabytes
nox.options.download_python = "never"  # a row whose interpreter is missing is reported as skipped, and fails where CI is set
nox.options.envdir = str(ROOT / ".nox")
nox.options.reuse_venv = "yes"


class Row(NamedTuple):
    python: str
    torch: str
    triton: str  # the one that this torch asks for
    numba: str
    numpy: str
    compiled: bool = False  # whether all kernels are compiled and measured, which takes minutes, or those of one rule


ROWS = (
    Row("3.10", "2.9.0", "3.5.0", "0.61.0", "1.26.0", compiled=True),  # the oldest that pyproject.toml admits
    Row("3.11", "2.10.0", "3.6.0", "0.62.1", "2.2.6"),
    Row("3.12", "2.11.0", "3.6.0", "0.65.1", "2.4.6", compiled=True),
    Row("3.12", "2.12.0", "3.7.0", "0.67.0", "2.5.5"),
    Row("3.11", "2.13.0", "3.7.1", "0.68.1", "2.4.6", compiled=True),  # constraints.txt
    Row("3.13", "2.14.1", "3.8.0", "0.68.1", "2.5.5"),
    Row("3.13", "2.15.0", "3.9.0", "0.68.1", "2.5.5", compiled=True),
    Row("3.14", "2.15.0", "3.9.0", "0.68.1", "2.5.5"),
)
TOOLS = ("pytest", "pytest-xdist", "hypothesis", "expecttest")  # what these tests import of the extra test
NAMES = (
    *("codegen", "rounding", "quantize", "dropin", "checkpoint", "migrating", "torch_loaders", "state_dict", "seeds"),
    *("stale", "inplace", "ptx", "ptx_machine", "ptx_triton", "ptx_optimizer", "rule_tracing", "rule_check", "rule_first_step"),
)
FILES = [f"tests/test_{name}.py" for name in NAMES]
INTERPRETED = [f"tests/test_{name}.py" for name in ("rounding", "quantize", "ptx", "ptx_bits", "rule_tracing", "rule_check")]
ONE_RULE = "not test_codegen.py or rmsprop-"


def versions(row: Row) -> Callable[[nox.Session], None]:
    """The session of a row."""

    def run(session: nox.Session) -> None:
        session.chdir(ROOT)
        pins = (f"{name}=={getattr(row, name)}" for name in ("torch", "triton", "numba", "numpy"))
        session.install("--editable", ".", *pins, *TOOLS)
        runs = (
            (["-m", "not gpu and not exhaustive", *([] if row.compiled else ["-k", ONE_RULE]), *FILES], {}),
            (["-m", "interpret and not gpu and not exhaustive", *INTERPRETED], {"TRITON_INTERPRET": "1"}),
        )
        outcomes = [f"{session.create_tmp()}/{k}.xml" for k, _ in enumerate(runs)]
        for outcome, (selected, env) in zip(outcomes, runs, strict=True):
            command = ("pytest", "-q", "--tb=short", "-n", "2", "--continue-on-collection-errors", f"--junitxml={outcome}", *selected)
            session.run("python", "-m", *command, env=env, success_codes=(0, 1))
        session.run("python", "-m", "bench.studies.versions", session.name, *outcomes)  # fails if a test did

    run.__doc__ = f"Triton {row.triton}, Numba {row.numba}, NumPy {row.numpy}"
    return run


for row in ROWS:
    nox.session(versions(row), python=row.python, name=f"py{row.python}-torch{row.torch}")


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
