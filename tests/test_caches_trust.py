"""Numba's disk cache where others can write: it is not read."""

import grp
import os
import pwd
from types import SimpleNamespace

import pytest

from cache_tools import folder_fixture, in_new_process, one, said_fixture  # noqa: F401  fixtures
from fusedrms.kernels import caches


@pytest.mark.parametrize(
    ("which", "mode", "trusted"),
    [
        ("leaf", 0o777, False),
        ("leaf", 0o1777, False),
        ("named", 0o777, False),
        ("named", 0o1777, True),  # where nobody can replace another's folder
        ("nbi", 0o666, False),
        ("nbc", 0o666, False),
        ("leaf", 0o755, True),
        ("nbc", 0o644, True),
    ],
)
def test_others_can_write(folder, said, monkeypatch, which, mode, trusted):
    """It is not read: what lies there could be anything."""
    in_new_process()
    {"leaf": one(folder, "nbi").parent, "named": folder}.get(which, next(folder.rglob(f"*.{which}"), folder)).chmod(mode)
    assert [in_new_process(), in_new_process()] == [trusted] * 2
    assert len(said) == (not trusted)
    for warning in said:
        assert caches.TRUST in str(warning.message)
        assert str(folder) in str(warning.message)
    monkeypatch.setenv(caches.TRUST, "1")
    assert in_new_process()


@pytest.mark.parametrize(
    ("name", "members", "trusted"),
    [("her", [], True), ("her", ["her"], True), ("her", ["her", "him"], False), ("him", [], False), ("users", [], False)],
)
def test_the_group_can_write(folder, said, monkeypatch, name, members, trusted):
    """Fine where it is the user's alone, as umask 002 takes for granted."""
    in_new_process()
    monkeypatch.setattr(grp, "getgrgid", lambda gid: SimpleNamespace(gr_name=name, gr_mem=members))
    monkeypatch.setattr(pwd, "getpwnam", lambda name: SimpleNamespace(pw_uid=dict(her=os.geteuid(), him=54321)[name]))
    one(folder, "nbi").parent.chmod(0o775)
    assert in_new_process() == trusted
    assert len(said) == (not trusted)


def test_the_group_can_write_the_source_as_well(folder, said, monkeypatch):
    in_new_process()
    monkeypatch.setattr(grp, "getgrgid", lambda gid: SimpleNamespace(gr_name="users", gr_mem=[]))
    for path in (caches.SOURCE, one(folder, "nbi").parent):
        path.chmod(0o775)
    assert in_new_process()
    assert not said


def test_another_users(folder, said, monkeypatch):
    in_new_process()
    monkeypatch.setattr(caches, "_trusted", lambda source: {54321})
    assert not in_new_process()
    assert [f"belongs to user {os.geteuid()}" in str(warning.message) for warning in said] == [True]
