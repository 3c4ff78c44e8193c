"""The command line of train_gpt.py."""

from __future__ import annotations

import argparse
from typing import Any

import torch

from fusedrms.tools.files import place
from training.settings import SETTINGS, integer

TIMEOUT = 600


def available(device: str) -> str:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    allowed = ["cpu", *["cuda"][:count], *(f"cuda:{index}" for index in range(count))]
    if device not in allowed:
        raise argparse.ArgumentTypeError(f"{device!r} is not available here; this machine offers {', '.join(allowed)}")
    return device


def parser(about: str | None) -> argparse.ArgumentParser:
    """Options left out stay out of the result, so that a resumed run can tell them from those given."""
    result = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, argument_default=argparse.SUPPRESS
    )

    for name, (default, meaning, rule) in SETTINGS.items():
        kind: dict[str, Any] = dict(type=available if name == "device" else rule.parse, metavar=rule.metavar)
        if rule.types == (bool,):
            kind = dict(action=argparse.BooleanOptionalAction)
        result.add_argument("--" + name.replace("_", "-"), help=f"{meaning} (default: {default})", **kind)
    result.add_argument(
        "--parallel",
        choices=("ddp", "fsdp"),
        help="share each step among the processes that torchrun started: each holds the whole model (DistributedDataParallel), "
        "or a part of each block (fully_shard). The losses are those of one process, to rounding",
    )
    result.add_argument("--stop-at", type=integer(1).parse, metavar="N", help="save and stop after this step, to be resumed later")
    result.add_argument(
        "--timeout", type=integer(1).parse, metavar="N", help=f"seconds to wait for processes that do not answer (default: {TIMEOUT})"
    )
    result.add_argument("--output", type=place, metavar="FOLDER", help="new or empty folder to write to (default: runs/<time>)")
    result.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="PATH",
        help="continue the run in this folder (default: the one in runs/ saved last), with its settings; only --save-every, "
        "--stats, --stop-at, --timeout, --device, --parallel and the number of processes may be others. With the same machine, software, "
        "--parallel and number of processes and threads, the result equals bit for bit that of a run never stopped. If "
        "a file of its checkpoint is damaged, it goes on from the one before, checkpoint.old; "
        "where a checkpoint's own folder is named, only from that one",
    )
    return result
