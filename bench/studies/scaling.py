"""What an optimizer takes of each GPU of a training job, calculated from counts: docs/scaling.md.

python -m bench.studies.scaling --gpu b200 --parameters 70e9 --gpus 64    prints the figures of a job
python -m bench.studies.scaling --count                                   counts anew, for bench/results/scaling.json; takes minutes
python -m bench.studies.scaling --time                                    times the host anew, for the same file; wants a quiet machine
"""

import statistics
import sys
import time

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.common.arguments import RESULTS, make_parser, writing
from bench.common.machine import machine
from bench.common.store import dumped, load
from bench.studies.shards import GPUS, MODELS, RULE, USUAL, asked
from bench.timing.switches import without_launch
from fusedrms import FusedRMSProp
from fusedrms.tools import inspect
from fusedrms.tools.arguments import amount, whole
from fusedrms.tools.errors import UserError
from fusedrms.tools.files import write
from fusedrms.tools.machine_code import TARGETS
from fusedrms.tools.variants import MODES, RULES, make, parse_mode

COUNTS = RESULTS / "scaling.json"
NUMEL = 2**20
HOST_ROUNDS, HOST_REPEATS = 100, 5


def held(rule: str, mode: str, numel: int = NUMEL) -> dict[str, float]:
    """Bytes a parameter that memory() reports of an optimizer after its first step, whose launch is left out."""
    param = torch.nn.Parameter(torch.zeros(numel, dtype=parse_mode(mode)[0]))
    param.grad = torch.zeros_like(param)
    with without_launch():
        optimizer = make(rule, mode, [param])
        optimizer.step()
    return {name: round(n_bytes, 4) for name, n_bytes in optimizer.memory().per_parameter.items()}


class _Traffic(TorchDispatchMode):
    """Adds up what operators read and write: each tensor that one is given, and once more what it changes or makes; no single numbers."""

    n_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        changed = [value for argument, value in zip(func._schema.arguments, args, strict=False) if argument.is_write]
        for tensors in ((args, kwargs), (changed, made)):
            different = {id(tensor): tensor for tensor in tree_leaves(tensors) if isinstance(tensor, Tensor) and tensor.numel() > 1}
            self.n_bytes += sum(tensor.nbytes for tensor in different.values())
        return made


def foreach_moves(rule: str) -> float:
    """Bytes a parameter that torch's foreach RMSprop reads and writes in a step with a rule's options, in float32."""
    param = torch.nn.Parameter(torch.ones(NUMEL))
    param.grad = torch.ones_like(param)
    optimizer = torch.optim.RMSprop([param], foreach=True, **RULES[rule][1])
    optimizer.step()
    with _Traffic() as traffic:
        optimizer.step()
    return traffic.n_bytes / NUMEL


def host_us(n_tensors: int) -> float:
    """Median time of step() for so many DTensors of 64 elements with other gradients than before, the launch left out."""
    mesh = init_device_mesh("cpu", (1,))
    params, *grads = ([distribute_tensor(torch.randn(64), mesh, [Shard(0)]) for _ in range(n_tensors)] for _ in range(3))
    params, seconds = [torch.nn.Parameter(param) for param in params], []
    with without_launch():
        optimizer = FusedRMSProp(params)
        for _ in range(HOST_ROUNDS):
            grads.reverse()
            for param, grad in zip(params, grads[0], strict=True):
                param.grad = grad
            begin = time.perf_counter()
            optimizer.step()
            seconds.append(time.perf_counter() - begin)
    return round(statistics.median(seconds[3:]) * 1e6, 1)


def timed() -> dict:
    """Of the host."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # pyright: ignore[reportPrivateImportUsage]
    in_turn = [{str(model.n_tensors): host_us(model.n_tensors) for model in MODELS} for _ in range(HOST_REPEATS)]  # for a noisy machine
    dist.destroy_process_group()
    hosts = {n_tensors: min(times[n_tensors] for times in in_turn) for n_tensors in in_turn[0]}
    return dict(host={**machine(torch.device("cpu"), "python -m bench.studies.scaling --time"), "us": hosts})


def count() -> dict:
    found = {(row.rule, row.mode, row.target): row for row in inspect.rows(list(RULES), MODES, TARGETS)}
    modes = [
        dict(
            rule=rule,
            mode=mode,
            bytes=held(rule, mode),
            moved=found[rule, mode, TARGETS[0]].n_bytes,
            instructions={target: found[rule, mode, target].instructions for target in TARGETS},
        )
        for rule in RULES
        for mode in MODES
    ]
    moves = {rule: foreach_moves(rule) for rule, (cls, _) in RULES.items() if cls is FusedRMSProp}
    return {
        **machine(torch.device("cpu"), "python -m bench.studies.scaling --count"),
        "foreach_moves": moves,
        "modes": modes,
    }


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("bench.studies.scaling", __doc__)
    parser.add_argument("--gpu", type=str.lower, choices=list(GPUS), help=f"(default: {USUAL})")
    parser.add_argument("--parameters", type=amount, help="of the model (default: 70e9)")
    parser.add_argument("--gpus", type=whole, help="that share them (default: 64)")
    parser.add_argument("--rule", choices=list(RULES), help=f"(default: {RULE})")
    parser.add_argument("--count", dest="measure", action="store_const", const=count, help="count bytes and instructions anew; alone")
    parser.add_argument("--time", dest="measure", action="store_const", const=timed, help="time the host anew; alone")
    given = parser.parse_args(argv)
    gpu, numel, n_gpus, rule = others = given.gpu, given.parameters, given.gpus, given.rule
    if not given.measure:
        print("\n".join(asked(load(COUNTS), GPUS[gpu or USUAL], numel or 70e9, n_gpus or 64, rule or RULE)))
        return 0
    if any(value is not None for value in others):
        parser.error("--count and --time go alone: they are for all GPUs and rules")
    try:
        found = given.measure()
    except UserError as error:
        parser.error(f"--count: {error}")
    with writing(parser):
        write(COUNTS, dumped({**load(COUNTS), **found}, "modes"))
    print(f"wrote {COUNTS}; python -m bench.report --documents fills the tables")
    return 0


if __name__ == "__main__":
    sys.exit(main())
