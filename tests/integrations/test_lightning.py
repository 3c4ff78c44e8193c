"""Lightning: fit, mixed precision with a loss scale, clipping, checkpoints; and Fabric."""

import lightning
import pytest
import torch
from lightning.fabric.plugins import MixedPrecision as FabricMixedPrecision
from lightning.pytorch.plugins import MixedPrecision

from fusedrms import FusedRMSProp
from pages import distance, run, values

pytestmark = pytest.mark.filterwarnings("default")  # the trainers' own are theirs
STEPS = 10  # of two epochs
OPTIONS = dict(lr=1e-3, eps=1e-5)
BOUND = STEPS * 2**-22  # weights below 1 and the square roots: a few roundings a step
HALF_BOUND = STEPS * 2**-11 * 10 * OPTIONS["lr"]  # updates are 10 lr at most; weights that differ by rounding may round apart in float16
QUIET = dict(
    accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False
)


def loader() -> torch.utils.data.DataLoader:
    generator = torch.Generator().manual_seed(2)
    inputs, labels = torch.randn(40, 16, generator=generator), torch.randint(4, (40,), generator=generator)
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(inputs, labels), batch_size=8)


def page():
    """The documents' own run."""
    torch.manual_seed(1)
    return run("Lightning", {"max_epochs=2": "**quiet"}, loader=loader(), quiet=QUIET)


@pytest.fixture
def ours() -> dict:
    return page()


def module(names: dict, cls=FusedRMSProp, **options) -> lightning.LightningModule:
    """The documents' module, as it is initialized there, with another optimizer."""
    torch.manual_seed(1)
    made = names["Classifier"]()
    made.configure_optimizers = lambda: cls(made.parameters(), **OPTIONS, **options)
    return made


def half() -> MixedPrecision:
    """What precision="16-mixed" is on a GPU; on CPUs Lightning would take bfloat16, without a scale."""
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**10))


def test_as_torch(ours):
    theirs = module(ours, torch.optim.RMSprop)
    before = values(theirs)
    lightning.Trainer(**QUIET, gradient_clip_val=0.5).fit(theirs, loader())
    assert ours["trainer"].global_step == STEPS
    assert ours["trainer"].optimizers[0].last_grad_norm > 0.5  # clipped
    assert distance(ours["module"], theirs) < BOUND
    assert (before - values(theirs)).abs().max() > 1000 * BOUND


def test_gradient_clip_val_without_amp(ours):
    theirs = module(ours)
    lightning.Trainer(**QUIET, gradient_clip_val=0.5).fit(theirs, loader())
    assert distance(ours["module"], theirs) < BOUND


def test_resume(ours):
    first, resumed = module(ours, clip_grad_norm=0.5), module(ours, clip_grad_norm=0.5)
    trainer = lightning.Trainer(**{**QUIET, "max_epochs": 1})
    trainer.fit(first, loader())
    trainer.save_checkpoint("last.ckpt")
    trainer = lightning.Trainer(**QUIET)
    trainer.fit(resumed, loader(), ckpt_path="last.ckpt")
    assert trainer.global_step == STEPS
    assert torch.equal(values(resumed), values(ours["module"]))
    assert not torch.equal(values(first), values(resumed))


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_lightning_refuses_to_clip_scaled_gradients(ours, algorithm):
    message = "The current optimizer, FusedRMSProp, does not allow for gradient clipping"
    trainer = lightning.Trainer(**QUIET, plugins=half(), gradient_clip_val=0.5, gradient_clip_algorithm=algorithm)
    with pytest.raises(RuntimeError, match=message):
        trainer.fit(module(ours), loader())


@pytest.mark.parametrize(("option", "algorithm"), [("clip_grad_norm", "norm"), ("clip_grad_value", "value")])
def test_our_own_clipping_with_a_loss_scale(ours, option, algorithm):
    """As torch's optimizer, whose gradients Lightning divides by the scale and clips before the step."""
    limit = 0.5 if algorithm == "norm" else 0.02
    fused, theirs, unclipped = module(ours, **{option: limit}), module(ours, torch.optim.RMSprop), module(ours)
    lightning.Trainer(**QUIET, plugins=half()).fit(fused, loader())
    lightning.Trainer(**QUIET, plugins=half(), gradient_clip_val=limit, gradient_clip_algorithm=algorithm).fit(theirs, loader())
    lightning.Trainer(**QUIET, plugins=half()).fit(unclipped, loader())
    assert distance(fused, theirs) < HALF_BOUND
    assert distance(fused, unclipped) > 4 * HALF_BOUND


def layers() -> torch.nn.Sequential:
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Tanh(), torch.nn.Linear(32, 4))


def fabric_page(precision: str, **options) -> dict:
    """The documents' own run of an epoch."""
    changes = {'precision="bf16-mixed"': "precision=precision, **cpu", "eps=1e-5, clip_grad_norm=0.5": "eps=1e-5, **options"}
    cpu = dict(accelerator="cpu", devices=1)
    return run("Fabric", changes, model=layers(), loader=loader(), precision=precision, cpu=cpu, options=options)


def another_epoch(fabric: lightning.Fabric, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> torch.Tensor:
    for inputs, labels in fabric.setup_dataloaders(loader()):
        fabric.backward(torch.nn.functional.cross_entropy(model(inputs), labels))
        optimizer.step()
        optimizer.zero_grad()
    return values(model)


@pytest.mark.parametrize(
    ("precision", "options"),
    [
        ("32-true", dict(clip_grad_norm=0.5)),
        ("bf16-mixed", dict(clip_grad_norm=0.5)),
        ("bf16-true", dict(master_weights="split", state_dtype="8bit")),
        ("bf16-true", dict(stochastic_rounding=True, state_dtype=torch.bfloat16, momentum=0.9)),
    ],
    ids=str,
)
def test_fabric_resume(precision, options):
    names = fabric_page(precision, **options)
    whole = another_epoch(*(names[name] for name in ("fabric", "model", "optimizer")))
    fabric = lightning.Fabric(accelerator="cpu", devices=1, precision=precision)
    other = layers()
    torch.nn.init.zeros_(other[0].weight)
    model, optimizer = fabric.setup(other, FusedRMSProp(other.parameters(), **OPTIONS, **options))
    fabric.load("run.ckpt", dict(model=model, optimizer=optimizer))
    assert torch.equal(another_epoch(fabric, model, optimizer), whole)
    assert not torch.equal(whole, values(layers()))


def test_fabric_as_torch():
    names = fabric_page("32-true", clip_grad_norm=0.5)
    assert names["optimizer"].last_grad_norm > 0.5  # clipped
    theirs = layers()
    optimizer = torch.optim.RMSprop(theirs.parameters(), **OPTIONS)
    for inputs, labels in loader():
        torch.nn.functional.cross_entropy(theirs(inputs), labels).backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
    assert distance(names["model"], theirs) < BOUND
    assert distance(names["model"], layers()) > 1000 * BOUND


def test_fabric_refuses_to_clip_scaled_gradients():
    scaled = FabricMixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**10))
    fabric = lightning.Fabric(accelerator="cpu", devices=1, plugins=scaled)
    plain = layers()
    model, optimizer = fabric.setup(plain, FusedRMSProp(plain.parameters(), **OPTIONS, clip_grad_norm=0.5))
    fabric.backward(model(torch.randn(4, 16)).sum())
    with pytest.raises(NotImplementedError, match="optimizers handling the unscaling"):
        fabric.clip_gradients(model, optimizer, max_norm=0.5)
    optimizer.step()
    assert 0.5 < optimizer.last_grad_norm < 2**10  # of what the scale was taken from


def test_fabric_shows_what_steps_leave():
    """Its wrapper has the optimizer's attributes as they were when it was made."""
    fabric = lightning.Fabric(accelerator="cpu", devices=1)
    model = torch.nn.Linear(3, 2)
    plain = FusedRMSProp(model.parameters(), clip_grad_norm=1.0, skip_nonfinite=True)
    model, wrapped = fabric.setup(model, plain)
    fabric.backward(model(torch.randn(4, 3)).sum())
    wrapped.step()
    assert wrapped.last_grad_norm == plain.last_grad_norm > 0
    assert wrapped.memory() == plain.memory()
    next(model.parameters()).grad[0] = torch.inf
    wrapped.step()
    assert wrapped.skipped_steps == plain.skipped_steps == 1
