"""Hugging Face's Trainer: accumulated gradients, a schedule, clipping, checkpoints."""

import sys

import pytest
import torch

if sys.version_info < (3, 11):
    pytest.skip("transformers needs Python 3.11", allow_module_level=True)

from accelerate.optimizer import AcceleratedOptimizer
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


def test_accelerate_is_not_told_of_a_step_left_out():
    param = torch.nn.Parameter(torch.ones(3))
    optimizer = FusedRMSProp([param])
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    accelerated = AcceleratedOptimizer(optimizer, device_placement=False, scaler=scaler)
    for factor in (1.0, float("inf")):
        before = param.detach().clone()
        scaler.scale((param * factor).sum()).backward()
        accelerated.step()
        accelerated.zero_grad()
        assert torch.equal(param, before) == (factor != 1)
        assert not accelerated.step_was_skipped
    assert optimizer.skipped_steps == 1
    assert scaler.get_scale() == 1
