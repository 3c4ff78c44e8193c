"""The studies behind the documents' figures, each as its command runs it, but smaller."""

import functools
import json
import sys

import pytest

from fusedrms.kernels import lang

bits = pytest.importorskip("bench.studies.bits")
family = pytest.importorskip("bench.studies.family.__main__")
family_problems = pytest.importorskip("bench.studies.family.problems")
group_size = pytest.importorskip("bench.studies.group_size")

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(lang.interpreted(), reason="they train and compile for minutes there"),
]


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Runs a study; what it has written, whose table has been printed."""

    def run(study, name: str, *arguments: str) -> dict:
        monkeypatch.setattr(sys, "argv", [name, *arguments, "--output", str(tmp_path)])
        assert not study.main()
        results = json.loads((tmp_path / f"{name}.json").read_text())
        assert results["command"].startswith(f"python -m bench.studies.{name}")
        return results

    return run


def test_bits(written, monkeypatch):
    monkeypatch.setattr(bits, "MODES", ("float32", "float32+8bit"))
    monkeypatch.setattr(bits, "RULES", ("rmsprop", "smorms3"))
    monkeypatch.setattr(bits, "N", 500)
    values = written(bits, "bits")["values"]
    assert {row["value"] for row in values} > {"param", "square_avg", "mem"}
    assert all(0 <= row["differ"] <= 1 and row["off"] >= 0 for row in values)
    assert not any(row["off_at_worst"] for row in values if row["mode"] == "float32" and row["value"] == "square_avg")


def test_family(written, monkeypatch, tmp_path):
    for package in ("sklearn", "gymnasium"):
        pytest.importorskip(package)
    for name, small in dict(QUADRATIC_STEPS=120, EPOCHS=1, TICKS=80).items():
        monkeypatch.setattr(family_problems, name, small)
    results = written(family, "family", "--seeds", "1")
    groups = results["groups"]
    assert groups[0]["presets"][0][-1] == "torch_rmsprop"
    assert {"dqn2015", "dqn_zoo"} in [{name for names in group["presets"] for name in names} for group in groups]
    assert sorted(names for group in groups for names in group["presets"]) == family.equal_by_default()
    assert all(0 < group["quadratic"][0] < 1 and 0 < group["digits"][0] < 100 and 5 < group["cartpole"][0] < 100 for group in groups)
    assert (tmp_path / "family.png").stat().st_size > 1000


def test_group_size(written, monkeypatch):
    monkeypatch.setattr(group_size, "SIZES", (64, 256))
    monkeypatch.setattr(group_size, "states", functools.partial(group_size.states, steps=2))
    monkeypatch.setattr(group_size, "seconds", functools.cache(lambda size, timed=group_size.seconds: timed(128)))  # it compiles
    small, large = written(group_size, "group_size")["sizes"].values()
    assert (small["bytes"], large["bytes"]) == (1.0625, 1.015625)
    assert all(0 < small[key] < large[key] < 0.1 for key in ("square_avg", *group_size.SIGNED))
    assert 0 < small["seconds"] < 60
