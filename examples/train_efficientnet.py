"""Train a small EfficientNet by its own recipe, and compare its parameters with their averages, which the optimizer keeps.

    python examples/train_efficientnet.py               # a minute or so on 2 CPU cores
    python examples/train_efficientnet.py --epochs 30 --device cuda

The images are drawn here, 32x32 pictures of ten shapes: nothing is downloaded. Each epoch prints what share of the held-out images
is told rightly with the parameters and with their averages.

The recipe is that of Tan and Le, arXiv:1905.11946, section 5.2: RMSProp with decay 0.9 and momentum 0.9, batch norm momentum 0.99,
weight decay 1e-5, and a learning rate of 0.256 that decays by 0.97 every 2.4 epochs. The rest is in the published code,
github.com/tensorflow/tpu, models/official/efficientnet: epsilon 0.001 (utils.py, build_optimizer), a rate of 0.016 for each 256 images of
a batch, so that 0.256 belongs to 4,096, averages of decay 0.9999 that warm up with the number of steps, label smoothing 0.1, no
decay of batch norm's weights (main.py), batch norm epsilon 0.001 and dropout 0.2 (efficientnet_builder.py). presets.efficientnet has the
rule, schedules.ExponentialDecay the schedule. Stochastic depth and augmentation are left out.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format
from torch.optim.swa_utils import update_bn

from fusedrms import presets
from fusedrms.schedules import ExponentialDecay
from fusedrms.tools.printing import plain_where_needed
from shapes import CLASSES, draw
from training.options import available
from training.settings import Rule, integer

BATCH_OF_RATE = 4096  # --lr is the rate for so many images in a step; that of a smaller batch is in proportion
WARMUP = 1.0  # epochs; scaled for a short run: the published code has 5, of 350
STATISTICS = 1024  # training images that batch norm's statistics are made of before an evaluation


def convolution(inputs: int, outputs: int, size: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution and its batch norm. Momentum is the share of the old statistics in TensorFlow, of the new ones in torch."""
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(outputs, eps=1e-3, momentum=1 - 0.99))


class MBConv(nn.Module):
    """Widen, convolve each channel by itself, scale channels by what squeeze-and-excitation finds, narrow; add where shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int, size: int = 3):
        super().__init__()
        width, squeezed = inputs * expand, max(1, inputs // 4)
        self.adds = stride == 1 and inputs == outputs
        self.widen = nn.Sequential(convolution(inputs, width), nn.SiLU()) if expand > 1 else nn.Identity()
        self.depthwise = nn.Sequential(convolution(width, width, size, stride, width), nn.SiLU())
        self.excite = nn.Sequential(nn.Conv2d(width, squeezed, 1), nn.SiLU(), nn.Conv2d(squeezed, width, 1), nn.Sigmoid())
        self.narrow = convolution(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.depthwise(self.widen(x))
        inner = self.narrow(inner * self.excite(inner.mean((2, 3), keepdim=True)))
        return x + inner if self.adds else inner


def efficientnet() -> nn.Sequential:
    """As EfficientNet-B0 begins, narrower and with fewer blocks: 32x32 images become 4x4."""
    return nn.Sequential(
        *(convolution(3, 16, 3, stride=2), nn.SiLU()),
        MBConv(16, 8, stride=1, expand=1),
        *(MBConv(8, 16, stride=2, expand=4), MBConv(16, 16, stride=1, expand=4)),
        *(MBConv(16, 32, stride=2, expand=4, size=5), MBConv(32, 32, stride=1, expand=4, size=5)),
        *(convolution(32, 128), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2)),
        nn.Linear(128, CLASSES),
    )


def groups(model: nn.Module) -> list[dict]:
    """Weight decay for all but batch norm's parameters."""
    norms = [p for module in model.modules() if isinstance(module, nn.BatchNorm2d) for p in module.parameters()]
    others = [p for module in model.modules() if not isinstance(module, nn.BatchNorm2d) for p in module.parameters(recurse=False)]
    return [dict(params=others, weight_decay=1e-5), dict(params=norms, weight_decay=0.0)]


@torch.no_grad()
def accuracy(model: nn.Module, train: Tensor, images: Tensor, labels: Tensor) -> float:
    """Share of the images that are told rightly, in percent.

    Batch norm's running statistics belong to the parameters of the last hundred steps, not to averages. A copy of the model makes its
    own, of some training images; where parameters are measured too, so that only the weights differ. The published code averages them.
    """
    model = copy.deepcopy(model)
    update_bn(train.split(256), model)
    model.eval()
    right = sum((model(x).argmax(1) == y).sum().item() for x, y in zip(images.split(256), labels.split(256), strict=True))
    return 100 * right / len(labels)


def train(args: argparse.Namespace) -> None:
    """Train, and print both accuracies after each epoch."""
    began = time.perf_counter()
    images, labels = (t.to(args.device) for t in draw(args.images, 2 * args.seed))
    held_out = tuple(t.to(args.device) for t in draw(max(1, args.images // 4), 2 * args.seed + 1))
    torch.manual_seed(args.seed)
    model = convert_conv2d_weight_memory_format(efficientnet().to(args.device), torch.channels_last)  # faster on a CPU
    optimizer = presets.efficientnet(
        groups(model),
        base_learning_rate=args.lr * 256 / BATCH_OF_RATE,
        moving_average_decay=args.ema_decay,  # warms up: below 0.9999 until step 90,000, so a short run averages about its last ninth
        train_batch_size=args.batch,
    )
    steps = len(images) // args.batch
    # In 350 epochs it falls to 0.012. In a short run it hardly falls, so that parameters stay restless, and averages make up for it.
    schedule = ExponentialDecay(optimizer, 2.4 * steps, 0.97, staircase=True, warmup_steps=int(WARMUP * steps))
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(images):,} images and {len(held_out[1]):,} held out")
    ahead, last = 0, (0.0, 0.0)
    for epoch in range(1, args.epochs + 1):
        model.train()
        for chosen in torch.randperm(len(images)).to(args.device).split(args.batch)[:steps]:
            F.cross_entropy(model(images[chosen]), labels[chosen], label_smoothing=0.1).backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        of_parameters = accuracy(model, images[:STATISTICS], *held_out)
        with optimizer.averaged():
            of_averages = accuracy(model, images[:STATISTICS], *held_out)
        ahead, last = ahead + (of_averages >= of_parameters), (of_parameters, of_averages)
        seconds = time.perf_counter() - began
        print(f"epoch {epoch:3}  parameters {of_parameters:6.2f}%  averages {of_averages:6.2f}%  {seconds:6.1f} s", flush=True)
    print(f"At the end: parameters {last[0]:.2f}%, averages {last[1]:.2f}%; averages at least as good in {ahead} of {args.epochs} epochs.")


def main(argv: list[str] | None = None) -> int:
    about = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=about, allow_abbrev=False)
    above_0 = Rule((float,), lambda x: 0 < x <= sys.float_info.max, "a finite number above 0", "LR")
    share = Rule((float,), lambda x: 0 <= x <= 1, "a number from 0 to 1", "D")
    for name, default, rule, meaning in (
        ("--epochs", 10, integer(1), "times that each image is seen"),
        ("--batch", 64, integer(1), "images in a step"),
        ("--images", 4096, integer(1), "images to train on; a quarter as many are held out"),
        ("--lr", 0.256, above_0, f"learning rate for {BATCH_OF_RATE:,} images in a step; that of --batch is in proportion"),
        ("--ema-decay", 0.9999, share, "decay of the averages, which warms up"),
        ("--seed", 0, integer(0), "of the images, the weights and the batches"),
    ):
        parser.add_argument(name, default=default, type=rule.parse, metavar=rule.metavar, help=f"{meaning} (default: {default})")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, type=available, help=f"cpu, cuda or cuda:N (default: {device})")
    args = parser.parse_args(argv)
    if args.batch > args.images:
        parser.error(f"--batch {args.batch}: must be at most --images {args.images}")
    train(args)
    return 0


if __name__ == "__main__":
    plain_where_needed(sys.stdout)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
