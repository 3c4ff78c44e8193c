"""fusedrms doctor: what is installed, what each device gets, and whether it works."""

import argparse
import json
import os
import platform
import time
import warnings
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from ..engine.ownership.c_api import API
from ..engine.ownership.torch_words import WORDS, Words
from ..engine.tables import configs
from ..kernels import caches, devices, lang
from ..rmsprop import FusedRMSProp
from ..version import __version__
from . import files, tested

TOLERANCE = 1e-5


def self_test(device: torch.device) -> dict[str, Any]:
    """A few steps beside torch.optim.RMSprop's: the largest difference, and how long they took with compilation."""
    start = time.perf_counter()
    try:
        results = []
        for cls in (FusedRMSProp, torch.optim.RMSprop):
            generator = torch.Generator().manual_seed(0)
            params = [torch.nn.Parameter(torch.randn(n, generator=generator, device="cpu").to(device)) for n in (7, 1000, 20000)]
            optimizer = cls(params, centered=True, momentum=0.9)
            for _ in range(3):
                for param in params:
                    param.grad = torch.randn(param.shape, generator=generator, device="cpu").to(device)
                optimizer.step()
            results.append(torch.cat([param.detach() for param in params]).double().cpu())
        difference = float((results[0] - results[1]).abs().max())
        problem = None if difference < TOLERANCE else f"parameters differ from torch.optim.RMSprop by {difference}"
    except Exception as error:  # whatever is wrong with the machine is the answer
        problem = f"{type(error).__name__}: {error}"
    return dict(ok=problem is None, seconds=round(time.perf_counter() - start, 3), problem=problem)


def device_report(device: torch.device) -> dict[str, Any]:
    name = configs.device_name(device)
    found = []
    for file in configs.files(name):
        dropped = [{**key._asdict(), "problem": problem} for key, problem in configs.dropped(file, device).items()]
        found.append(dict(path=str(file.path), rows=len(file.rows), problem=file.problem, dropped=dropped))
    return dict(
        device=str(device),
        model=devices.model(device),
        target=devices.target(device),
        driver="Triton" if devices.uses_triton(device) else "Numba",
        configurations=found,
        looked_for=f"{name}.json",
        self_test=self_test(device),
    )


def advice(reports: list[dict[str, Any]]) -> list[str]:
    """What to do, a sentence each."""
    said = []
    if platform.system() == "Linux" and lang.triton is None:
        said.append("Triton is missing, so GPUs cannot be used: pip install triton")
    if lang.interpreted():
        said.append("TRITON_INTERPRET is set, so kernels run in Triton's interpreter, slowly: unset it")
    if torch.version.cuda is None and torch.version.hip is None and os.path.exists("/dev/nvidiactl"):
        said.append("this machine has an NVIDIA GPU, but this torch is built for CPUs: install one for CUDA, see pytorch.org")
    if not API.exchange:
        said.append("this torch has no DLPack C interface, so step() takes the host several times as long: use torch 2.10 or later")
    elif Words() == WORDS:
        said.append(
            "this torch is unknown to fusedrms, so step() asks DLPack about each tensor, which takes longer: look for a newer fusedrms"
        )
    user = configs.user_directory()
    if user is None:
        said.append(
            f"platformdirs is missing, so only {configs.ENVIRONMENT} is searched for tuned configurations: pip install platformdirs"
        )
    own = configs.own_directory()
    for directory in configs.directories():
        try:
            files.check_folder(directory)
        except OSError as error:
            named = f"{configs.ENVIRONMENT}={directory}" if directory == own else directory
            said.append(f"{named} cannot be searched for configurations ({error.strerror}): give a folder")
    for device in reports:
        target = device["target"] or ""
        if target.startswith("sm_") and int(target[3:]) < 80:
            said.append(f"{device['device']} is {target}: the kernels need sm_80 or later")
        for file in device["configurations"]:
            if file["problem"]:
                said.append(f"{file['path']} is ignored: {file['problem']}. Run fusedrms tune, or delete the file")
            for row in file["dropped"]:
                said.append(
                    f"{file['path']}, the row of {row['rule']}, {row['storage']}, {'aligned' if row['aligned'] else 'unaligned'}, "
                    f"{row['size']} is ignored: {row['problem']}. Run fusedrms tune, or delete the row"
                )
        if not any(file["rows"] > len(file["dropped"]) for file in device["configurations"]):
            kind = device["device"].partition(":")[0]
            said.append(f"{device['model']} runs with default configurations. To look for faster ones: fusedrms tune --device {kind}")
        if device["self_test"]["problem"]:
            said.append(
                f"the self-test failed on {device['device']}: install versions that were tested together, and report it if it still fails"
            )
    return [*said, *caches.unusable.values()]


def counted(file: dict[str, Any]) -> str:
    """The rows of a file in words."""
    wrong = len(file["dropped"])
    return f"{file['rows']} rows" + (f", {wrong} of which are ignored" if wrong else "")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace, console: Console) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of files that do not count: the table and the advice say so
        reports = [device_report(device) for device in (torch.device("cpu"), *devices.gpus())]
    versions = dict(
        fusedrms=__version__,
        **tested.installed(),
        cuda=torch.version.cuda,
        rocm=torch.version.hip,
        system=f"{platform.system()} {platform.machine()}",
        threads=torch.get_num_threads(),
    )
    compared = tested.report()
    said = advice(reports)
    failed = not all(device["self_test"]["ok"] for device in reports)
    if args.json:
        places = [str(directory) for directory in configs.directories()]
        print(json.dumps(dict(versions=versions, tested=compared, devices=reports, looked_in=places, advice=said), indent=1))
        return int(failed)
    console.print("  ".join(f"{name} {value}" for name, value in versions.items() if value is not None), highlight=False)
    console.print("; ".join(filter(None, (compared["said"], compared["remedy"]))), soft_wrap=True, highlight=False)
    shown = Table()
    for header in ("device", "model", "driver", "tuned configurations", "self-test"):
        shown.add_column(header, overflow="fold")
    for device in reports:
        found = [f"{file['path']}: {file['problem'] or counted(file)}" for file in device["configurations"]]
        test = device["self_test"]
        model = f"{device['model']} ({device['target']})" if device["target"] else device["model"]
        result = f"passed in {test['seconds']:.1f} s" if test["ok"] else f"FAILED: {test['problem']}"
        shown.add_row(device["device"], model, device["driver"], "\n".join(found) or f"none: {device['looked_for']}", result)
    console.print(shown)
    console.print("looked for tuned configurations in " + ", ".join(map(str, configs.directories())), soft_wrap=True, highlight=False)
    for sentence in said:
        console.print(f"• {sentence}", soft_wrap=True, highlight=False)
    return int(failed)
