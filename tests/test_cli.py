"""The command fusedrms: what it prints for people and machines, and what it says of wrong arguments."""

import io
import json
import os
import pathlib
import subprocess
import sys

import pytest
import torch

import gpu
from fusedrms.engine.tables import configs
from fusedrms.kernels import devices, lang
from fusedrms.kernels.launch import CPUConfig, GPUConfig
from fusedrms.tools import bench, compile, doctor, files
from fusedrms.tools.cli import COMMANDS, main
from fusedrms.tools.variants import variant
from tools import on_full_disk

pytestmark = pytest.mark.skipif(lang.interpreted(), reason="the commands are about compiled kernels")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"example: {COMMANDS[command].example}" in shown


def test_bench_without_a_checkout(capsys, monkeypatch):
    monkeypatch.setattr(bench, "checkout", lambda: None)
    test_help_shows_an_example("bench", capsys)
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    assert "clone it, and there run pip install -e '.[bench]'" in " ".join(capsys.readouterr().out.split())
    assert main(["bench", "--quick"]) == 2
    assert f"fusedrms bench: {bench.MISSING}" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "it needs a checkout of the repository" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("tune --rules rmsprob", "'rmsprob' is unknown: take one of rmsprop"),
        ("tune --dtypes float8", "'float8' is not supported: it must be DTYPE[+OPTION...]"),
        ("tune --dtypes bfloat16+2bit", "'bfloat16+2bit'"),
        ("tune --dtypes bfloat16+split+master", "two options for the same thing"),
        ("tune --dtypes float16+split", "float16"),
        ("tune --rules rmsprop --dtypes float32", "--output"),
        ("tune --dtypes float64+8bit", "float64"),
        ("tune --rules ,", "at least one"),
        ("tune --sizes ,", "at least one"),
        ("tune --sizes tiny,huge", "--sizes tiny: give at least one of small, mixed, huge"),
        ("tune --budget 0", "--budget 0"),
        ("tune --budget nan", "--budget nan"),
        ("tune --output /dev/null/x", "--output"),
        (f"tune --output {'x' * 300}.json", "File name too long): name another place with --output"),
        ("compile --target sm_9x", "sm_9x"),
        ("compile --rules adam", "'adam'"),
        ("inspect --target sm_9x", "sm_9x"),
        ("inspect --rule adam", "adam"),
    ],
)
def test_wrong_arguments(arguments, said, capsys):
    assert main(arguments.split()) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.out == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("arguments", ["tune --device cuda", "compile --target cuda"])
def test_no_gpu(arguments, capsys):
    assert main(arguments.split()) == 2
    assert "no CUDA" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["tone"], ["doctor", "--fast"], ["tune", "--output", ""], ["inspect", "--asm", " "], ["bench", "--output", ""]]
)
def test_argparse_errors(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert ("names no place" in capsys.readouterr().err) == (len(arguments) == 3)


def test_doctor(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(configs, "directories", lambda: [tmp_path])
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    cpu = report["devices"][0]
    assert cpu["driver"] == "Numba"
    assert cpu["self_test"]["ok"]
    assert any("fusedrms tune --device cpu" in sentence for sentence in report["advice"])
    (tmp_path / cpu["looked_for"]).write_text("{")
    assert main(["doctor"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "self-test" in shown
    assert "is ignored" in shown


def test_doctor_names_rows_that_do_not_count(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(configs, "directories", lambda: [tmp_path])
    name = configs.device_name(torch.device("cpu"))
    key, path = configs.Key("rmsprop", "float32, float32, float32", True, "small"), tmp_path / f"{name}.json"
    rows = {key: configs.Row(CPUConfig(100, 1), 2.0, 1.0)}
    path.write_text(json.dumps({**configs.header(name), "rows": configs.to_json(rows)}))
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    (file,) = report["devices"][0]["configurations"]
    (row,) = file["dropped"]
    assert row["problem"].startswith("chunk 100: it takes a power of two")
    said = f"{path}, the row of rmsprop, float32, float32, float32, aligned, small is ignored: {row['problem']}"
    assert any(sentence.startswith(said) for sentence in report["advice"])
    assert any("runs with default configurations" in sentence for sentence in report["advice"])
    assert main(["doctor"]) == 0
    assert said in capsys.readouterr().out
    assert doctor.counted(file) == "1 rows, 1 of which are ignored"  # which the table folds somewhere


def test_doctor_says_where_nothing_can_be_found(capsys, tmp_path, monkeypatch):
    (tmp_path / "d.json").write_text("")
    monkeypatch.setenv(configs.ENVIRONMENT, str(tmp_path / "d.json"))
    monkeypatch.setattr(configs, "directories", lambda: [configs.own_directory(), tmp_path / "d.json" / "x", tmp_path / "none"])
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    said = [sentence for sentence in report["advice"] if "cannot be searched" in sentence]
    assert [sentence.partition(" cannot ")[0] for sentence in said] == [f"{configs.ENVIRONMENT}={tmp_path}/d.json", f"{tmp_path}/d.json/x"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("doctor", "runs with default configurations. To look for faster ones"),
        ("inspect --target cpu,sm_90 --rule rmsprop --mode float32", "occupancy"),
        ("compile --target cpu --rules rmsprop --dtypes float32", "1 kernels"),
        ("memory --parameters 1e9", "torchao AdamW4bit"),
        ("tune --device cpu --rules rmsprop --dtypes float32 --sizes mixed --budget 1e-9", "Launches, median us"),
    ],
)
def test_any_encoding(arguments, said, monkeypatch, tmp_path):
    """Where stdout knows no bullet, no frame and no Greek letter, plain characters stand for them."""
    if "sm_90" in arguments and lang.triton is None:
        pytest.skip("needs Triton")
    monkeypatch.setenv(configs.ENVIRONMENT, str(tmp_path))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert main(arguments.split()) == 0
    sys.stdout.flush()
    assert said in sys.stdout.buffer.getvalue().decode("ascii")


@pytest.mark.exhaustive
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_stdout_on_a_full_disk():
    with open("/dev/full", "w") as full:
        run = subprocess.run([sys.executable, "-m", "fusedrms", "doctor"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr.endswith("fusedrms doctor: [Errno 28] No space left on device\n")
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    "arguments", ["--version", "bench --help", "tune --rules rmsprob", "compile --target cpu --rules rmsprop --dtypes float32"]
)
@pytest.mark.parametrize("closed", [("stdout",), ("stderr",), ("stdout", "stderr")])
def test_closed_files(arguments, closed, monkeypatch):
    """Python has None for them, as in a daemon."""
    for name in closed:
        monkeypatch.setattr(sys, name, None)
    try:
        code = main(arguments.split())
    except SystemExit as stop:
        code = stop.code
    finally:
        opened = [getattr(sys, name) for name in closed]
    for file in opened:
        file.close()
    assert code == (2 if "rmsprob" in arguments else 0)


def test_doctor_fails_where_a_device_computes_nonsense(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "TOLERANCE", -1.0)
    assert main(["doctor", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["devices"][0]["self_test"]["ok"]
    assert any("self-test failed" in sentence for sentence in report["advice"])


def test_compile_here(capsys):
    assert main(["compile", "--target", "cpu", "--rules", "rmsprop,smorms3", "--dtypes", "float32", "--json"]) == 0
    assert [row["what"] for row in json.loads(capsys.readouterr().out)] == ["rmsprop, float32", "smorms3, float32"]


ASM = "inspect --target cpu --rule rmsprop --mode float32 --asm"


def test_code_on_a_full_disk(capsys, tmp_path, monkeypatch):
    """What was found is printed, and nothing half written."""
    monkeypatch.setattr(files, "write", on_full_disk(files.write))
    assert main([*ASM.split(), str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert "rmsprop" in shown.out
    assert f"{tmp_path}/rmsprop.float32.cpu.ll cannot be written (File too large): name another folder" in shown.err
    assert not os.listdir(tmp_path)


def test_code_where_pipes_are(capsys, tmp_path):
    os.mkfifo(tmp_path / "rmsprop.float32.cpu.s")
    assert main([*ASM.split(), str(tmp_path)]) == 2
    assert "rmsprop.float32.cpu.s cannot be written (it is not a regular file)" in capsys.readouterr().err
    os.mkfifo(tmp_path / "folder")
    assert main([*ASM.split(), str(tmp_path / "folder")]) == 2
    shown = capsys.readouterr()
    assert "folder cannot be written (Not a directory)" in shown.err
    assert not shown.out


@pytest.mark.gpu
def test_compile_on_a_gpu(capsys):
    """By steps of its own, at addresses that are aligned and not."""
    assert main(["compile", "--target", gpu.KIND, "--rules", "rmsprop", "--dtypes", "float32,bfloat16+8bit", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["what"].rpartition(", ")[2] for row in found] == ["aligned", "unaligned"] * 2 * gpu.module.device_count()


@pytest.mark.skipif(lang.triton is None, reason="needs Triton")
def test_compile_takes_what_launches_take(monkeypatch):
    """Of the configurations in files those that are in their ranges, beside the default."""
    one = variant("rmsprop", "float32")
    right, wrong = GPUConfig(1 << 14, 256, 1, 0, 0), GPUConfig(1 << 14, 100, 1, 0, 0)
    rows = {
        configs.Key("rmsprop", one.storage.label, True, "small"): configs.Row(wrong, 2.0, 1.0),
        configs.Key("rmsprop", one.storage.label, False, "small"): configs.Row(right, 2.0, 1.0),
    }
    monkeypatch.setattr(configs, "device_name", lambda device: "a GPU")
    monkeypatch.setattr(configs, "rows_for", lambda name: rows)
    monkeypatch.setattr(devices, "multiprocessors", lambda device: 132)
    found = [what.rpartition(", ")[2] for what, _ in compile.here([one], torch.device("cuda"))]
    assert found == ["aligned", "unaligned", "unaligned"]


@pytest.mark.skipif(lang.triton is None, reason="needs Triton")
def test_compile_for_a_gpu_that_is_not_here(capsys, tmp_path, monkeypatch):
    """A second process finds everything in the cache; no driver is left behind."""
    from triton.runtime import driver

    from fusedrms.kernels.gpu import count, norm, step

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    counts = []
    for _ in range(2):
        for kernel in (step.step_kernel, norm.squares_kernel, norm.norms_kernel, count.count_kernel):
            kernel.device_caches.clear()
        assert main(["compile", "--target", "sm_90", "--rules", "rmsprop", "--dtypes", "bfloat16+split+8bit"]) == 0
        counts.append(len(list(tmp_path.rglob("*.cubin"))))
    assert counts == [6, 6]  # aligned and unaligned, of steps and of squares; norms, counters
    assert "4 kernels" in capsys.readouterr().out
    assert driver._active is None


@pytest.mark.exhaustive
def test_console_script_and_module_are_the_same():
    script = pathlib.Path(sys.executable).parent / "fusedrms"
    commands = [[sys.executable, "-m", "fusedrms"], *([[str(script)]] if script.exists() else [])]
    for command in commands:
        run = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True, env=os.environ)
        assert run.stdout.startswith("fusedrms ")
