"""Files of configurations: whatever is in them or in their place does no harm, however many write them."""

import json
import multiprocessing
import os
import random
import signal
import time

import pytest
import torch

from config_tools import CPU, KEY, OTHER, STORAGE, chosen, content, write
from fusedrms import FusedRMSProp
from fusedrms.engine.tables import configs
from fusedrms.engine.tables.configs import Row
from fusedrms.kernels import launch
from fusedrms.kernels.launch import GPUConfig
from fusedrms.tools import tune
from fusedrms.tools.errors import UserError
from tools import copy_grads, parameters, random_grads, twins

pytestmark = pytest.mark.usefixtures("config_folders")


HOSTILE = [None, [], {}, "", "x" * 1000, -1, 0, 3, 2**31, 10**30, 1e308, float("nan"), float("inf"), True, [[]], {"chunk": 1}, "\ud800"]


def damaged(rng: random.Random) -> str | bytes:
    """A file that something has happened to."""
    whole = content(OTHER._replace(chunk=1 << rng.randrange(40)))
    kind = rng.randrange(5)
    if kind == 0:
        text = json.dumps(whole)
        return text[: rng.randrange(len(text))]
    if kind == 1:
        text = bytearray(json.dumps(whole).encode())
        for _ in range(rng.randrange(1, 9)):
            text[rng.randrange(len(text))] = rng.randrange(256)
        return bytes(text)
    if kind == 2:
        whole[rng.choice(list(whole))] = rng.choice(HOSTILE)
    elif kind == 3:
        row = whole["rows"][0]
        row[rng.choice([*row, "more"])] = rng.choice(HOSTILE)
    else:
        config = whole["rows"][0]["config"]
        config[rng.choice([*config, "more"])] = rng.choice(HOSTILE)
    return json.dumps(whole)


@pytest.mark.filterwarnings("ignore:.* is ignored, :UserWarning")
def test_damaged_files(tmp_path):
    """Whatever a file says, reading it raises nothing, and what is launched is valid and computes the same."""
    rng = random.Random(0)
    start = parameters([(100,), (5000,)])
    random_grads(start)
    expected = twins(start)
    copy_grads(start, expected)
    FusedRMSProp(expected).step()
    fates = set()
    for n in range(200):
        text = damaged(rng)
        write(tmp_path / "own", "").write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        config = chosen()
        assert launch.is_valid(config, STORAGE)
        fates.add(config == launch.default_config(CPU, STORAGE))
        if n % 10 == 0:
            params = twins(start)
            copy_grads(start, params)
            FusedRMSProp(params).step()
            assert all(torch.equal(p, q) for p, q in zip(params, expected, strict=True))
    assert fates == {True, False}  # some only lost what does not matter


@pytest.mark.filterwarnings("ignore:.* is ignored, :UserWarning")
def test_no_file(tmp_path):
    path = tmp_path / "own" / f"{configs.device_name(CPU)}.json"
    default = launch.default_config(CPU, STORAGE)
    path.mkdir()
    assert chosen() == default
    path.rmdir()
    os.mkfifo(path)
    assert chosen() == default
    path.unlink()
    path.symlink_to(path)
    assert chosen() == default
    path.unlink()
    path.write_text("[" * 100_000)
    assert chosen() == default
    path.write_bytes(b" " * (configs.MOST_BYTES + 1))
    assert chosen() == default


def test_dropped_rows_are_named(tmp_path):
    """What no launch takes, and each value that is out of range."""
    wrong = {
        OTHER._replace(chunk=100): "chunk 100: it takes a power of two from 64 to",
        OTHER._replace(min_work=0): "min_work 0: it takes from 1 to",
        GPUConfig(1 << 14, 256, 1, 0, 0): "chunk, threads, vectors, programs, registers: it takes chunk, min_work there",
    }
    keys = [KEY._replace(size=str(n)) for n in range(len(wrong))]
    odd = KEY._replace(storage="float33")
    rows = {
        KEY: Row(OTHER, 2.0, 1.0),
        odd: Row(OTHER, 2.0, 1.0),
        **{key: Row(config, 2.0, 1.0) for key, config in zip(keys, wrong, strict=True)},
    }
    path = write(tmp_path / "own", content(rows=configs.to_json(rows)))
    found = configs.dropped(configs.read(path, configs.device_name(CPU)), CPU)
    assert list(found) == [odd, *keys]
    for problem, expected in zip(found.values(), ["'float33' is no label", *wrong.values()], strict=True):
        assert expected in problem


def _save(path, number, n):
    for k in range(n):
        tune.save(path, configs.header(configs.device_name(CPU)), {KEY._replace(rule=f"rule {number} {k}"): Row(OTHER, 1.0, 1.0)})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_many_writers(tmp_path):
    path = tmp_path / "file.json"
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=_save, args=(path, number, 5)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    file = configs.read(path, configs.device_name(CPU))
    assert file.problem is None
    assert len(file.rows) == 40


@pytest.mark.exhaustive
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_killed_writers(tmp_path):
    path, rng, before = tmp_path / "file.json", random.Random(0), 0
    for number in range(50):
        writer = multiprocessing.get_context("fork").Process(target=_save, args=(path, number, 10**6))
        writer.start()
        time.sleep(rng.uniform(0.01, 0.06))
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        if path.exists():
            file = configs.read(path, configs.device_name(CPU))
            assert file.problem is None
            assert len(file.rows) >= before
            before = len(file.rows)
            if before > 500:
                path.unlink()
                before = 0
    assert len(list(tmp_path.glob("file*"))) <= 3  # the file, its lock, what a killed one was about to write


def test_stale_rows_go_when_new_ones_are_saved(tmp_path):
    path = write(tmp_path / "own", content(kernels="0" * 16))
    tune.save(path, configs.header(configs.device_name(CPU)), {KEY._replace(size="huge"): Row(OTHER, 1.0, 1.0)})
    assert [key.size for key in configs.read(path, configs.device_name(CPU)).rows] == ["huge"]


@pytest.mark.parametrize("kind", ["nothing", "folder", "file", "pipe", "below a file"])
def test_environment_names_a_folder(tmp_path, monkeypatch, kind):
    """Whatever its name: what is written is what is read, or there is an error."""
    own = tmp_path / "d.json"
    if kind == "folder":
        own.mkdir()
    elif kind == "pipe":
        os.mkfifo(own)
    elif kind != "nothing":
        own.write_text("mine")
    own = own / "x" if kind == "below a file" else own
    monkeypatch.setenv(configs.ENVIRONMENT, str(own))
    if kind in ("nothing", "folder"):
        assert tune.destination(None, "name") == configs.own_directory() / "name.json"
        return
    with pytest.raises(UserError, match=rf"{configs.ENVIRONMENT}={own} must be a folder: .*Not a directory.*--output"):
        tune.destination(None, "name")
    assert kind == "pipe" or (tmp_path / "d.json").read_text() == "mine"


@pytest.mark.parametrize("name", ["file.json", "file.json.lock", "folder"])
def test_pipes_are_refused(tmp_path, name):
    """In the place of the file, of its lock, of its folder: opening one would wait for ever."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=rf"{tmp_path / name} cannot be written \((it is not a regular file|Not a directory)\): .*--output"):
        tune.destination(tmp_path / ("folder/file.json" if name == "folder" else "file.json"), "name")
    assert set(os.listdir(tmp_path)) == {name, "own", "user"}


def test_a_pipe_that_comes_later(tmp_path):
    path, head = tmp_path / "file.json", configs.header(configs.device_name(CPU))
    os.mkfifo(path)
    with pytest.raises(OSError, match="it is not a regular file"):
        tune.save(path, head, {})
    path.unlink()
    os.mkfifo(tmp_path / ".file.json.x.tmp")
    tune.save(path, head, {KEY: Row(OTHER, 1.0, 1.0)})
    assert sorted(os.listdir(tmp_path)) == ["file.json", "file.json.lock", "own", "user"]
