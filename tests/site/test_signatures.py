"""The signatures that the reference shows, which are read from the source, are those that callers meet."""

import inspect
import pathlib

import griffe
import pytest

import fusedrms
from fusedrms.presets.preset import PRESETS

ROOT = pathlib.Path(__file__).parent.parent.parent
CALLED = {
    **{f"presets.{name}": preset.make for name, preset in PRESETS.items()},
    **{one.__name__: one for one in (fusedrms.FusedRMSProp, fusedrms.Memory, fusedrms.Number, fusedrms.State)},
}


@pytest.fixture(scope="module")
def package():
    return griffe.load("fusedrms", search_paths=[ROOT], extensions=griffe.load_extensions(str(ROOT / "docs/site/signatures.py")))


@pytest.mark.parametrize("name", CALLED)
def test_signature(package, name):
    shown, met = package[name], inspect.signature(CALLED[name])
    parameters = [parameter for parameter in shown.parameters if parameter.name != "self"]
    assert [(p.name, p.kind.value, p.required) for p in parameters] == [
        (p.name, p.kind.description, p.default is p.empty) for p in met.parameters.values()
    ]
    if name.startswith("presets."):
        assert str(shown.returns) == met.return_annotation.__name__
