"""Optimizers of other systems, by their own argument names, order and defaults.

Each function returns an optimizer that computes what the code of that system computes, which is not always what its
documentation says. Parameter groups that are passed to it, or added later, may have that system's names too, and are converted
like the arguments; ``param_groups`` and errors have the names of the class returned. Everything else is that of the class:
schedulers, checkpoints. Gradients are dL/dw, as autograd leaves them. A centered variance that rounding has made negative counts
as 0, where the sources may give NaN.
"""

# May import: fusedrms.classes, fusedrms.engine.*.

from .graves import graves2013 as graves2013
from .keras import keras_rmsprop as keras_rmsprop
from .mxnet import mxnet2_rmsprop as mxnet2_rmsprop
from .mxnet import mxnet_rmsprop as mxnet_rmsprop
from .neon import neon_rmsprop as neon_rmsprop
from .optax import optax_rmsprop as optax_rmsprop
from .puzzlelib import puzzlelib_rmsprop as puzzlelib_rmsprop
from .puzzlelib import puzzlelib_rmsprop_graves as puzzlelib_rmsprop_graves
from .puzzlelib import puzzlelib_smorms3 as puzzlelib_smorms3
from .tensorflow import tensorflow_rmsprop as tensorflow_rmsprop
from .timm import timm_rmsprop_tf as timm_rmsprop_tf
