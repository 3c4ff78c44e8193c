"""Saving and loading checkpoints: whatever cuts a save off, there is one to go on from, and damage is seen."""

import functools
import itertools
import math
import os
import pathlib
import shutil
import subprocess

import pytest

from train_tools import checkpoint, flip, load_count, of_earlier_version, save_count
from training import checksums, parallel, resume


class Killed(Exception):
    pass


class Cut:
    """Saves to a folder, each of which may be cut off before or halfway through one of its renames, writes and removals."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.left = folder, math.inf
        for owner, name, halfway in (
            (pathlib.Path, "rename", lambda *_: None),
            (pathlib.Path, "write_text", lambda path, text: path.write_bytes(text.encode()[: len(text) // 2])),
            (checkpoint.shutil, "rmtree", self.remove_some),
        ):
            monkeypatch.setattr(owner, name, self.cutting(getattr(owner, name), halfway))
        self.first = True

    def remove_some(self, path) -> None:
        self.first = not self.first  # whichever a file system lists first
        files = sorted(pathlib.Path(path).glob("*"))
        for file in files[:1] if self.first else files[1:]:
            os.remove(file)

    def cutting(self, function, halfway):
        def called(*args, **kwargs):
            self.left -= 1
            if self.left < 0:
                halfway(*args)
                raise Killed
            return function(*args, **kwargs)

        return called

    def save(self, step: int, calls: float = math.inf, last=None) -> bool:
        """Whether a save was complete before so many calls."""
        self.left = calls
        try:
            save_count(self.folder, step, last)
        except (Killed, checkpoint.CheckpointException):
            return False
        finally:
            self.left = math.inf
        return True

    def load(self) -> tuple[pathlib.Path, int]:
        """The checkpoint that a resumed run loads, and its step."""
        found = resume.find(str(self.folder))
        value = load_count(found.folder)
        assert value == found.about["step"]
        return found.folder, value


def test_killed_at_any_time(tmp_path, monkeypatch):
    """A save that is cut off, after another that was, leaves what was saved last, or what it was to save, whole."""
    run = Cut(tmp_path, monkeypatch)
    with parallel.process_group():
        assert run.save(1)
        step = newest = 1
        undone = 0
        for calls in itertools.chain(*itertools.product(range(9), repeat=2)):
            step += 1
            last, _ = run.load()
            done = run.save(step, calls, last)
            undone += not done
            _, found = run.load()
            assert newest <= found <= step
            assert not done or found == step
            newest = found
    assert 81 < undone < 162  # some were not: a save has fewer parts


@pytest.mark.parametrize("name", ["__0_0.distcp", "run.json", "SHA256SUMS"])
def test_killed_after_damage(tmp_path, monkeypatch, name):
    """Until the run that goes on from the one before has saved, that one stays, and the damaged one is never taken for it."""
    run = Cut(tmp_path, monkeypatch)
    with parallel.process_group():
        assert run.save(1)
        assert run.save(2)
        for calls in range(9):
            flip(tmp_path / "checkpoint" / name)
            last, before = run.load()
            assert last == tmp_path / "checkpoint.old"
            done = run.save(10 + calls, calls, last)
            found = run.load()
            assert found in ((last, before), (tmp_path / "checkpoint", 10 + calls))
            assert not done or found != (last, before)
            assert run.save(20 + calls, last=found[0])
            assert resume.find(str(tmp_path / "checkpoint.old")).about["step"] == found[1]
    assert done


def test_foreign_checkpoints(tmp_path):
    with parallel.process_group():
        save_count(tmp_path, 5)
        of_earlier_version(tmp_path / "checkpoint")
        (data,) = (tmp_path / "checkpoint").glob("*.distcp")
        data.write_bytes(data.read_bytes()[:-100])
        with pytest.raises(ValueError, match=f"{tmp_path}.*damaged"):
            load_count(tmp_path / "checkpoint")
    for name in (".metadata", "run.json"):
        whole = (tmp_path / "checkpoint" / name).read_bytes()
        for content in (b"", whole[:-5], b"[]"):
            (tmp_path / "checkpoint" / name).write_bytes(content)
            with pytest.raises(ValueError, match=f"{tmp_path}.*not a checkpoint"):
                resume.find(str(tmp_path))
        (tmp_path / "checkpoint" / name).write_bytes(whole)
    assert resume.find(str(tmp_path / "checkpoint")).about["step"] == 5
    with pytest.raises(ValueError, match=f"{tmp_path.parent}.*no checkpoint"):
        resume.find(str(tmp_path.parent))


def test_checksums(tmp_path, monkeypatch):
    """Whatever bit of them is another, they are refused; so is a file that they do not list, or that only they know."""
    folder = tmp_path / "checkpoint"
    with parallel.process_group():
        save_count(tmp_path, 5)
    sums = folder / "SHA256SUMS"
    whole = sums.read_bytes()

    def refused(content: bytes, match: str = "SHA256SUMS") -> None:
        sums.write_bytes(content)
        with pytest.raises(ValueError, match=match):
            checksums.verify(folder)

    with monkeypatch.context() as patch:
        patch.setattr(checksums, "digest", functools.cache(checksums.digest))  # of files that stay as they are
        for index, bit in itertools.product(range(len(whole)), range(8)):
            refused(whole[:index] + bytes([whole[index] ^ 1 << bit]) + whole[index + 1 :])
        for size in range(len(whole)):
            refused(whole[:size])
    refused(whole + b"0" * 64 + b"  __1_0.distcp\n", r"__1_0\.distcp: it is missing")
    sums.write_bytes(whole)
    checksums.verify(folder)
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    (folder / "__1_0.distcp").touch()
    refused(whole, r"__1_0\.distcp: SHA256SUMS does not list it")
