"""Presets that are called by another system's names, or do not exist."""

from torch import nn

from fusedrms import FusedRMSProp, presets

model = nn.Linear(4, 2)
presets.keras_rmsprop(model.parameters(), lr=1e-3)  # wrong
presets.tensorflow_rmsprop(model.parameters())  # wrong
presets.timm_rmsprop_tf(model.parameters(), decay=0.9)  # wrong
presets.timm_rmsprop_tf(model.parameters(), alpha=0.9)
presets.pytorch_rmsprop(model.parameters())  # wrong
presets.graves2013(model.parameters(), 1e-4)  # wrong
presets.a3c2016(model.parameters(), 7e-4, 0.99, 0.1, 40.0)  # wrong
presets.dqn2015(model.parameters(), minibatch_size="32")  # wrong
other: FusedRMSProp = presets.chainer_smorms3(model.parameters())  # wrong
presets.find(3)  # wrong
presets.find("dqn").make(model.parameters())  # wrong
presets.find("dqn")[0].make(model.parameters())
