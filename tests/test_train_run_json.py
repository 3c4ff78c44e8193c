"""A checkpoint whose files hold something else: a run that resumes it says what is wrong, and where."""

import json
import math
import os

import pytest

from train_tools import copy, of_earlier_version, refused, stopped_run, train
from training import settings

MISSING = object()
CHANGES = [  # where, what, what is said of it
    ("settings", None, "settings is None, not an object with layers, heads"),
    ("settings", [], "settings is [], not an object"),
    ("settings", "x", "settings is 'x', not an object"),
    ("settings", 3, "settings is 3, not an object"),
    ("settings", MISSING, "run.json has no settings"),
    ("settings more", 1, "settings has 'more', which this version does not know"),
    *((f"settings {name}", MISSING, f"settings has no {name}") for name in settings.SAVED.keys() - settings.ADDED),
    *((f"settings {name}", None, f"settings.{name} is None, not ") for name in settings.SAVED),
    *(
        (f"settings {name}", value, f"settings.{name} is {shown}")
        for name, rule in settings.SAVED.items()
        if rule.metavar == "N"
        for value, shown in (("1", "'1'"), (True, "True"), (1.0, "1.0"), (math.nan, "nan"), (-1, "-1"), (10**30, "10000"), ([1], "[1]"))
    ),
    *(
        ("settings lr", value, f"settings.lr is {shown}")
        for value, shown in (
            ("0.001", "'0.001'"),
            (True, "True"),
            (0, "0"),
            (-1.0, "-1.0"),
            (math.nan, "nan"),
            (math.inf, "inf"),
            (10**400, "1000"),
        )
    ),
    ("settings dtype", "float8", "settings.dtype is 'float8', not one of float32, bfloat16, float16"),
    ("settings dtype", 16, "settings.dtype is 16"),
    ("settings device", "tpu", "settings.device is 'tpu', not cpu, cuda or cuda:N"),
    ("settings device", 0, "settings.device is 0"),
    ("settings compare", 1, "settings.compare is 1, not true or false"),
    ("settings compare", "true", "settings.compare is 'true'"),
    ("settings heads", 3, "--width 16: must be a multiple of --heads 3"),
    ("settings layers", 2**31 - 1, "settings.layers is 2147483647, but the model beside it has 1"),
    ("settings width", 32, "settings.width is 32, but the model beside it has 16"),
    ("settings context", 10**9, "settings.context is 1000000000, but the model beside it has 16"),
    ("settings dtype", "float16", "settings.dtype is 'float16', but the model beside it has 'float32'"),
    ("settings compare", False, "settings.compare is False, but the model beside it has True"),
    ("settings steps", 2, "step is 3, not a whole number from 1 to 2"),
    *(("step", value, f"step is {value!r}, not a whole number from 1 to 12") for value in (999, 13, 0, -1, 3.0, True, "3", None, [3])),
    ("step", 2, "rows has 6 entries, not 4, which is 2 for each of 2 steps"),
    ("step", 4, "rows has 6 entries, not 8"),
    ("step", MISSING, "run.json has no step"),
    ("rows", MISSING, "run.json has no rows"),
    ("rows", None, "rows is None, not a list"),
    ("rows", {}, "rows is {}, not a list"),
    ("rows", [], "rows has 0 entries, not 6"),
    ("rows", [{}] * 7, "rows has 7 entries, not 6"),
    ("rows", [1] * 6, "rows[0] is 1, not an object with step, optimizer, train_loss"),
    ("rows 5", None, "rows[5] is None"),
    ("rows 2 lr", MISSING, "rows[2] has no lr"),
    ("rows 2 held_out_loss", MISSING, "rows[2] has no held_out_loss"),
    ("rows 2 more", 1, "rows[2] has 'more'"),
    ("rows 2 lr", "x", "rows[2].lr is 'x', not a number"),
    ("rows 2 train_loss", 10**400, "rows[2].train_loss is 10000"),
    ("rows 2 train_loss", True, "rows[2].train_loss is True, not a number"),
    ("rows 2 step", 1, "rows[2].step is 1, not 2"),
    ("rows 2 step", 2.0, "rows[2].step is 2.0, not 2"),
    ("rows 2 optimizer", "Adam", "rows[2].optimizer is 'Adam', not 'FusedRMSProp'"),
    ("format", 2, "run.json has 'format', which this version does not know"),
]


def changed(content: dict, where: str, what: object) -> dict:
    content = json.loads(json.dumps(content))
    *path, last = (int(part) if part.isdigit() else part for part in where.split())
    inner = content
    for part in path:
        inner = inner[part]
    if what is MISSING:
        del inner[last]
    else:
        inner[last] = what
    return content


def test_a_checkpoint_that_says_nonsense(tmp_path, capsys):
    """Valid JSON of wrong content: a sentence names the file, what is wrong in it, its value, and what to do."""
    copied = copy(stopped_run(), tmp_path)
    file = copied / "checkpoint" / "run.json"
    of_earlier_version(file.parent)
    whole = json.loads(file.read_text())
    for where, what, expected in CHANGES:
        file.write_text(json.dumps(changed(whole, where, what)))
        said = refused(copied, capsys)
        assert expected in said, said
        assert str(file.parent) in said
    for content in ("null", "[]", '"text"', "7", "NaN", "{}", "", "{", "[" * 100_000, "9" * 5000):
        file.write_text(content)
        assert "run.json" in refused(copied, capsys)
    file.write_bytes(b'"\xff"')
    assert "run.json" in refused(copied, capsys)


@pytest.mark.parametrize("name", ["run.json", ".metadata", "__0_0.distcp"])
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_checkpoint_of_other_things_than_files(tmp_path, capsys, name, make, earlier):
    copied = copy(stopped_run(), tmp_path)
    if earlier:
        of_earlier_version(copied / "checkpoint")
    file = copied / "checkpoint" / name
    file.unlink()
    make(file)
    assert f"{name}: it is no regular file" in refused(copied, capsys)


def test_a_checkpoint_of_another_step(tmp_path, capsys):
    copied = copy(stopped_run(), tmp_path)
    file = copied / "checkpoint" / "run.json"
    of_earlier_version(file.parent)
    about = json.loads(file.read_text())
    file.write_text(json.dumps({**about, "step": 2, "rows": about["rows"][:4]}))
    with pytest.raises(SystemExit, match="2"):
        train(["--resume", copied])
    assert f"{file}: step is 2, but the tensors beside it were saved after step 3" in capsys.readouterr().err
