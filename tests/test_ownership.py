"""No address without an owner: whatever users and threads do, nothing is read or written that is not theirs, and nothing is kept."""

import collections
import copy
import ctypes
import gc
import io
import os
import pickle
import subprocess
import sys
import threading
import warnings
import weakref
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from torch import nn

from fusedrms import FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3, apply_in_backward
from fusedrms.engine import c_api, debug, torch_words
from fusedrms.kernels import lang
from tools import assert_close, copy_grads, parameter, parameters, params_of, random_grads, step_and_check, twins

natively = pytest.mark.skipif(lang.interpreted(), reason="about the Numba driver")


@pytest.fixture
def optimizer(reading):
    made = FusedRMSProp(parameters([(33,), (4, 6), (2000,)]), momentum=0.9, bias_correction=True)
    for _ in range(2):
        random_grads(params_of(made))
        step_and_check(made)
    return made


def run(code: str, **env: str) -> str:
    """In a process of its own, which may not crash."""
    result = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


# counters


def shared(optimizer):
    for values in optimizer.state.values():
        values["step"].share_memory_()


def cloned_in_place(optimizer):
    """As helpers do that offload states."""
    for values in optimizer.state.values():
        values["step"].data = values["step"].data.clone()


def sent(optimizer):
    """What a torch.multiprocessing.Queue does to each tensor, twice."""
    for _ in range(2):
        ForkingPickler.dumps(optimizer.state_dict())


def of_one_element(optimizer):
    """As pytorch-a3c makes them."""
    for values in optimizer.state.values():
        values["step"] = torch.full((1,), float(values["step"]))


def in_float64(optimizer):
    for values in optimizer.state.values():
        values["step"] = values["step"].double()


def as_integers(optimizer):
    for values, dtype in zip(optimizer.state.values(), (torch.int64, torch.int32, torch.float32), strict=True):
        values["step"] = values["step"].to(dtype)


@pytest.mark.parametrize(
    "change", [shared, cloned_in_place, sent, of_one_element, in_float64, as_integers], ids=lambda change: change.__name__
)
def test_counters_are_counted_where_they_lie(optimizer, change):
    params = params_of(optimizer)
    change(optimizer)
    counters = [optimizer.state[param]["step"] for param in params]
    for n in range(3, 6):
        random_grads(params)
        step_and_check(optimizer)
        assert all(optimizer.state[param]["step"] is counter for param, counter in zip(params, counters, strict=True))
        assert [counter.item() for counter in counters] == [n] * 3
        assert [values["step"].item() for values in optimizer.state_dict()["state"].values()] == [n] * 3


def test_a_kept_state_dict_goes_on_counting(optimizer):
    """As torch's, whose state_dict shares tensors with the state, also when tables are made anew."""
    kept = optimizer.state_dict()["state"]
    params_of(optimizer)[1].grad = None
    optimizer.step()
    random_grads(params_of(optimizer))
    optimizer.step()
    assert [kept[k]["step"].item() for k in range(3)] == [4, 3, 4]


def test_a_state_is_saved_alone():
    params = [parameter(torch.zeros(1)) for _ in range(2000)]
    optimizer = FusedRMSProp(params)
    random_grads(params)
    optimizer.step()
    file = io.BytesIO()
    torch.save(optimizer.state[params[7]], file)
    assert len(file.getvalue()) < 3000


A3C = """
import os, torch, torch.multiprocessing as mp
from fusedrms import FusedRMSProp
def work(model, optimizer):
    for _ in range(3):
        for param in model.parameters():
            param.grad = torch.ones_like(param)
        optimizer.step()
if __name__ == "__main__":
    model = torch.nn.Linear(3, 2).share_memory()
    optimizer = FusedRMSProp(model.parameters(), lr=0.1, bias_correction=True)
    {share}
    context = mp.get_context("{start}")
    for _ in range({workers}):
        process = context.Process(target=work, args=(model, optimizer))
        process.start(); process.join(); assert process.exitcode == 0
    print(*(int(values["step"]) for values in optimizer.state.values()))
    print(*(float(values["square_avg"].max()) for values in optimizer.state.values()))
    work(model, optimizer)
    print(*(int(values["step"]) for values in optimizer.state.values()))
"""
BY_HAND = "work(model, optimizer); [v.share_memory_() for values in optimizer.state.values() for v in values.values()]"


@natively
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("share", "workers"), [("optimizer.share_memory()", 2), (BY_HAND, 1)], ids=["share_memory", "by hand"])
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_processes_share_an_optimizer(start, share, workers, tmp_path):
    """Workers count on in the parent's memory (A3C), however they are started."""
    script = tmp_path / "a3c.py"
    script.write_text(A3C.format(start=start, share=share, workers=workers))
    result = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    counts, averages, counts_then = ([float(word) for word in line.split()] for line in result.stdout.splitlines())
    assert counts == [6, 6]
    assert averages == pytest.approx([1 - 0.99**6] * 2, rel=1e-5)
    assert counts_then == [9, 9]


def test_share_memory_of_all_states():
    """Also those of parameters that have had no gradient yet; what is shared is updated in place."""
    params = parameters([(5,), (3, 2)])
    optimizer = FusedRMSProp(params, centered=True, momentum=0.5, initial_square_avg=2.0).share_memory()
    tensors = [value for param in params for value in optimizer.state[param].values()]
    assert len(tensors) == 8
    assert all(tensor.is_shared() for tensor in tensors)
    random_grads(params)
    step_and_check(optimizer)
    assert all(value is tensor for value, tensor in zip((v for p in params for v in optimizer.state[p].values()), tensors, strict=True))


# threads


THREADS = """
import threading, time, torch
from fusedrms import FusedRMSProp
torch.set_num_threads({threads})
params = [torch.nn.Parameter(torch.ones(200_000)) for _ in range(8)]
optimizer = FusedRMSProp(params)
gradients = [[torch.full((200_000,), 1.0 + k) for k in range(2)] for _ in params]
for param in params:
    param.grad = torch.ones_like(param)
stop = False
def change():
    n = 0
    while not stop:
        n += 1
        time.sleep(1e-3 * {pause})
        for param in params:
            {what}
thread = threading.Thread(target=change, daemon=True)
thread.start()
for _ in range(100):
    try:
        optimizer.step()
    except (RuntimeError, KeyError):  # torch's may not find them either; but nothing is read that is gone
        assert {may_fail}
stop = True
thread.join()
assert all(bool(param.isfinite().all()) for param in params)
"""
# what the thread does, and how many milliseconds it waits in between
WHAT = {
    "gradients": (0, "param.grad = torch.full((200_000,), 1.0 + n % 3)"),
    "states": (5, "optimizer.state.clear()"),
    "state tensors": (3, "optimizer.state.get(param, {})['square_avg'] = torch.ones(200_000)"),
    "parameters": (5, "optimizer.param_groups[0]['params'] = [torch.nn.Parameter(param.detach().clone()) for param in params]"),
}


@natively
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("what", WHAT)
def test_another_thread_replaces_what_a_launch_reads(what, threads):
    pause, statement = WHAT[what]
    run(THREADS.format(threads=threads, what=statement, pause=pause, may_fail=what != "gradients"))


def test_state_dicts_in_threads(optimizer):
    """Nothing is registered at a call, which another thread would see."""
    errors = []

    def save():
        try:
            for _ in range(300):
                optimizer.state_dict()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=save) for _ in range(3)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not errors


def test_hooks_see_what_is_saved(optimizer):
    """However they are registered, users' hooks of state_dict see full precision, and those of loading what the file holds."""
    optimizer = FusedRMSProp(params_of(optimizer), state_dtype="8bit")
    random_grads(params_of(optimizer))
    optimizer.step()
    seen = []
    optimizer.register_state_dict_post_hook(lambda _, state: seen.append(state["state"][0]["square_avg"].dtype), prepend=True)
    optimizer.register_state_dict_post_hook(lambda _, state: seen.append(state["state"][0]["square_avg"].dtype))
    optimizer.register_load_state_dict_pre_hook(lambda _, state: seen.append(type(state["state"][0]["square_avg"])))
    optimizer.load_state_dict(optimizer.state_dict())
    other = pickle.loads(pickle.dumps(FusedRMSProp([parameter(torch.zeros(3))], state_dtype="8bit")))
    random_grads(params_of(other))
    other.step()
    assert other.state_dict()["state"][0]["square_avg"].dtype == torch.float32
    assert seen == [torch.float32, torch.float32, torch.Tensor]


# classes


class Wrapping(nn.Parameter):
    """Its __torch_function__ wraps results, so that its grad is a new object each time."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunctionSubclass():
            result = function(*args, **(kwargs or {}))
            return result.as_subclass(cls) if isinstance(result, torch.Tensor) else result


def test_a_gradient_that_is_a_new_object_each_time(reading):
    param = Wrapping(torch.randn(1000))
    param.grad = torch.ones(1000)
    assert param.grad is not param.grad
    twin = parameter(param.detach().as_subclass(torch.Tensor).clone())
    ours, theirs = FusedRMSProp([param]), torch.optim.RMSprop([twin])
    for n in range(3):
        param.grad = torch.full((1000,), 1.0 + n)
        twin.grad = torch.full((1000,), 1.0 + n)
        gc.collect()
        ours.step()
        theirs.step()
    assert_close([param.detach().as_subclass(torch.Tensor)], [twin], 3)


def test_fake_parameters_are_refused():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        model = nn.Linear(3, 2)
        optimizer = FusedRMSProp(model.named_parameters())
        for param in model.parameters():
            param.grad = torch.ones_like(param)
        assert optimizer.memory().parameters == 32
    with pytest.raises(RuntimeError, match=r"weight is a FakeTensor.*FakeTensorMode"):
        optimizer.step()
    assert not optimizer.state


# memory that is shared


def tied(a, b):
    b.data = a.data


def within(a, b):
    memory = torch.zeros(1500)
    a.data, b.data = memory[:1000], memory[500:]


OVERLAPS = {
    "tied": (tied, r"weights\.0 and weights\.1 share memory"),
    "within": (within, r"weights\.0 and weights\.1 share memory"),
    "gradient": (
        lambda a, b: setattr(b, "grad", a.detach()),
        r"weights\.0 and weights\.1\.grad share memory|weights\.1\.grad and weights\.0 ",
    ),
}


@pytest.mark.parametrize("case", OVERLAPS)
def test_shared_memory_is_refused(case, reading):
    share, message = OVERLAPS[case]
    a, b = parameters([(1000,), (1000,)])
    optimizer = FusedRMSProp([("weights.0", a), ("weights.1", b)])
    random_grads([a, b])
    share(a, b)
    before = a.detach().clone()
    with pytest.raises(RuntimeError, match=message):
        optimizer.step()
    assert torch.equal(a, before)
    assert not optimizer.state


def test_shared_states_are_refused(optimizer):
    params = params_of(optimizer)
    optimizer.state[params[0]]["square_avg"] = optimizer.state[params[2]]["square_avg"][10:43]
    with pytest.raises(RuntimeError, match=r"the square_avg of params\[\d\] and the square_avg of params\[\d\] share memory"):
        optimizer.step()


MOVES = {
    "gradient to a parameter": lambda ours, theirs, state: setattr(ours, "grad", theirs.data),
    "data of a gradient": lambda ours, theirs, state: setattr(ours.grad, "data", theirs.data),
    "gradient to a state": lambda ours, theirs, state: setattr(ours, "grad", state[theirs]["square_avg"]),
    "gradient to its own state": lambda ours, theirs, state: setattr(ours, "grad", state[ours]["square_avg"]),
    "counter to a counter": lambda ours, theirs, state: setattr(state[ours]["step"], "data", state[theirs]["step"].data),
    "counter to a parameter": lambda ours, theirs, state: setattr(state[ours]["step"], "data", theirs.data[3]),
}


@pytest.mark.parametrize("move", MOVES)
def test_what_moves_onto_memory_that_is_written(reading, move):
    """After tables were made: the same error as before."""
    params = parameters([(8,), (8,)])
    optimizer = FusedRMSProp(params)
    for _ in range(3):
        random_grads(params)
        step_and_check(optimizer)
    MOVES[move](*params, optimizer.state)
    before = [tensor.clone() for tensor in (*params, *(value for values in optimizer.state.values() for value in values.values()))]
    with pytest.raises(RuntimeError, match=r"params\[\d\].* and .*params\[\d\].* share memory"):
        optimizer.step()
    after = [*params, *(value for values in optimizer.state.values() for value in values.values())]
    assert all(map(torch.equal, before, after))


def test_neighbours_are_no_overlap(reading):
    """Rows and columns of one matrix, bytes between each other's, gradients that share all."""
    matrix, flat = torch.randn(40, 30), torch.randn(200)
    parts = [matrix[:, k::3] for k in range(3)] + [flat[:100], flat[100:]]
    params = [parameter(part) for part in parts]
    assert params[0].data_ptr() == matrix.data_ptr()
    optimizer = FusedRMSProp(params)
    for _ in range(2):
        whole = torch.randn(40, 10)
        for param in params[:3]:
            param.grad = whole
        random_grads(params[3:])
        step_and_check(optimizer)


def test_columns_that_share_an_element():
    matrix = torch.randn(40, 30)
    optimizer = FusedRMSProp([parameter(matrix[:, :16]), parameter(matrix[:, 15:])])
    random_grads(params_of(optimizer))
    with pytest.raises(RuntimeError, match=r"params\[0\] and params\[1\] share memory"):
        optimizer.step()


def test_overlaps_are_found_fast():
    """Among 20,000 tensors, columns of one matrix too."""
    from fusedrms.engine.memory import Named, check_apart

    matrix = torch.zeros(4, 20000)
    check_apart([Named(str(k), matrix[:, k]) for k in range(20000)])


def memory_of(optimizer, name):
    param = params_of(optimizer)[1]
    return {"params[1]": param, "params[1].grad": param.grad}.get(name, optimizer.state[param].get(name.split()[1] if " " in name else ""))


@pytest.mark.parametrize("size", [0, 40])
@pytest.mark.parametrize("name", ["params[1]", "params[1].grad", "the square_avg of params[1]", "the step of params[1]"])
def test_memory_that_is_gone_is_named(optimizer, name, size):
    """A storage that was freed, or is too small by now."""
    random_grads(params_of(optimizer))
    before = params_of(optimizer)[0].detach().clone()
    tensor = memory_of(optimizer, name)
    tensor.untyped_storage().resize_(min(size, tensor.nbytes - 1))
    for _ in range(2):
        with pytest.raises(RuntimeError, match=name.replace("[", r"\[").replace("]", r"\]") + " has shape .* no memory"):
            optimizer.step()
    assert torch.equal(params_of(optimizer)[0], before)


@pytest.mark.parametrize("name", ["param", "grad"])
def test_a_view_of_memory_that_is_gone(reading, name):
    """Its address is not 0: where it begins in a storage that has nothing."""
    memory = torch.randn(200)
    param = parameter(memory[100:] if name == "param" else torch.randn(100))
    param.grad = memory[100:] if name == "grad" else torch.randn(100)
    optimizer = FusedRMSProp([param])
    optimizer.step()
    memory.untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match="no memory"):
        optimizer.step()


@pytest.mark.parametrize("shape", [(-1,), (1, 1, 1, 1, 1, -1)], ids=["1 dim", "6 dims"])
def test_less_memory_at_the_same_address(reading, shape):
    """As after two resizes of the storage, if the allocator gives the same memory again."""
    words = torch_words.find(c_api.shape_address) if c_api.FUNCTIONS.exchange else torch_words.Words()
    if words.tensor < 0:
        pytest.skip("where a storage keeps its size is not known")
    param = parameter(torch.ones(1000).reshape(shape))
    param.grad = torch.ones_like(param)
    optimizer = FusedRMSProp([param])
    optimizer.step()
    storage = param.untyped_storage()
    size = ctypes.c_int64.from_address(storage._cdata + 8 * (words.memory + words.size))
    assert size.value == storage.nbytes() == 4000
    size.value = 2000
    with pytest.raises(RuntimeError, match=r"params\[0\] has shape .* no memory"):
        optimizer.step()
    size.value = 4000
    optimizer.step()


@pytest.mark.parametrize("name", ["param", "square_avg", "step"])
def test_memory_that_is_shared_until_it_is_written(optimizer, name):
    """Copies that torch puts off (copy on write) keep their values."""
    param = params_of(optimizer)[1]
    tensor = param.detach() if name == "param" else optimizer.state[param][name]
    before = tensor.clone()
    copy = torch._lazy_clone(tensor)
    random_grads(params_of(optimizer))
    step_and_check(optimizer)
    assert torch.equal(copy, before)
    assert not torch.equal(tensor, before)


# nothing is kept


def end_of(tensor: torch.Tensor) -> weakref.ref:
    return weakref.ref(tensor)


def offload(optimizer, param):
    values = optimizer.state[param]
    old = end_of(values["square_avg"])
    values["square_avg"] = values["square_avg"].clone()
    return old


def clear(optimizer, param):
    old = end_of(optimizer.state[param]["square_avg"])
    optimizer.state.clear()
    return old


def replace(optimizer, param):
    old = end_of(param)
    optimizer.param_groups[0]["params"][1] = parameter(torch.zeros(3))
    optimizer.state.pop(param)
    return old


def replace_the_list(optimizer, param):
    old = end_of(param)
    optimizer.param_groups[0]["params"] = [parameter(torch.zeros(3))]
    optimizer.state.clear()
    return old


def drop_a_gradient(optimizer, param):
    old = end_of(param.grad)
    param.grad = None
    return old


def drop_a_counter(optimizer, param):
    old = end_of(optimizer.state[param]["step"])
    del optimizer.state[param]["step"]
    return old


@pytest.mark.parametrize(
    "change", [offload, clear, replace, replace_the_list, drop_a_gradient, drop_a_counter], ids=lambda change: change.__name__
)
def test_nothing_is_kept(optimizer, change):
    old = change(optimizer, params_of(optimizer)[1])
    assert old() is None


@pytest.mark.parametrize(
    "options", [{}, dict(clip_grad_norm=1.0), dict(clip_grad_norm=1.0, clip_norm_over="parameter", skip_nonfinite=True)]
)
def test_a_dropped_model_is_freed(reading, options):
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    optimizer = FusedRMSProp(model.parameters(), **options)
    for param in model.parameters():
        param.grad = torch.randn(param.shape[::-1]).t() if param.dim() == 2 else torch.ones_like(param)  # strided: read through copies
    optimizer.step()
    old = [end_of(param) for param in model.parameters()] + [end_of(param.grad) for param in model.parameters()]
    optimizer.param_groups.clear()
    optimizer.state.clear()
    del model, param
    assert all(ref() is None for ref in old)


def test_data_of_a_parameter_is_given_back(optimizer):
    """Its version counter is kept, but not its memory."""
    param = params_of(optimizer)[2]
    param.data = torch.zeros(2000)
    storage = param.untyped_storage()
    freed = []
    weakref.finalize(storage, freed.append, True)
    random_grads([param])
    optimizer.step()
    del storage
    param.data = torch.zeros(2000)
    assert freed


def test_release(optimizer):
    tables = optimizer.memory().tables
    assert tables > 0
    optimizer.release()
    assert optimizer.memory().tables == 0
    random_grads(params_of(optimizer))
    step_and_check(optimizer)
    assert optimizer.memory().tables == tables


# caches


def test_values_under_traded_names(optimizer):
    """The same objects, another meaning."""
    group = optimizer.param_groups[0]
    group["alpha"], group["eps"] = 0.9, 0.25
    random_grads(params_of(optimizer))
    step_and_check(optimizer)
    names = {"alpha": "eps", "eps": "alpha"}
    optimizer.param_groups[0] = {names.get(key, key): value for key, value in group.items()}
    step_and_check(optimizer)


def test_another_order_of_options(optimizer):
    group = optimizer.param_groups[0]
    optimizer.param_groups[0] = dict(reversed(group.items()))
    random_grads(params_of(optimizer))
    step_and_check(optimizer)


def test_autograd_sees_steps_of_swapped_parameters(reading):
    """A value that a backward has saved is gone, whichever version counter the parameter has by now."""
    weight = parameter(torch.randn(5))
    optimizer = FusedRMSProp([weight])
    for _ in range(3):
        weight.grad = torch.randn(5)
        optimizer.step()
        torch.utils.swap_tensors(weight, parameter(weight.data))
        weight.grad = torch.randn(5)
        output = (weight * weight).sum()
        optimizer.step()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            output.backward()
        del output


@pytest.mark.parametrize("shape", [(5,), (1, 1, 1, 1, 1, 5)], ids=["1 dim", "6 dims"])
def test_autograd_sees_steps_of_parameters_that_were_swapped_twice(reading, shape):
    """What torch keeps of it may be at the address where that of the one before was."""
    weight = parameter(torch.randn(shape))
    optimizer = FusedRMSProp([weight])
    for _ in range(10):
        weight.grad = torch.randn(shape)
        before = weight._version
        optimizer.step()
        assert weight._version > before
        for _ in range(2):
            torch.utils.swap_tensors(weight, parameter(weight.data.clone()))


def test_autograd_sees_steps_of_more_sorts_than_are_told_apart(reading):
    params = [*parameters([(5,)] * 70), parameter(torch.randn(5, dtype=torch.float64))]
    optimizer = FusedRMSProp(params)
    for n, param in enumerate(params):
        param.grad = torch.randn_like(param).as_subclass(type(f"Gradient{n}", (torch.Tensor,), {}))
    for _ in range(3):
        before = [param._version for param in params]
        optimizer.step()
        assert all(param._version > version for param, version in zip(params, before, strict=True))
        for param in params:
            grad, param.grad = param.grad, None
            torch.utils.swap_tensors(param, parameter(param.data.clone()))
            param.grad = grad


def test_autograd_sees_a_step_that_is_interrupted(optimizer):
    """As by Ctrl-C, before it was counted."""
    (weight, *_) = params_of(optimizer)
    random_grads(params_of(optimizer))
    before = weight._version
    (bucket,) = optimizer._run.plan._buckets
    launch = bucket.launch

    def interrupted(*args):
        launch(*args)
        raise KeyboardInterrupt

    bucket.launch = interrupted
    with pytest.raises(KeyboardInterrupt):
        optimizer.step()
    assert weight._version > before


def test_an_interrupt_while_addresses_are_read(reading):
    """A class of the user's is the only code of Python's that runs there."""

    class Slow(nn.Parameter):
        interrupt = False

        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            if function == torch.Tensor.grad.__get__ and cls.interrupt:
                cls.interrupt = False
                raise KeyboardInterrupt
            with torch._C.DisableTorchFunctionSubclass():
                return function(*args, **(kwargs or {}))

    param = Slow(torch.randn(10))
    param.grad = torch.ones(10)
    optimizer = FusedRMSProp([param])
    optimizer.step()
    Slow.interrupt = True
    with pytest.raises(KeyboardInterrupt):
        optimizer.step()
    optimizer.step()


# wrappers


class Wrapper(torch.optim.Optimizer):
    """As Fabric's: it has the attributes of an optimizer as they were when it was wrapped."""

    def __init__(self, optimizer):
        self.__dict__ = {key: value for key, value in optimizer.__dict__.items() if key not in ("state_dict", "step", "zero_grad")}
        self.__class__ = type("Wrapped", (Wrapper, type(optimizer)), {})
        self.optimizer = optimizer

    def step(self):
        self.optimizer.step()


def test_a_wrapper_shows_what_steps_leave():
    params = parameters([(5,), (7,)])
    optimizer = FusedRMSProp(params, clip_grad_norm=1.0, skip_nonfinite=True)
    wrapper = Wrapper(optimizer)
    random_grads(params)
    wrapper.step()
    assert wrapper.last_grad_norm is not None
    assert torch.equal(wrapper.last_grad_norm, optimizer.last_grad_norm)
    assert wrapper.memory() == optimizer.memory()
    assert wrapper.memory().tables > 0
    params[0].grad[0] = torch.inf
    wrapper.step()
    assert wrapper.skipped_steps == optimizer.skipped_steps == 1


# copies


@pytest.mark.parametrize("cls", [FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3])
def test_copies_have_tables_of_their_own(cls):
    params = parameters([(5,), (7,)])
    optimizer = cls(params)
    random_grads(params)
    optimizer.step()
    for made in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        others = params_of(made)
        copy_grads(params, others)
        plain = cls(twins(params))
        plain.load_state_dict(optimizer.state_dict())
        copy_grads(params, params_of(plain))
        made.step()
        plain.step()
        assert_close(others, params_of(plain), 1)
        assert made.state[others[0]]["step"] == 2
    assert optimizer.state[params[0]]["step"] == 1


def test_a_group_in_an_older_order_of_keys(optimizer):
    optimizer.state = collections.defaultdict(dict, reversed(optimizer.state.items()))
    random_grads(params_of(optimizer))
    step_and_check(optimizer)


# steps in a backward


def in_backward(**options):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    groups = [dict(params=list(layer.parameters()), lr=0.1 * (1 + k), momentum=0.5 * k) for k, layer in enumerate(model)]
    return model, apply_in_backward(groups, FusedRMSProp, **options)


@pytest.mark.parametrize("change", [lambda groups: groups.reverse(), lambda groups: groups.pop(0)], ids=["reverse", "pop"])
def test_groups_that_move_within_steps_in_a_backward(change):
    model, optimizer = in_backward()
    plain = copy.deepcopy(model)
    groups = [dict(group, params=list(layer.parameters())) for group, layer in zip(optimizer.param_groups, plain, strict=True)]
    other = FusedRMSProp(groups)
    for n in range(4):
        x = torch.randn(3, 4)
        model(x).square().sum().backward()
        plain(x).square().sum().backward()
        other.step()
        other.zero_grad()
        model.zero_grad()
        assert all(map(torch.equal, model.parameters(), plain.parameters()))
        if n == 1:
            change(optimizer.param_groups)
            change(other.param_groups)


def test_what_steps_in_a_backward_are_freed():
    model, optimizer = in_backward()
    model(torch.randn(3, 4)).sum().backward()
    old = weakref.ref(model), weakref.ref(optimizer)
    del model, optimizer
    gc.collect()
    assert [ref() for ref in old] == [None, None]


@pytest.mark.parametrize(
    "let_go",
    [lambda optimizer, kept: optimizer.state.clear(), lambda optimizer, kept: optimizer.load_state_dict(kept)],
    ids=["clear", "load"],
)
def test_states_of_steps_in_a_backward_are_freed(let_go):
    model, optimizer = in_backward()
    kept = copy.deepcopy(optimizer.state_dict())
    model(torch.randn(3, 4)).sum().backward()
    states = [weakref.ref(value) for values in optimizer.state.values() for value in values.values()]
    let_go(optimizer, kept)
    assert len(states) >= 8
    assert [ref() for ref in states] == [None] * len(states)


def test_steps_in_a_backward_need_no_one_to_hold_the_optimizer():
    model, optimizer = in_backward()
    before = model[0].weight.detach().clone()
    del optimizer
    gc.collect()
    model(torch.randn(3, 4)).sum().backward()
    assert not torch.equal(model[0].weight, before)
    file = io.BytesIO()
    torch.save(list(model.parameters()), file)
    assert len(file.getvalue()) < 10000  # no optimizer with it
    file.seek(0)
    assert len(torch.load(file, weights_only=True)) == 4


def test_a_schedule_sees_steps_in_a_backward():
    model, optimizer = in_backward()
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(torch.randn(3, 4)).sum().backward()
        schedule.step()


def test_reentrant_checkpoints_of_a_shared_weight():
    """As documented: a backward of its own, and so a step, for each part; none with use_reentrant=False."""
    from torch.utils.checkpoint import checkpoint

    for reentrant, steps in ((True, 2), (False, 1)):
        layer = nn.Linear(4, 4)
        optimizer = apply_in_backward(layer, FusedRMSProp)
        x = torch.randn(3, 4, requires_grad=True)
        for _ in range(2):
            x = checkpoint(layer, x, use_reentrant=reentrant)
        x.sum().backward()
        assert optimizer.state[layer.weight]["step"] == steps


def test_memory_with_lazy_parameters():
    model = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2))
    optimizer = FusedRMSProp(model.parameters())
    assert optimizer.memory().parameters == 4 * 8
    optimizer.share_memory()
    assert len(optimizer.state) == 2
    model(torch.randn(5, 4)).sum().backward()
    optimizer.step()
    assert optimizer.memory().parameters == 4 * (15 + 8)


# FUSEDRMS_DEBUG=1


def test_debug_says_what_has_changed(monkeypatch, capsys):
    monkeypatch.setattr(debug, "ON", True)
    a, b = parameters([(3, 4), (5,)])
    optimizer = FusedRMSProp([("a", a), ("b", b)])

    def said():
        random_grads([a, b])
        step_and_check(optimizer)
        return capsys.readouterr().err.splitlines()

    assert said() == ["fusedrms: tables made for 2 parameters, where there were none"]
    assert said() == []
    a.data = a.data.t().contiguous().t()
    first, *others = said()
    assert first == "fusedrms: tables made for 2 parameters, since the old ones do not hold for these options, tensors or gradients"
    assert any("a: strides (4, 1) -> (1, 3), address" in line for line in others)
    optimizer.param_groups[0].update(momentum=0.9, lr=1e-3, mine=torch.ones(2))
    assert "fusedrms: parameter group 0: momentum 0 -> 0.9" in said()
    optimizer.param_groups[0]["lr"] = 1e-4
    assert said() == []
    random_grads([a, b])
    b.grad = torch.empty(6, device="cpu")[1:].copy_(b.grad)
    step_and_check(optimizer)
    assert "fusedrms: b.grad: address modulo 16 0 -> 4" in capsys.readouterr().err
    optimizer.state[b]["step"] = optimizer.state[b]["step"].double()
    assert any("the step of b: " in line and "dtype torch.float32 -> torch.float64" in line for line in said())
    optimizer.release()
    assert said() == ["fusedrms: tables made for 2 parameters, where there were none"]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda bucket: bucket._host.addresses.__setitem__((1, 0), 4096), "0x1000, where no tensor of this step lies"),
        (lambda bucket: bucket._host.addresses.__setitem__((1, 0), bucket._host.addresses[1, 1]), "the table of a holds other addresses"),
        (lambda bucket: bucket._counters.addresses.__setitem__(0, 8), "0x8, where no tensor"),
        (lambda bucket: bucket._host.hyper.__setitem__((0, 0), torch.nan), "is NaN"),
    ],
    ids=["no tensor", "another's", "counter", "NaN"],
)
def test_debug_finds_wrong_tables(what, message, monkeypatch):
    monkeypatch.setattr(debug, "ON", True)
    a, b = parameters([(3, 4), (12,)])
    optimizer = FusedRMSProp([("a", a), ("b", b)])
    random_grads([a, b])
    optimizer.step()
    before = a.detach().clone()
    what(optimizer._run.plan._buckets[0])
    with pytest.raises(RuntimeError, match=message):
        optimizer.step()
    assert torch.equal(a, before)
