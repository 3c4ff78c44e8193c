"""Hugging Face's Trainer: accumulated gradients, a schedule, clipping, checkpoints."""

import math
import sys
from collections.abc import Iterable, Iterator

import pytest
import torch

if sys.version_info < (3, 11):
    pytest.skip("transformers needs Python 3.11", allow_module_level=True)

from accelerate.optimizer import AcceleratedOptimizer
from accelerate.scheduler import AcceleratedScheduler
from accelerate.utils import AutocastKwargs
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

from fusedrms import FusedRMSProp
from pages import distance, run, values

pytestmark = pytest.mark.filterwarnings("default")  # the trainers' own are theirs
STEPS = 8
OPTIONS = dict(lr=1e-3, eps=1e-5)
LIMIT = 0.25  # of the norm, as in the documents
BOUND = STEPS * 2**-22  # weights below 1 and the square roots: a few roundings a step


def tiny() -> LlamaForCausalLM:
    """Without biases: a key's has no gradient but rounding, which RMSProp would divide by itself."""
    torch.manual_seed(1)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=32
        )
    )


def dataset() -> list[dict[str, torch.Tensor]]:
    tokens = torch.randint(64, (80, 16), generator=torch.Generator().manual_seed(2))
    return [dict(input_ids=row, labels=row) for row in tokens]


class Norms(TrainerCallback):
    """Counts steps, and keeps what clip_grad_norm found."""

    def __init__(self):
        self.found: list[float] = []

    def on_optimizer_step(self, args, state, control, optimizer=None, **rest):
        self.found.append(optimizer.optimizer.last_grad_norm.item())


def arguments(**more) -> TrainingArguments:
    return TrainingArguments(
        "runs/other",
        **{**dict(max_steps=STEPS, save_strategy="no", gradient_accumulation_steps=2, report_to="none", disable_tqdm=True), **more},
    )


def page(model, norms=None) -> Trainer:
    """The documents' own run; a test adds what it watches by."""
    watch = {"train_dataset=dataset,": "train_dataset=dataset, callbacks=callbacks,"}
    return run("Hugging Face Trainer", watch, model=model, dataset=dataset(), callbacks=norms and [norms])["trainer"]


def test_as_torch():
    """Ours clips within the step, torch's run before it."""
    ours, theirs = tiny(), tiny()
    before, norms = values(ours), Norms()
    trainer = page(ours, norms)
    assert isinstance(trainer.optimizer.optimizer, FusedRMSProp)
    assert len(norms.found) == STEPS
    assert min(norms.found) > LIMIT  # all are clipped
    assert {float(state["step"]) for state in trainer.optimizer.optimizer.state.values()} == {STEPS}
    unclipped = tiny()
    for model, limit in (theirs, LIMIT), (unclipped, 0):
        made = (torch.optim.RMSprop, OPTIONS)
        Trainer(model, arguments(max_grad_norm=limit), train_dataset=dataset(), optimizer_cls_and_kwargs=made).train()
    assert distance(ours, theirs) < BOUND
    assert distance(ours, unclipped) > 10 * BOUND
    assert (values(ours) - before).abs().max() > 1000 * BOUND


def test_given_optimizer():
    ours, theirs = tiny(), tiny()
    for model, cls in (ours, FusedRMSProp), (theirs, torch.optim.RMSprop):
        Trainer(model, arguments(), train_dataset=dataset(), optimizers=(cls(model.parameters(), **OPTIONS), None)).train()
    assert distance(ours, theirs) < BOUND


def test_resume():
    """Also the schedule and the order of the data go on, bit for bit."""
    whole, resumed = tiny(), tiny()
    page(whole)
    norms = Norms()
    Trainer(
        resumed,
        arguments(max_grad_norm=0),
        train_dataset=dataset(),
        callbacks=[norms],
        optimizer_cls_and_kwargs=(FusedRMSProp, dict(OPTIONS, clip_grad_norm=LIMIT)),
    ).train(resume_from_checkpoint="runs/trainer/checkpoint-4")
    assert len(norms.found) == STEPS - 4
    assert torch.equal(values(whole), values(resumed))


def rounds(cls: type[torch.optim.Optimizer], factors: Iterable[float], unscale: bool) -> Iterator[tuple]:
    """A parameter, its optimizer, and accelerate's wrappers of optimizer and schedule, after each step."""
    param = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    optimizer = cls([param], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    accelerated = AcceleratedOptimizer(optimizer, device_placement=False, scaler=scaler)
    schedule = AcceleratedScheduler(schedule, accelerated)
    for factor in factors:
        scaler.scale((param**2 * factor).sum()).backward()
        if unscale:  # as accelerator.clip_grad_norm_
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_([param], 0.25)
        accelerated.step()
        schedule.step()
        accelerated.zero_grad()
        yield param.detach().clone(), optimizer, accelerated, schedule


@pytest.mark.parametrize("unscale", [False, True])
def test_accelerate_learns_of_a_step_left_out(unscale):
    """Then neither parameters nor counters nor the schedule go on; the scale is halved."""
    factors = [1.0, math.inf, 3.0, math.nan, 0.5]
    ours, theirs = (rounds(cls, factors, unscale) for cls in (FusedRMSProp, torch.optim.RMSprop))
    values, steps, rate = torch.tensor([1.0, -2.0, 3.0]), 0, 0.1
    for factor, (param, optimizer, accelerated, schedule), (other, _, reference, _) in zip(factors, ours, theirs, strict=True):
        finite = math.isfinite(factor)
        assert accelerated.step_was_skipped == reference.step_was_skipped == (not finite)
        assert torch.equal(param, values) == (not finite)
        torch.testing.assert_close(param, other, rtol=2**-21, atol=0)
        values, steps, rate = param, steps + finite, rate * 0.5**finite
        (state,) = optimizer.state.values()
        assert state["step"] == steps
        assert schedule.get_last_lr() == [rate]
        assert accelerated.scaler.get_scale() == reference.scaler.get_scale()


def test_without_accelerate_the_scale_is_left_to_the_step():
    param = torch.nn.Parameter(torch.ones(3))
    optimizer = FusedRMSProp([param])
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)  # which puts a step of its own in place, too
    for factor in 1.0, math.inf:
        optimizer.zero_grad()
        scaler.scale((param * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
    assert optimizer.skipped_steps == 1
    assert param.grad.isinf().all()  # nothing has divided it


class Scaled(Trainer):
    """With the loss scale of fp16=True, which takes a GPU, but in float32; one loss is infinite."""

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        ours = self.accelerator
        ours.native_amp, ours.state._mixed_precision, ours.autocast_handler = True, "fp16", AutocastKwargs(enabled=False)
        ours.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4)

    def compute_loss(self, *args, **kwargs):
        return super().compute_loss(*args, **kwargs) * (math.inf if self.state.global_step == 2 else 1.0)


@pytest.mark.parametrize("limit", [0, 1.0])
def test_trainer_learns_of_a_step_left_out(limit):
    """The model, the counters and the learning rate are those of torch's optimizer."""
    trainers = []
    for cls in FusedRMSProp, torch.optim.RMSprop:
        trainer = Scaled(tiny(), arguments(max_grad_norm=limit), train_dataset=dataset(), optimizer_cls_and_kwargs=(cls, OPTIONS))
        trainer.train()
        trainers.append(trainer)
    ours, theirs = trainers
    assert {float(state["step"]) for state in ours.optimizer.optimizer.state.values()} == {STEPS - 1}
    assert ours.lr_scheduler.get_last_lr() == theirs.lr_scheduler.get_last_lr() != [0.0]
    assert distance(ours.model, theirs.model) < BOUND
