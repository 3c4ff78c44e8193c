r"""Optimizers of other systems, by their own argument names, order and defaults.

Each function returns an optimizer that computes what the *code* of that system computes, which is not always what its documentation
says.

* It returns [`FusedRMSProp`][fusedrms.FusedRMSProp], [`FusedRMSPropGraves`][fusedrms.FusedRMSPropGraves] or
  [`FusedSMORMS3`][fusedrms.FusedSMORMS3]: schedulers, checkpoints and all methods are those of the class.
* Parameter groups, those that are added later too, may have the source's names: `dict(params=..., learning_rate=0.1, clipnorm=1.0)`. They
  are converted like the arguments. `optimizer.param_groups` and errors have the names of the class.
* Gradients are dL/dw, as autograd leaves them.

In the equations, $w$ is a parameter, $g$ its gradient, and $t$ the number of the step, counted from 1. $v$ is the average of squared
gradients, $m$ the average of gradients, and $b$ the momentum buffer; the optimizer's state calls them `square_avg`, `grad_avg` and
`momentum_buffer`. They start from 0 unless the equations say otherwise. $\lVert g \rVert_2$ is the L2 norm of all gradients of the
optimizer. $\operatorname{clip}(x, \pm c)$ limits each element to the range from $-c$ to $c$. A centered variance $v - m^2$ that
rounding has made negative counts as 0, where the sources may give NaN.
"""

# May import: fusedrms.classes, fusedrms.engine.*.

from .caffe import caffe_rmsprop as caffe_rmsprop
from .chainer import chainer_rmsprop as chainer_rmsprop
from .chainer import chainer_rmsprop_graves as chainer_rmsprop_graves
from .chainer import chainer_smorms3 as chainer_smorms3
from .dl4j import dl4j_rmsprop as dl4j_rmsprop
from .family import find as find
from .flux import flux_rmsprop as flux_rmsprop
from .graves import graves2013 as graves2013
from .jax import jax_rmsprop as jax_rmsprop
from .jax import jax_rmsprop_momentum as jax_rmsprop_momentum
from .keras import keras2_rmsprop as keras2_rmsprop
from .keras import keras_rmsprop as keras_rmsprop
from .mindspore import mindspore_rmsprop as mindspore_rmsprop
from .mlx import mlx_rmsprop as mlx_rmsprop
from .mxnet import mxnet2_rmsprop as mxnet2_rmsprop
from .mxnet import mxnet_rmsprop as mxnet_rmsprop
from .neon import neon_rmsprop as neon_rmsprop
from .optax import optax_rmsprop as optax_rmsprop
from .paddle import paddle_rmsprop as paddle_rmsprop
from .puzzlelib import puzzlelib_rmsprop as puzzlelib_rmsprop
from .puzzlelib import puzzlelib_rmsprop_graves as puzzlelib_rmsprop_graves
from .puzzlelib import puzzlelib_smorms3 as puzzlelib_smorms3
from .pytorch import torch7_rmsprop as torch7_rmsprop
from .pytorch import torch_rmsprop as torch_rmsprop
from .reinforcement import a3c2016 as a3c2016
from .reinforcement import dopamine as dopamine
from .reinforcement import dqn2015 as dqn2015
from .reinforcement import dqn_zoo as dqn_zoo
from .reinforcement import impala2018 as impala2018
from .tensorflow import tensorflow_rmsprop as tensorflow_rmsprop
from .tensorflow import tf_slim_rmsprop as tf_slim_rmsprop
from .theano import blocks_rmsprop as blocks_rmsprop
from .theano import lasagne_rmsprop as lasagne_rmsprop
from .theano import theano_rmsprop as theano_rmsprop
from .timm import timm_rmsprop_tf as timm_rmsprop_tf
from .vision import efficientnet as efficientnet
from .vision import mobilenet_v3 as mobilenet_v3
from .vision import nasnet as nasnet
