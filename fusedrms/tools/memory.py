"""fusedrms memory: what each precision mode takes of each GPU of a training job, and what fits, beside other optimizers."""

import argparse
import json
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from . import files, models, plots
from .arguments import amount, whole
from .errors import UserError
from .footprint import Held, Row, mode, published, row, torch_ways
from .roofline import known
from .variants import FORM, MODES, OWN_RULE, RULES, check, words

RULE, GPU = "rmsprop", "h200"
USUAL = (
    "float32",
    "bfloat16+master",
    "bfloat16+split",
    "bfloat16+split+8bit",
    "bfloat16+split24+8bit",
    "bfloat16+split24+4bit",
    "bfloat16+stochastic+8bit",
    "bfloat16+stochastic+4bit",
)
MOST = 1e18  # parameters whose bytes torch counts
GB = 1e9

LEGEND = (
    "param to bytes: bytes for each parameter. GB: 10^9 bytes on the GPU that holds most. left: what is left there for activations, layers "
    "that FSDP2 gathers, fragmentation, CUDA and NCCL. largest: the largest model that all GPUs hold, in billions of parameters. All of it "
    "is calculated. torch's states are as this torch makes them; the optimizers below are as published: --json has the sources."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--parameters", type=amount, metavar="N", help="number of parameters of the model, such as 70e9")
    model.add_argument(
        "--config",
        type=files.place,
        metavar="FILE",
        help=f"config.json of a Hugging Face model, or its folder; model types: {', '.join(models.FAMILIES)}",
    )
    model.add_argument(
        "--shapes",
        type=models.parse,
        metavar="SHAPE,...",
        help="shapes of the parameters, such as 32000x4096,64*4096x4096: the scales of 8-bit states are exact then",
    )
    parser.add_argument(
        "--gpus", type=whole, default=1, metavar="N", help="GPUs that share parameters, gradients and states, as with FSDP2 (default: 1)"
    )
    gpu = parser.add_mutually_exclusive_group()
    gpu.add_argument("--gpu", type=str.lower, choices=list(known()), help=f"type of the GPUs (default: {GPU})")
    gpu.add_argument(
        "--memory", type=amount, metavar="BYTES", help="memory of each GPU for these, such as 60e9, instead of all that --gpu has"
    )
    parser.add_argument("--rule", default=RULE, help=f"update rule: {', '.join(RULES)} (default: {RULE}), {OWN_RULE}")
    parser.add_argument(
        "--mode",
        type=words,
        action="extend",
        metavar="MODE,...",
        help=f"precision modes: all, or each {FORM} (default: {', '.join(USUAL)})",
    )
    parser.add_argument(
        "--in-backward",
        action="store_true",
        help="count no gradients in the modes: fusedrms.apply_in_backward frees each as soon as it is used",
    )
    parser.add_argument("--output", type=files.place, metavar="FILE", help="also write a bar chart to this PNG file")


def _shapes(args: argparse.Namespace) -> models.Shapes:
    """UserError where there is no such model."""
    if args.config is not None:
        shapes = models.Config(args.config).shapes()
    else:
        shapes = args.shapes or Counter({(int(min(args.parameters, 2 * MOST)),): 1})
    if models.numel(shapes) > MOST:
        raise UserError(f"the model has {models.numel(shapes):.3g} parameters or more: give one of at most {MOST:g}")
    return shapes


def _bytes(value: float) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".") if value else ""


def _billions(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value / GB:,.0f}" if abs(value) >= 999.5 * GB else f"{value / GB:.3g}"


def table(rows: Sequence[Row]) -> Table:
    made = Table(box=box.SIMPLE_HEAD, padding=0)  # 80 columns hold it
    made.add_column(no_wrap=True)
    for header in ("param", "grad", "master", "state", "bytes", "GB", "left", "largest"):
        made.add_column(header, justify="right")
    kind = rows[0].way.kind
    for one in rows:
        if one.way.kind != kind:
            made.add_section()
            kind = one.way.kind
        each, left = one.per_parameter, _billions(one.left) if one.left >= 0 else "no fit"
        cells = (*map(_bytes, (*each, each.total)), _billions(one.held.total), left, _billions(one.largest))
        made.add_row(one.way.name, *cells, style=None if one.left >= 0 else "red")
    return made


def _json(one: Row) -> dict[str, Any]:
    return dict(
        name=one.way.name,
        kind=one.way.kind,
        bytes={**one.held._asdict(), "total": one.held.total},
        per_parameter={**one.per_parameter._asdict(), "total": one.per_parameter.total},
        left=one.left,
        fits=one.left >= 0,
        largest=one.largest,
        note=one.way.note,
        sources=one.way.sources,
    )


def plot(path: pathlib.Path, rows: Sequence[Row], memory: float, title: str) -> None:
    """Write a bar of each, and a line where the memory ends."""
    figure, axes = plots.figure(9, 1.5 + 0.32 * len(rows))
    names, begin = [one.way.name for one in rows], [0.0] * len(rows)
    for n, part in enumerate(Held._fields):
        sizes = [one.held[n] / GB for one in rows]
        axes.barh(names, sizes, left=begin, label=part)
        begin = [before + size for before, size in zip(begin, sizes, strict=True)]
    axes.axvline(memory / GB, color="black", linestyle="--", label=f"{memory / GB:g} GB")
    axes.invert_yaxis()
    axes.set(xlabel="GB a GPU", title=title)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize="small")
    plots.write(path, figure)


def run(args: argparse.Namespace, console: Console) -> int:
    modes = MODES if args.mode == ["all"] else USUAL if args.mode is None else args.mode
    check([args.rule], modes)
    shapes, gpu = _shapes(args), known()[args.gpu or GPU]
    memory = args.memory or gpu.memory
    ways = [*(mode(args.rule, name, args.in_backward) for name in modes), *torch_ways(args.rule), *published()]
    rows = [row(way, shapes, args.gpus, memory) for way in ways]
    name = f"{memory / GB:g} GB" if args.memory else f"{gpu.name}, {memory / GB:g} GB"
    title = f"{models.numel(shapes):,} parameters, {args.rule}, on {args.gpus:,} x {name}"
    if args.output is not None:
        plot(args.output, rows, memory, title)
    if args.json:
        job = dict(parameters=models.numel(shapes), gpus=args.gpus, gpu=None if args.memory else gpu.name, memory=memory, rule=args.rule)
        print(json.dumps({**job, "rows": list(map(_json, rows)), "plot": args.output and str(args.output)}, indent=1))
        return 0
    console.print(title, highlight=False, soft_wrap=True)
    console.print(table(rows), LEGEND, highlight=False)
    if args.output is not None:
        console.print(f"chart written to {args.output}", highlight=False, soft_wrap=True)
    return 0
