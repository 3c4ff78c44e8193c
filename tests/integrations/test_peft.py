"""PEFT: LoRA adapters in Hugging Face's Trainer."""

import sys

import pytest
import torch

if sys.version_info < (3, 11):
    pytest.skip("transformers needs Python 3.11", allow_module_level=True)

from peft import LoraConfig, PeftModel, get_peft_model
from transformers import Trainer

from fusedrms import FusedRMSProp
from pages import run
from test_transformers import OPTIONS, STEPS, arguments, dataset, tiny

pytestmark = pytest.mark.filterwarnings("default")  # the trainers' own are theirs
LIMIT = 0.02  # of the norm, smaller than those of all steps
BOUND = STEPS * 2**-22  # weights below 1: a few roundings a step


def page() -> dict:
    return run("PEFT", {"clip_grad_norm=0.25": "clip_grad_norm=limit"}, model=tiny(), dataset=dataset(), limit=LIMIT)


def adapted() -> PeftModel:
    """The documents' adapters, as they are initialized there."""
    return get_peft_model(tiny(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))


def values(model: torch.nn.Module, trained: bool) -> torch.Tensor:
    return torch.cat([param.detach().flatten() for param in model.parameters() if param.requires_grad == trained])


def test_as_torch():
    ours = page()["adapted"]
    theirs = adapted()
    more = dict(gradient_accumulation_steps=1, max_grad_norm=LIMIT)
    Trainer(theirs, arguments(**more), train_dataset=dataset(), optimizer_cls_and_kwargs=(torch.optim.RMSprop, OPTIONS)).train()
    assert (values(ours, True) - values(theirs, True)).abs().max() < BOUND
    assert (values(ours, True) - values(adapted(), True)).abs().max() > 100 * BOUND


def test_resume():
    """Adapters and their states come back, bit for bit; what is frozen is neither trained nor has states."""
    names = page()
    whole, trainer = names["adapted"], names["trainer"]
    resumed = adapted()
    made = (FusedRMSProp, dict(OPTIONS, clip_grad_norm=LIMIT))
    Trainer(
        resumed, arguments(gradient_accumulation_steps=1, max_grad_norm=0), train_dataset=dataset(), optimizer_cls_and_kwargs=made
    ).train(resume_from_checkpoint="runs/lora/checkpoint-4")
    assert torch.equal(values(whole, True), values(resumed, True))
    assert torch.equal(values(whole, False), values(adapted(), False))
    assert set(trainer.optimizer.optimizer.state) == {param for param in whole.parameters() if param.requires_grad}
