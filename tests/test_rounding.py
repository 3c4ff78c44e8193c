"""Rounding and splitting, seen through steps that change nothing, or a known amount: the real kernels on every value."""

import numpy as np
import pytest
import torch

from cases import BF16, F16, F32
from fusedrms import FusedRMSProp, export_master
from fusedrms.engine.tables import layout
from fusedrms.kernels import lang
from mode_tools import STORED, rounded
from ptx.stored import random_bits
from tools import parameter, set_grad, stepped

# the interpreter computes with NumPy, which warns of 0 * inf
pytestmark = [pytest.mark.interpret, pytest.mark.filterwarnings("ignore::RuntimeWarning")]
EVERY = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)


def same(a, b) -> bool:
    """Bit for bit, but for what kind of NaN it is."""
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(a[~a.isnan()], b[~b.isnan()])


@pytest.mark.parametrize("dtype", [BF16, F16])
def test_every_representable_value_stays(device, dtype):
    """All 65,536 of them, infinities and NaN among them, whatever the random bits: each is drawn for 64 times."""
    values = EVERY.view(dtype).to(device).repeat(1 if lang.interpreted() else 64)
    optimizer, param = stepped(values, stochastic_rounding=True)
    for _ in range(3):
        assert same(param.detach(), values)
        optimizer.step()
    # float16's subnormal numbers, whose steps are counted apart
    some = torch.tensor([2.0**-15, 2.0**-16 * 1.5, 2.0**-24 * 1023, 0.0], dtype=dtype, device=device).repeat(2**16)
    _, param = stepped(some, stochastic_rounding=True)
    assert same(param.detach(), some)
    for mode in (dict(master_weights="float32"), *(dict(master_weights=kind) for kind in ("split", "split24") if dtype == BF16), {}):
        _, param = stepped(values, **mode)
        assert same(param.detach(), values)


def shrunk(values, dtype, **options):
    """values * (1 - 2**-k) in the dtype, computed without rounding: as float32, and as `stochastic_rounding` stores it."""
    options = dict(lr=1.0, weight_decay=2.0**-12, decoupled_weight_decay=True, **options)
    _, wide = stepped(values.float(), **options)
    _, param = stepped(values, stochastic_rounding=True, **options)
    return wide.detach().double(), param.detach().double()


def neighbours(exact, dtype):
    """The values of the dtype on either side."""
    near = exact.to(dtype)
    bits, step = near.view(torch.int16), torch.where(near.double().abs() > exact.abs(), -1, 1).to(torch.int16)
    other = torch.where(near.double() == exact, bits, bits + step).view(dtype)
    return near.double(), other.double()


@pytest.mark.parametrize("dtype", [BF16, F16])
def test_rounded_to_a_neighbour(device, dtype):
    """From every value that is left after a small change, subnormal ones included."""
    values = EVERY.view(dtype).to(device)
    values = values[values.isfinite() & (values.abs() >= torch.finfo(dtype).tiny * 2**12)]
    exact, param = shrunk(values, dtype)
    assert ((exact != values.double()) | (values == 0)).all()
    near, other = neighbours(exact, dtype)
    assert ((param == near) | (param == other)).all()
    assert (param == near).any()
    assert (param == other).any()


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("dtype", "value"), [(BF16, 1.0), (BF16, -3.0e-39), (BF16, 2.0**100), (F16, 1.0), (F16, -300.0), (F16, 2.0**-16), (F16, -(2.0**-22))]
)
def test_unbiased(device, dtype, value):
    """The mean error over 2**20 draws is below 4 standard errors; up and down only."""
    exact, param = shrunk(torch.full((2**20,), value, dtype=dtype, device=device), dtype)
    assert exact.unique().numel() == 1
    assert param.unique().numel() == 2
    error = param - exact
    assert error.mean().abs() < 4 * error.std() / 2**10


def shrunk_masters(values):
    """As shrunk(), of split masters of 24 bits: the float32 that each is rounded from, and the master."""
    options = dict(lr=1.0, weight_decay=2.0**-18, decoupled_weight_decay=True)
    _, wide = stepped(values.float(), **options)
    optimizer, param = stepped(values, master_weights="split24", **options)
    ((_, master),) = export_master(optimizer)
    assert torch.equal(param, ((master.view(torch.int32) + 0x8000) >> 16).to(torch.int16).view(BF16))
    return wide.detach(), master


def test_a_master_of_24_bits_is_rounded_to_a_neighbour(device):
    values = EVERY.view(BF16).to(device)
    values = values[values.isfinite()]
    exact, master = shrunk_masters(values)
    assert not (master.view(torch.int32) & 0xFF).any()
    distance = master.view(torch.int32) - exact.view(torch.int32)
    assert distance.abs().max() < 0x100
    assert (distance > 0).any()
    assert (distance < 0).any()
    assert (distance[exact.view(torch.int32) & 0xFF == 0] == 0).all()


@pytest.mark.parametrize("value", [1.0, -3.0e-39, 2.0**100])
def test_a_master_of_24_bits_is_rounded_without_bias(device, value):
    exact, master = shrunk_masters(torch.full((2**16,), value, dtype=BF16, device=device))
    assert exact.unique().numel() == 1
    assert master.unique().numel() == 2
    error = master.double() - exact.double()
    assert error.mean().abs() < 4 * error.std() / 2**8


def test_noise_is_independent(device):
    """Of neighbours, of power-of-two distances, between steps."""
    values = torch.ones(2**16, dtype=BF16, device=device)
    options = dict(lr=1.0, weight_decay=2.0**-9, decoupled_weight_decay=True, stochastic_rounding=True)
    optimizer, param = stepped(values, **options)
    draws = [param.detach().float() != 1]
    for _ in range(3):
        param.data.copy_(values)
        optimizer.step()
        draws.append(param.detach().float() != 1)
    bits = torch.stack(draws).double().cpu().numpy()
    bits = (bits - bits.mean()) / bits.std()
    for distance in [0, *(2**k for k in range(16))]:
        for a in range(4):
            for b in range(a + (distance == 0), 4):
                assert abs(np.mean(bits[a] * np.roll(bits[b], distance))) < 5 / 2**8, f"steps {a} and {b}, distance {distance}"


@pytest.mark.parametrize("seed", [0, 2**63 + 12345])
def test_the_same_bits_on_every_driver(device, seed):
    """Each against the same NumPy code, so all against each other: resuming on another device rounds alike."""
    others = parameter(torch.zeros(3, device=device))
    param = parameter(torch.ones(20_000, dtype=BF16, device=device))
    options = dict(lr=1.0, weight_decay=2.0**-9, decoupled_weight_decay=True, stochastic_rounding=True, seed=seed)
    optimizer = FusedRMSProp([others, param], **options)
    # of the second parameter, though the first has no gradient
    words = np.random.SeedSequence((seed & 0xFFFFFFFF, seed >> 32, 1)).generate_state(2)
    for step in range(1, 4):
        param.data.fill_(1)
        set_grad(param, torch.zeros_like(param))
        optimizer.step()
        bits = np.uint64(np.float32(1 - 2.0**-9).view(np.uint32))
        rounded = bits + random_bits(words, step, np.arange(20_000), 0).astype(np.uint64)
        expected = (rounded >> np.uint64(16) << np.uint64(16)).astype(np.uint32).view(np.float32)
        assert np.array_equal(param.detach().float().cpu().numpy(), expected)


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", [BF16, F16])
def test_shards_beyond_2_to_the_32_elements(device, monkeypatch, dtype):
    """A shard that reaches over a multiple of 2**32 elements of its parameter rounds like two that meet there."""

    def part(first, numel):
        monkeypatch.setattr(layout, "shard_offset", lambda owner: first)
        param = parameter(torch.ones(numel, dtype=dtype, device=device))
        set_grad(param, torch.zeros_like(param))
        options = dict(weight_decay=2.0**-12, decoupled_weight_decay=True, stochastic_rounding=True, state_dtype=BF16, seed=0)
        FusedRMSProp([param], 1.0, **options).step()
        return param.detach()

    whole, before, beyond = part(2**32 - 1000, 5000), part(2**32 - 1000, 1000), part(2**32, 4000)
    assert torch.equal(whole, torch.cat([before, beyond]))
    assert whole.unique().numel() == 2
    assert not torch.equal(part(0, 4000), beyond)


def test_places_of_complex_shards(device, monkeypatch):
    """Two numbers make an element, and each has random bits of its own."""
    monkeypatch.setattr(layout, "shard_offset", lambda owner: 100)
    param = parameter(torch.ones(7, dtype=torch.complex64, device=device))
    set_grad(param, torch.ones_like(param))
    optimizer = FusedRMSProp([param])
    optimizer.step()
    (bucket,) = optimizer._run.plan._buckets
    assert bucket._host.shard_offset.tolist() == [200]


def every_float32():
    """Every upper half of a float32 with lower halves that are whole, just below and above, and ties."""
    upper = EVERY.int() << 16
    lower = torch.tensor([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF, 0x1234, 0xC0DE], dtype=torch.int32)
    values = (upper[:, None] | lower).flatten().view(F32)
    return values[~values.isnan()]


def test_split_keeps_every_bit(device):
    """Through a checkpoint into both kinds of master, and through a step, whose parameter is a nearest bfloat16."""
    for kind in STORED:
        values = rounded(kind, every_float32().to(device))
        near = values.bfloat16()
        param = parameter(near)
        optimizer = FusedRMSProp([param], master_weights=kind)
        saved = {"master_param": values, "square_avg": torch.zeros_like(values), "step": torch.tensor(1.0)}
        shown = ((values.view(torch.int32) + 0x8000) >> 16).to(torch.int16).view(BF16)
        param.data.copy_(shown)
        optimizer.load_state_dict({"state": {0: saved}, "param_groups": optimizer.state_dict()["param_groups"]})
        for _ in range(2):
            ((_, master),) = export_master(optimizer)
            assert torch.equal(master.view(torch.int32), values.view(torch.int32))
            set_grad(param, torch.zeros_like(param))
            optimizer.step()
            assert torch.equal(param.detach(), shown)
        # as torch rounds, but for ties, where it goes to the even one
        ties = values.view(torch.int32) & 0xFFFF == 0x8000
        assert torch.equal(param.detach()[~ties], near[~ties])
        finite = shown.isfinite()
        assert ((shown.double() - values.double()).abs()[finite] <= (near.double() - values.double()).abs()[finite]).all()


def test_a_nan_master_stays_one(device):
    bits = torch.tensor([0x7F800001, 0x7FFFFFFF, 0x7FC00000, -1, -0x7FFFFF], dtype=torch.int32, device=device)
    for kind in STORED:
        optimizer, param = stepped(torch.ones(5, dtype=BF16, device=device), master_weights=kind)
        saved = optimizer.state_dict()
        saved["state"][0]["master_param"] = bits.view(F32)
        param.data.fill_(torch.nan)
        optimizer.load_state_dict(saved)
        optimizer.step()
        assert param.isnan().all()
        assert all(master.isnan().all() for _, master in export_master(optimizer))
