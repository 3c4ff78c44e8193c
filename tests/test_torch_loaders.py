"""Checkpoints by torch's functions in one process: the keys that they look for, flattened, before a first step."""

import copy

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict

from cases import MODES
from fusedrms import FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3, presets
from fusedrms.planner import LoadPlanner
from made_rules import AdamW
from test_checkpoint import go_on, through_a_file, trained
from tools import assert_close, random_grads

FLATTENED = StateDictOptions(flatten_optimizer_state_dict=True)
OURS = {
    "RMSProp": (FusedRMSProp, dict(centered=True, momentum=0.9)),
    "Graves": (FusedRMSPropGraves, {}),
    "SMORMS3": (FusedSMORMS3, {}),
}
CLASSES = {**OURS, "a declared rule": (AdamW, {})}
classes = pytest.mark.parametrize("made", CLASSES.values(), ids=CLASSES)


class Tied(nn.Module):
    """Two layers with one weight, and a parameter that is never trained."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.middle, self.head = nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)

    def forward(self, x):
        return self.head(self.middle(self.embedding(x)))


@pytest.mark.parametrize("made", OURS.values(), ids=OURS)
@pytest.mark.parametrize("mode", [{}, *MODES.values()], ids=["float32", *MODES])
def test_keys_are_torchs(made, mode):
    """Whatever the mode and the options: what torch's loaders look for, and nothing that they do not know."""
    cls, options = made
    ours, _ = trained({**options, **mode, "clip_weights": 5.0}, torch.bfloat16, cls=cls)
    theirs, _ = trained(dict(centered=True, momentum=0.9), torch.bfloat16, cls=torch.optim.RMSprop)
    saved, expected = ours.state_dict(), theirs.state_dict()
    rule = {"grad_avg", "square_avg", "mem", "step"} if cls is FusedSMORMS3 else expected["state"][0].keys()
    masters = {"master_param"} if "master_weights" in mode else set()
    assert all(values.keys() == rule | masters for values in saved["state"].values())
    known = expected["param_groups"][0].keys() - ({"alpha", "momentum", "centered"} if cls is FusedSMORMS3 else set())
    assert saved["param_groups"][0].keys() == known
    assert all(rule | masters <= ours.state[param].keys() for param in ours.state)
    group = ours.param_groups[0]
    assert group.keys() == ours.defaults.keys() | {"params"} == {*group} == {**group}.keys()


@classes
@pytest.mark.parametrize("mode", [{}, *MODES.values()], ids=["float32", *MODES])
def test_flattened(made, mode):
    """Saved and loaded by torch's functions, tied weights and a frozen one included: going on equals not stopping."""
    cls, options = made
    if torch.__version__.startswith("2.9.") and mode.get("state_dtype") in ("8bit", "4bit"):
        pytest.skip("torch 2.9 asks a flattened checkpoint for scales, which have no names in it")
    models = [Tied().bfloat16() for _ in range(2)]
    optimizers = []
    for model, lr in zip(models, (1e-2, 7.0), strict=True):
        groups = [{"params": [model.embedding.weight, model.frozen]}, {"params": model.middle.parameters(), "weight_decay": 0.1}]
        optimizers.append(cls(groups, lr, **options, **mode, clip_grad_norm=1.0 if lr < 1 else None))
    params = [[param for param in model.parameters() if param.requires_grad] for model in models]
    for _ in range(3):
        random_grads(params[0])
        optimizers[0].step()
    state = through_a_file(get_optimizer_state_dict(models[0], optimizers[0], options=FLATTENED))
    models[1].load_state_dict(models[0].state_dict())
    set_optimizer_state_dict(models[1], optimizers[1], state, options=FLATTENED)
    assert [group["clip_grad_norm"] for group in optimizers[1].param_groups] == [1.0, 1.0]
    go_on(list(zip(optimizers, params, strict=True)))
    assert all(torch.equal(p, q) for p, q in zip(*params, strict=True))


def test_flattened_to_and_from_torch():
    model, other = nn.Linear(3, 3), nn.Linear(3, 3)
    other.load_state_dict(model.state_dict())
    theirs, ours = torch.optim.RMSprop(model.parameters(), momentum=0.9), FusedRMSProp(other.parameters(), momentum=0.5, clip_weights=50.0)
    for here, there, module, target in ((theirs, ours, model, other), (ours, theirs, other, model)):
        random_grads(list(module.parameters()))
        here.step()
        target.load_state_dict(module.state_dict())
        state = through_a_file(get_optimizer_state_dict(module, here, options=FLATTENED))  # torch's would share it
        set_optimizer_state_dict(target, there, state, options=FLATTENED)
        pairs = [(here, list(module.parameters())), (there, list(target.parameters()))]
        go_on(pairs)
        assert_close(pairs[0][1], pairs[1][1], steps=3)
    assert ours.param_groups[0]["clip_weights"] == 50.0
    assert ours.param_groups[0]["momentum"] == 0.9


@pytest.mark.parametrize(
    "make",
    [
        lambda params: presets.tensorflow_rmsprop(params, 0.1, momentum=0.9),
        lambda params: FusedRMSProp(params, 0.1, weight_decay=0.1, bias_correction=True, clip_weights=0.01),
        lambda params: FusedSMORMS3(params, weight_decay=0.1),
        lambda params: FusedRMSProp(params, 0.1, capturable=True, skip_nonfinite=True, clip_grad_norm=1.0),
    ],
)
def test_states_that_torch_asks_for(make):
    """Before a first step get_optimizer_state_dict makes them, and that is all."""
    models = [nn.Linear(5, 5) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    optimizers = [make(model.parameters()) for model in models]
    before = copy.deepcopy(models[0].state_dict())
    saved = get_optimizer_state_dict(models[0], optimizers[0])
    assert all(values["step"] == 0 for values in saved["state"].values())
    assert all(torch.equal(value, before[key]) for key, value in models[0].state_dict().items())
    assert optimizers[0].skipped_steps == 0
    go_on([(optimizer, list(model.parameters())) for optimizer, model in zip(optimizers, models, strict=True)])
    assert all(torch.equal(p, q) for p, q in zip(models[0].parameters(), models[1].parameters(), strict=True))


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled", "ignore:TypedStorage is deprecated")  # the latter of torch 2.9
def test_planner_begins_states_alone(tmp_path):
    """A model that has a tensor by the name of a state must find it in the checkpoint."""
    model = nn.Linear(3, 3)
    theirs, ours = torch.optim.RMSprop(model.parameters()), FusedRMSProp(model.parameters(), momentum=0.9, centered=True)
    random_grads(list(model.parameters()))
    theirs.step()
    dcp.save({"model": model.state_dict(), "optimizer": get_optimizer_state_dict(model, theirs)}, checkpoint_id=tmp_path)
    found = {"model": model.state_dict(), "optimizer": get_optimizer_state_dict(model, ours)}
    dcp.load(found, checkpoint_id=tmp_path, planner=LoadPlanner())
    assert all(values.keys() == {"step", "square_avg"} for values in found["optimizer"]["state"].values())
    model.register_buffer("momentum_buffer", torch.ones(3))
    with pytest.raises(dcp.api.CheckpointException, match=r"Missing key in checkpoint state_dict: model\.momentum_buffer"):
        dcp.load({"model": model.state_dict()}, checkpoint_id=tmp_path, planner=LoadPlanner())
