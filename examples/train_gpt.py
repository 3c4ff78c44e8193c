"""Train a byte-level GPT on the standard library's sources with FusedRMSProp, beside torch.optim.RMSprop.

    python examples/train_gpt.py                        # under 3 minutes on 2 CPU cores
    python examples/train_gpt.py --layers 12 --heads 12 --width 768 --context 1024 --lr 3e-4 --dtype bfloat16
    python examples/train_gpt.py --resume               # continue the run saved last, bit for bit
    torchrun --standalone --nproc-per-node 2 examples/train_gpt.py --parallel fsdp

Both optimizers start from the same weights and take turns on the same batches. A run writes metrics.csv, stats.csv,
loss.png, update_ratios.png and checkpoint/ to runs/<time>/, and keeps the checkpoint before.
Ctrl-C finishes the step, saves and stops; a second Ctrl-C stops at once.
"""

from __future__ import annotations

import math
import sys

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from fusedrms import FusedRMSProp
from fusedrms.tools.printing import plain_where_needed, replace_missing
from gpt import GPT, batch, spread
from training.launch import launched
from training.learner import Learner
from training.parallel import all_gather, end_process, named_parameters, parallelize, shard
from training.run import Run

HELD_OUT_WINDOWS = 256


def rate(step: int, steps: int) -> float:
    """Learning-rate factor: linear warm-up, then a cosine down to a tenth."""
    warmup = math.ceil(steps / 10)
    if step < warmup:
        return (step + 1) / warmup
    return 0.55 + 0.45 * math.cos(math.pi * (step - warmup) / max(1, steps - warmup))


@torch.no_grad()
def evaluate(model: nn.Module, tokens: Tensor, targets: Tensor, size: int, device: torch.device) -> float:
    """Mean loss over all windows, about `size` at a time."""
    count = max(1, len(tokens) // size)  # equal in all processes, which may have to meet in each part
    parts = zip(shard(tokens).tensor_split(count), shard(targets).tensor_split(count), strict=True)
    total = sum(len(x) * model(x.to(device), y.to(device)).item() for x, y in parts)
    return all_gather([total]).sum().item() / len(tokens)


def train(run: Run) -> None:
    """Train a GPT with each optimizer: they start from the same weights and take turns on the same batches."""
    args, device = run.settings, run.device
    held_out = spread(run.held_out_text, max(HELD_OUT_WINDOWS, args.batch), args.context)
    # Squared gradients underflow in float16; the step hardly depends on the gradient's scale, so it is raised for good.
    scale, eps = (128, 1e-3) if args.dtype == "float16" else (1, 1e-8)

    learners = []
    for name in run.optimizers:
        torch.manual_seed(args.seed)
        model = GPT(args.layers, args.width, args.context, args.heads).to(device, getattr(torch, args.dtype))
        model = parallelize(model, run.parallel, device)
        if name == "FusedRMSProp":
            optimizer = FusedRMSProp(named_parameters(model), lr=args.lr, eps=eps, stats=run.stats)
        else:
            optimizer = torch.optim.RMSprop(model.parameters(), lr=args.lr, eps=eps)
        schedule = LambdaLR(optimizer, lambda step: rate(step, args.steps))
        learners.append(Learner(name, model, optimizer, schedule))
    run.begin(learners)  # with --resume, from their checkpoint

    with run.steps() as steps:
        for step in steps:
            tokens, targets = batch(run.train_text, args.seed, step, args.batch, args.context)
            tokens, targets = shard(tokens).to(device), shard(targets).to(device)
            metrics = []
            for learner in run.in_turn():
                lr = learner.schedule.get_last_lr()[0]
                loss = learner.model(tokens, targets)
                (loss * scale).backward()
                with learner.stopwatch as timed:
                    learner.optimizer.step()
                learner.schedule.step()
                learner.optimizer.zero_grad()
                metrics.append({"optimizer": learner.name, "train_loss": loss.item(), "optimizer_ms": 1e3 * timed.seconds, "lr": lr})
            run.log(metrics)
            if run.evaluation_is_due():
                for learner in learners:
                    run.log_held_out(learner, evaluate(learner.model, *held_out, args.batch, device))
            if run.checkpoint_is_due():
                run.save()


def main(argv: list[str] | None = None) -> int:
    with launched(__doc__, argv) as run:
        train(run)
        return run.finish()


if __name__ == "__main__":
    replace_missing()
    plain_where_needed(sys.stdout)
    end_process(main)
