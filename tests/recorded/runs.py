"""How each system is run: a function for each, which yields the parameters after every step, and imports that system alone."""

import ast
import collections
import collections.abc
import importlib.metadata
import os
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .cases import Case
from .problem import STEPS, gradients, start

Arrays = list[np.ndarray]


def _given(case: Case, make: Callable[[np.ndarray], Any]) -> tuple[list[Any], list[list[Any]]]:
    """Parameters and the gradients of each step, as `make` makes them of arrays of the right type."""
    params = [make(array.astype(case.dtype)) for array in start(case.shapes)]
    return params, [[make(array.astype(case.dtype)) for array in gradients(case.shapes, step)] for step in range(STEPS)]


def chainer(case: Case, source: str) -> Iterator[Arrays]:
    import chainer

    params, grads = _given(case, np.asarray)
    link = chainer.Link()
    with link.init_scope():
        for k, param in enumerate(params):
            setattr(link, f"param{k}", chainer.Parameter(param))
    names = dict(chainer_rmsprop="RMSprop", chainer_rmsprop_graves="RMSpropGraves", chainer_smorms3="SMORMS3")
    optimizer = getattr(chainer.optimizers, names[case.preset])(**case.arguments)
    optimizer.setup(link)
    for name, arguments in case.helpers.items():
        optimizer.add_hook(getattr(chainer.optimizer_hooks, name)(*arguments))
    own = [getattr(link, f"param{k}") for k in range(len(params))]
    for step in grads:
        for param, grad in zip(own, step, strict=True):
            param.grad = grad
        optimizer.update()
        yield [param.array for param in own]


def jax(case: Case, source: str) -> Iterator[Arrays]:
    os.environ.update(JAX_PLATFORMS="cpu", JAX_ENABLE_X64="1")
    from jax import numpy
    from jax.example_libraries import optimizers

    params, grads = _given(case, numpy.asarray)
    init, update, get_params = getattr(optimizers, case.preset.removeprefix("jax_"))(**case.arguments)
    state = init(params)
    for k, step in enumerate(grads):
        for name, arguments in case.helpers.items():
            step = getattr(optimizers, name)(step, *arguments)
        state = update(k, step, state)
        yield [np.asarray(param) for param in get_params(state)]


def mlx(case: Case, source: str) -> Iterator[Arrays]:
    import mlx.core as mx
    from mlx.optimizers import RMSprop

    mx.set_default_device(mx.cpu)
    params, grads = _given(case, lambda array: mx.array(array.tolist(), dtype=getattr(mx, case.dtype)))
    params, optimizer = dict(enumerate(params)), RMSprop(**case.arguments)
    for step in grads:
        params = optimizer.apply_gradients(dict(enumerate(step)), params)
        yield [np.array(param) for param in params.values()]


def paddle(case: Case, source: str) -> Iterator[Arrays]:
    import paddle

    paddle.set_device("cpu")
    arrays, grads = _given(case, np.asarray)
    assign = paddle.nn.initializer.Assign
    params = [paddle.create_parameter(array.shape, case.dtype, default_initializer=assign(array)) for array in arrays]
    clips = [getattr(paddle.nn, name)(*arguments) for name, arguments in case.helpers.items()]
    optimizer = paddle.optimizer.RMSProp(parameters=params, grad_clip=clips[0] if clips else None, **case.arguments)
    for step in grads:
        for param, grad in zip(params, step, strict=True):
            (param * paddle.to_tensor(grad)).sum().backward()
        optimizer.step()
        optimizer.clear_grad()
        yield [param.numpy() for param in params]


def tensorflow(case: Case, source: str) -> Iterator[Arrays]:
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", TF_ENABLE_ONEDNN_OPTS="0", CUDA_VISIBLE_DEVICES="")
    import tensorflow as tf

    optimizer = dict(
        tensorflow_rmsprop=tf.compat.v1.train.RMSPropOptimizer,
        keras2_rmsprop=tf.keras.optimizers.legacy.RMSprop,
        keras_rmsprop=tf.keras.optimizers.RMSprop,
    )[case.preset](**case.arguments)
    arrays, grads = _given(case, np.asarray)
    params = [tf.Variable(array) for array in arrays]
    for step in grads:
        optimizer.apply_gradients([(tf.constant(grad), param) for grad, param in zip(step, params, strict=True)])
        yield [param.numpy() for param in params]


def _theano() -> Any:
    """Theano, without a compiler."""
    os.environ["THEANO_FLAGS"] = "cxx=,floatX=float64,device=cpu,blas.ldflags="
    import theano

    return theano


def _inputs(theano: Any, case: Case) -> list[Any]:
    """Symbols for the gradients."""
    return [theano.tensor.TensorType(case.dtype, [False] * len(shape))() for shape in case.shapes]


def lasagne(case: Case, source: str) -> Iterator[Arrays]:
    theano = _theano()
    # the package of Lasagne 0.1 cannot be imported with this Theano, its module of updates can
    package = sys.modules.setdefault("lasagne", types.ModuleType("lasagne"))
    package.__path__ = [str(importlib.metadata.distribution("Lasagne").locate_file("lasagne"))]
    from lasagne import updates

    params, grads = _given(case, np.asarray)
    inputs, shared = _inputs(theano, case), [theano.shared(param) for param in params]
    function = theano.function(inputs, [], updates=updates.rmsprop(inputs, shared, **case.arguments))
    for step in grads:
        function(*step)
        yield [param.get_value() for param in shared]


def tutorial(case: Case, source: str) -> Iterator[Arrays]:
    """The function rmsprop of the tutorial on LSTMs, whose file is the source: its module would load data."""
    theano = _theano()
    with open(source) as file:
        tree = ast.parse(file.read())
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in ("rmsprop", "numpy_floatX")]
    names = dict(theano=theano, tensor=theano.tensor, numpy=np, config=theano.config)
    exec(compile(tree, source, "exec"), names)
    params, grads = _given(case, np.asarray)
    shared = [theano.shared(param, name=f"param{k}") for k, param in enumerate(params)]
    (x, mask), y, lr = _inputs(theano, case), theano.tensor.scalar(), theano.tensor.scalar()
    tparams = collections.OrderedDict((param.name, param) for param in shared)
    given = dict(lr=lr, tparams=tparams, grads=[x * 1.0, mask * 1.0], x=x, mask=mask, y=y, cost=x.sum() + mask.sum() + y)
    keep_gradients, update = names["rmsprop"](**given)
    for step in grads:
        keep_gradients(*step, 0.0)
        update(1.0)  # a rate that is ignored
        yield [param.get_value() for param in shared]


def blocks(case: Case, source: str) -> Iterator[Arrays]:
    """The source is a checkout of Blocks."""
    theano = _theano()
    collections.Mapping = collections.abc.Mapping  # which it imports from where Python 3.10 no longer has it
    sys.path.insert(0, source)
    from blocks import algorithms

    params, grads = _given(case, np.asarray)
    inputs, shared = _inputs(theano, case), [theano.shared(param, name=f"param{k}") for k, param in enumerate(params)]
    helpers = [getattr(algorithms, name)(*arguments) for name, arguments in case.helpers.items()]
    rule = algorithms.CompositeRule([*helpers, algorithms.RMSProp(**case.arguments)])
    steps, updates = rule.compute_steps(collections.OrderedDict(zip(shared, inputs, strict=True)))
    function = theano.function(inputs, [], updates=[*updates, *((param, param - step) for param, step in steps.items())])
    for step in grads:
        function(*step)
        yield [param.get_value() for param in shared]


def mindspore(case: Case, source: str) -> Iterator[Arrays]:
    os.environ.update(GLOG_v="3")
    import mindspore

    mindspore.set_context(mode=mindspore.PYNATIVE_MODE, device_target="CPU")
    arrays, grads = _given(case, mindspore.Tensor)
    params = [mindspore.Parameter(array, name=f"param{k}") for k, array in enumerate(arrays)]
    optimizer = mindspore.nn.RMSProp(params, **case.arguments)
    for step in grads:
        optimizer(tuple(step))
        yield [param.asnumpy() for param in params]


class System(NamedTuple):
    """How a system is run, and whose version it has: of installed packages; elsewhere what it says is written down here."""

    run: Callable[[Case, str], Iterator[Arrays]]
    packages: tuple[str, ...]
    source: str = ""  # of what no package has: what --source has to be


SYSTEMS = {
    "chainer": System(chainer, ("chainer",)),
    "jax": System(jax, ("jax",)),
    "mlx": System(mlx, ("mlx",)),
    "paddle": System(paddle, ("paddlepaddle",)),
    "tensorflow": System(tensorflow, ("tensorflow-cpu", "keras")),
    "lasagne": System(lasagne, ("Lasagne", "Theano")),
    "mindspore": System(mindspore, ("mindspore",)),
    "theano": System(tutorial, ("Theano",), "code/lstm.py of lisa-lab/DeepLearningTutorials, commit 11c46510"),
    "blocks": System(blocks, ("Theano",), "a checkout of mila-iqia/blocks, commit c69c2dc2"),
}
