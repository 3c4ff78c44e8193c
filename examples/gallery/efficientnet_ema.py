# %% [markdown]
# # A small EfficientNet, with averages of its weights
#
# EfficientNet was trained with TensorFlow's RMSProp, a learning rate that decays in steps, and a moving average of the weights,
# also called EMA. This page trains a small one by the same recipe. Then it compares the weights with their averages.
#
# The pictures are drawn by a program: ten shapes, turned, crossed by a stroke, with noise. Nothing is downloaded.

# %% Imports and data
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from page import unless_small

from fusedrms import presets
from fusedrms.schedules import ExponentialDecay
from shapes import SHAPES, draw
from train_efficientnet import STATISTICS, accuracy, efficientnet, groups

EPOCHS, BATCH = unless_small(6, small=2), 64
images, labels = draw(unless_small(4096, small=128), seed=0)
held_out = draw(unless_small(1024, small=32), seed=1)

# %% One training picture of each of the ten shapes
figure, axes = plt.subplots(2, 5, figsize=(8, 3.6))
for label, (name, ax) in enumerate(zip(SHAPES, axes.flat, strict=True)):
    ax.imshow(((images[labels == label][0] + 1) / 2).clamp(0, 1).permute(1, 2, 0))
    ax.set_title(name, fontsize=9)
    ax.set_axis_off()
plt.show()

# %% [markdown]
# ## The recipe
#
# `presets.efficientnet` is the optimizer of the published code: TensorFlow's RMSProp with decay and momentum 0.9, epsilon 0.001,
# and averages of decay 0.9999. These warm up: the decay is (1 + t) / (10 + t) at step t, as long as that is smaller.
# `base_learning_rate` is the rate for 256 images. The preset scales it to the batch.
#
# `ExponentialDecay` multiplies the rate by 0.97 every 2.4 epochs, after a warm-up of one epoch. `groups` excludes the parameters
# of batch norm from weight decay.

# %% Model, optimizer, schedule
torch.manual_seed(0)
model = efficientnet()
optimizer = presets.efficientnet(groups(model), base_learning_rate=0.016, moving_average_decay=0.9999, train_batch_size=BATCH)
steps = len(images) // BATCH
schedule = ExponentialDecay(optimizer, 2.4 * steps, 0.97, staircase=True, warmup_steps=steps)
options = ("initial_lr", "alpha", "momentum", "lr_in_momentum", "eps", "eps_placement", "initial_square_avg", "ema_decay", "ema_warmup")
print(*(f"{name}: {optimizer.param_groups[0][name]}" for name in options), sep="\n")

# %% [markdown]
# ## Training
#
# The optimizer updates the averages in the same pass as the weights. Within `with optimizer.averaged():` the model has the
# averages, and after it the weights again. Batch norm's statistics fit neither exactly, so `accuracy` makes them anew for both, on
# a copy of the model.

# %% Training, and the accuracy of weights and averages after each epoch
rates, of_weights, of_averages = [], [], []
for epoch in range(EPOCHS):
    model.train()
    for chosen in torch.randperm(len(images)).split(BATCH)[:steps]:
        loss = F.cross_entropy(model(images[chosen]), labels[chosen], label_smoothing=0.1)
        loss.backward()
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    of_weights.append(accuracy(model, images[:STATISTICS], *held_out))
    with optimizer.averaged():
        of_averages.append(accuracy(model, images[:STATISTICS], *held_out))
    print(f"epoch {epoch + 1:2}: weights {of_weights[-1]:.2f}%, averages {of_averages[-1]:.2f}%")

# %% Left: the held-out accuracy of weights and averages by epoch. Right: the learning rate by epoch
figure, (left, right) = plt.subplots(1, 2)
epochs = range(1, EPOCHS + 1)
left.plot(epochs, of_weights, "o--", label="weights")
left.plot(epochs, of_averages, "o-", label="averages")
left.set(xlabel="epoch", ylabel="held-out accuracy (%)")
left.legend()
right.plot([step / steps for step in range(len(rates))], rates)
right.set(xlabel="epoch", ylabel="learning rate", ylim=(0, None))
plt.show()

# %% [markdown]
# ## Saving the averages
#
# The `state_dict` of the model within the block has the averages. `optimizer.averages()` gives them one by one.

# %% The averages as a state dict
with optimizer.averaged():
    saved = {name: value.clone() for name, value in model.state_dict().items()}
apart = [(average - parameter).norm() / parameter.norm() for _, parameter, average in optimizer.averages() if parameter.norm() > 0]
print(f"{len(saved)} tensors saved; averages differ from weights by {100 * torch.stack(apart).median():.1f}% (median of the parameters)")

# %% [markdown]
# ## Read on
#
# * [Statistics and averages](../one_pass.md): the options of averages, and what they cost.
# * [Coming from …](../coming_from.md): the presets of TensorFlow, Keras, timm and others.
# * [train_efficientnet.py](../../examples/train_efficientnet.py): the whole program, and the sources of the recipe.
