"""What fusedrms doctor says of the installed versions."""

import json

import pytest

from fusedrms.tools import doctor, tested
from fusedrms.tools.cli import main

ROW = dict(date="2026-01-02", passed=7)
TABLE = [
    dict(row="a", python="3.10.13", torch="2.9.0", triton="3.5.0", numba="0.61.0", numpy="1.26.0", **ROW),
    dict(row="b", python="3.11.7", torch="2.13.0+cpu", triton="3.7.1", numba="0.68.1", numpy="2.4.6", **ROW),
    dict(row="c", python="3.13.0", torch="2.14.1", triton="3.8.0", numba="0.68.1", numpy="2.5.5", **ROW),
]
SAME = dict(python="3.11.9", torch="2.13.0+cu130", triton="3.7.1", numba="0.68.1", numpy="2.4.6")  # as row b has it
PINS_B = "pip install torch==2.13.0 triton==3.7.1 numba==0.68.1 numpy==2.4.6"
CASES = {
    "each tested": (dict(numpy="2.5.5"), {}, "each of these versions was tested, but not all of them together", PINS_B),
    "newer torch": (dict(torch="2.16.0"), dict(torch=tested.NEWER), "torch 2.16.0 is newer than tested, whose newest is 2.14.1", PINS_B),
    "older torch": (dict(torch="2.8.1"), dict(torch=tested.OLDER), "torch 2.8.1 is older than tested, whose oldest is 2.9.0", PINS_B),
    "between": (dict(numba="0.65.1"), dict(numba=tested.BETWEEN), "Numba 0.65.1 is between tested versions", PINS_B),
    "development": (dict(torch="2.15.0.dev20260901+cpu"), dict(torch=tested.NEWER), "torch 2.15.0.dev20260901+cpu is newer", PINS_B),
    "candidate": (dict(torch="2.13.0rc1"), dict(torch=tested.BETWEEN), "torch 2.13.0rc1 is between", PINS_B),
    "ten after nine": (dict(triton="3.10.0"), dict(triton=tested.NEWER), "Triton 3.10.0 is newer", PINS_B),
    "no numbers": (dict(numpy="unknown"), dict(numpy=tested.OLDER), "NumPy unknown is older", PINS_B),
    "no Triton": (dict(triton=None), dict(triton=tested.ABSENT), "Triton is absent", PINS_B.replace(" triton==3.7.1", "")),
    "newer Python": (dict(python="3.15.0a1"), dict(python=tested.NEWER), "Python 3.15.0a1 is newer", f"in Python 3.11: {PINS_B}"),
    "two": (dict(torch="2.8", numpy="1.2"), dict(torch=tested.OLDER, numpy=tested.OLDER), "; NumPy 1.2 is older than tested", PINS_B),
}


@pytest.mark.parametrize(("others", "statuses", "said", "remedy"), CASES.values(), ids=CASES)
def test_versions_that_were_not_tested_together(others, statuses, said, remedy):
    found = tested.report(SAME | others, TABLE)
    assert found["combination"] is None
    assert {name: one["status"] for name, one in found["packages"].items() if one["status"] != tested.TESTED} == statuses
    assert said in found["said"]
    assert found["remedy"].endswith(remedy)


def test_versions_that_were_tested_together():
    found = tested.report(SAME, TABLE)
    assert (found["combination"], found["remedy"]) == ("b", None)
    assert found["said"] == "tested with these versions on 2026-01-02: 7 tests passed"
    assert found["packages"]["torch"] == dict(installed="2.13.0+cu130", status=tested.TESTED, oldest="2.9.0", newest="2.14.1")


def test_the_remedy_keeps_python_and_comes_near_to_torch():
    assert tested.nearest(SAME | dict(python="3.13.2", torch="2.9.0"), TABLE)["row"] == "c"
    assert tested.nearest(SAME | dict(python="3.12.1", torch="2.13.5"), TABLE)["row"] == "b"
    assert tested.nearest(SAME | dict(python="3.12.1", torch="2.8.0"), TABLE)["row"] == "a"


def test_rows_that_failed_do_not_count(tmp_path, monkeypatch):
    path = tmp_path / "versions.json"
    path.write_text(json.dumps(dict(rows=[dict(row="a", failed=1), dict(row="b", failed=0)])))
    monkeypatch.setattr(tested, "VERSIONS", path)
    assert [row["row"] for row in tested.rows()] == ["b"]


def test_doctor_says_it(capsys, monkeypatch):
    """Of the table that comes with the package, and of versions that are in no table yet."""
    monkeypatch.setattr(doctor, "device_report", lambda device: dict(device="cpu", model="m", target=None, driver="Numba", **REPORT))
    newest = tested.rows()[-1]
    versions = {name: newest[name] for name in tested.NAMES}
    for torch, combination in ((newest["torch"], newest["row"]), ("99.0", None)):
        monkeypatch.setattr(tested, "installed", lambda torch=torch: versions | dict(torch=torch))
        assert main(["doctor", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["tested"]["combination"] == combination
        assert found["versions"]["torch"] == torch
        assert main(["doctor"]) == 0
        shown = capsys.readouterr().out
        assert found["tested"]["said"] in shown
        assert ("pip install torch==" in shown) == (combination is None)


REPORT = dict(configurations=[], looked_for="m.json", self_test=dict(ok=True, seconds=0.1, problem=None))
