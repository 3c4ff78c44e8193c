"""make dist: whatever happens to it, dist/ holds two files that passed all checks, or what it held before."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PATIENCE = 300  # seconds
# in place of a build of seconds and checks of minutes: two files of one word, and a check that looks at them after a while
STAND_IN = """
import os, pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # which tests that run in the background of a shell ignore
sys.path.insert(0, sys.argv[1])
import build_dist as b
root, word, how = pathlib.Path(sys.argv[2]), sys.argv[3], sys.argv[4]
b.ROOT, b.BUILD, b.DIST = root, root / "build", root / "dist"

def build(work):
    assert how == "beside" or [path.name for path in b.BUILD.glob("dist-*")] == [work.name], "nothing of other runs is there"
    (work / "built").mkdir()
    for name in ("wheel", "sdist"):
        (work / "built" / name).write_text(word)
    return work / "built"

def check(built):
    (root / f"checking-{word}").touch()
    while how == "waits" and not (root / "go").exists():
        time.sleep(0.01)
    if how == "fails":
        raise subprocess.CalledProcessError(1, "pytest")

b.build, b.check = build, check
sys.exit(b.main())
"""


def start(root: pathlib.Path, word: str, how: str = "passes") -> subprocess.Popen:
    command = [sys.executable, "-c", STAND_IN, ROOT / "tests/wheel", root, word, how]
    with open(root / f"said-{word}", "w") as said:
        return subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)


def wait_for(path: pathlib.Path) -> None:
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not come"
        time.sleep(0.01)


def held(root: pathlib.Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (root / "dist").iterdir()}


def both(word: str) -> dict[str, str]:
    return dict(wheel=word, sdist=word)


@pytest.fixture
def root(tmp_path) -> pathlib.Path:
    """With a dist/ of an earlier run, in which a file of another version lies, too."""
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist/older").write_text("older")
    return tmp_path


def test_all_of_dist_is_replaced(root):
    run = start(root, "one")
    assert run.wait(PATIENCE) == 0, (root / "said-one").read_text()
    assert held(root) == both("one")
    assert not list((root / "build").glob("dist-*"))


def test_a_check_that_fails_leaves_dist_as_it_was(root):
    run = start(root, "one", "fails")
    assert run.wait(PATIENCE) == 1
    assert "failed with status 1; dist/ is as it was" in (root / "said-one").read_text()
    assert held(root) == dict(older="older")
    assert not list((root / "build").glob("dist-*"))


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed(root, sent):
    """What it had built is not in dist/, and is gone after the next run."""
    run = start(root, "one", "waits")
    wait_for(root / "checking-one")
    os.kill(run.pid, sent)
    assert run.wait(PATIENCE) != 0
    assert held(root) == dict(older="older")
    again = start(root, "two")
    assert again.wait(PATIENCE) == 0, (root / "said-two").read_text()
    assert held(root) == both("two")
    assert not list((root / "build").glob("dist-*"))


WRITER = """
import os, pathlib, sys
folder = pathlib.Path(sys.argv[1])
while os.getppid() == int(sys.argv[2]):
    for n in range(1000):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / str(n)).touch()
"""


def test_what_a_killed_run_has_started_is_in_nobodys_way(root):
    """It still writes into the folder that the next run removes."""
    folder = root / "build/dist-killed/source"
    with subprocess.Popen([sys.executable, "-c", WRITER, folder, str(os.getpid())], stderr=subprocess.DEVNULL) as writer:
        try:
            wait_for(folder / "999")
            run = start(root, "one", "beside")
            assert run.wait(PATIENCE) == 0, (root / "said-one").read_text()
        finally:
            writer.kill()
    assert held(root) == both("one")


def test_two_at_once_go_one_after_the_other(root):
    first = start(root, "one", "waits")
    wait_for(root / "checking-one")
    second = start(root, "two")
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(3)
    assert not (root / "checking-two").exists()
    assert held(root) == dict(older="older")
    (root / "go").touch()
    assert (first.wait(PATIENCE), second.wait(PATIENCE)) == (0, 0), (root / "said-two").read_text()
    assert held(root) == both("two")


def test_without_a_repository(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tests/wheel")
    import build_dist

    monkeypatch.setattr(build_dist, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(SystemExit, match="it builds what git tracks, and there is no list of that: fatal: not a git repository"):
        build_dist.tracked()
