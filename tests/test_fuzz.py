"""Thousands of steps in random histories beside torch's optimizer, and the same where memory that was freed cannot be touched.

``FUZZ_STEPS=50000 pytest tests/test_fuzz.py`` makes so many in all, another selection each time; what fails names its seed.
"""

import os
import pathlib
import random
import signal
import subprocess
import sys

import pytest

pytest.importorskip("hypothesis")

import fuzz
from cuda_library import compiler
from fusedrms.engine.ownership import c_api, torch_words
from sample import exhaustive

TESTS = pathlib.Path(__file__).parent
ASKED = int(os.environ.get("FUZZ_STEPS", 0))
# parts, which pytest-xdist shares out, and the steps of each
PARTS, STEPS = 8, -(-max(ASKED, 4000) // 8)
GUARDED_PARTS, GUARDED_STEPS = 4, -(-max(ASKED // 4, 1000) // 4)


def parts(n: int) -> list:
    """The first runs in make test."""
    return [0, *map(exhaustive, range(1, n))]


# in place of what compares the tensors of a step with those that its tables were made for: all are taken to lie where they did
STALE = """
from fusedrms.engine.ownership.facts import Owned
from fusedrms.engine.ownership.snapshot import Snapshot

def own(self, lists, state):
    params = [param for each in lists for param in each]
    return Owned(params, [None] * len(self._keys), [params[k].grad for k in self._active], [])

Snapshot.own = own
"""


def seed(part: int) -> int:
    return random.SystemRandom().randrange(10**6) if ASKED else part


@pytest.fixture(scope="module")
def guard(tmp_path_factory) -> str:
    """The library that takes freed memory out of reach."""
    if sys.platform != "linux" or compiler() is None:
        pytest.skip("for glibc and a C compiler")
    library = tmp_path_factory.mktemp("guard") / "guard.so"
    subprocess.run([compiler(), "-O2", "-shared", "-fPIC", TESTS / "guard.c", "-o", library, "-lpthread"], check=True)
    return str(library)


def guarded(guard: str, code: str, *arguments: str) -> subprocess.CompletedProcess:
    """A Python program in which memory is guarded."""
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    environment = {**os.environ, "LD_PRELOAD": guard, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-X", "faulthandler", "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3600, check=False)


def history(done: subprocess.CompletedProcess) -> str:
    """What led to the end of a program: all that was done to the last optimizer, and where it ended."""
    return done.stderr[max(done.stderr.rfind("a new optimizer"), 0) :][-20_000:]


@pytest.mark.parametrize("part", parts(PARTS))
def test_steps(part, monkeypatch):
    if part % 2:  # a torch that keeps its tensors otherwise
        monkeypatch.setattr(torch_words, "WORDS", torch_words.Words())
    if part % 4 == 3:  # torch before 2.10 has no C interface
        monkeypatch.setattr(c_api, "API", c_api.API._replace(exchange=0))
    chosen = seed(part)
    print(f"seed {chosen}")  # which pytest shows if it fails
    assert fuzz.run(chosen, STEPS) >= STEPS


@pytest.mark.parametrize("part", parts(GUARDED_PARTS))
def test_steps_with_guarded_memory(guard, part):
    done = guarded(guard, "import fuzz; fuzz.main()", "--steps", str(GUARDED_STEPS), "--seed", str(seed(PARTS + part)))
    assert done.returncode == 0, history(done)
    assert int(done.stdout.split()[0]) >= GUARDED_STEPS


ACCESSES = {
    "sound": ("print(read(x.data_ptr()))", 0),
    "freed": ("address = x.data_ptr(); del x; read(address)", -signal.SIGSEGV),
    "moved": ("address = x.data_ptr(); x.share_memory_(); read(address)", -signal.SIGSEGV),
    "shared, freed": ("x.share_memory_(); address = x.data_ptr(); del x; read(address)", -signal.SIGSEGV),
    "beyond": ("read(x.data_ptr() + 32)", -signal.SIGSEGV),
    "written beside": ("ctypes.c_float.from_address(x.data_ptr() + 28).value = 0; del x", -signal.SIGABRT),
}


@pytest.mark.parametrize("access", ["sound", "freed", *map(exhaustive, [*ACCESSES][2:])])
def test_guard(guard, access):
    """Of a tensor of 28 bytes, whose block ends at a multiple of 16."""
    code, returncode = ACCESSES[access]
    begin = "import ctypes, torch; read = lambda address: ctypes.c_float.from_address(address).value; x = torch.ones(7)"
    assert guarded(guard, f"{begin}\n{code}").returncode == returncode


@pytest.mark.exhaustive
def test_stale_addresses_die(guard):
    """A comparison that always finds everything as it was: the guard shows it, and what was done before."""
    done = guarded(guard, f"{STALE}\nimport fuzz; fuzz.main()", "--steps", "100", "--seed", "0")
    assert done.returncode == -signal.SIGSEGV, history(done)
    assert "begin(" in history(done)
    assert "Segmentation fault" in history(done)
