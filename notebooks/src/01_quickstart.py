# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What is a mixture of adaptors?
#
# Forty people write digits. Each belongs to one of four groups, and each group names its digits
# differently: what the first group calls 3, the second calls 4. No one says which group they are
# in, and no digit may leave its owner's device.
#
# One model for all must fail: the same picture has four names. A model for each alone has too few
# examples. FLoRAL trains **one base for all and a small bank of low-rank adaptors**; each client
# keeps only a **mixture**, four numbers that say how much of each adaptor is its own. The groups
# are found on the way.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

import floral as fl

# %% [markdown]
# ## The clients
#
# 5,000 real handwritten digits, dealt to 50 clients. Ten of them are kept out of training: they
# will join later. `label_shift` gives client k the group k mod 4 and shifts its labels.

# %%
dataset = fl.data.federate(
    fl.data.digits(),
    partition=fl.data.iid(clients=50),
    shift=fl.data.label_shift(clusters=4),
    split={"test": 0.25},
    unseen=10,
    seed=0,
)
clusters = dataset.traits["cluster"]
print(dataset.describe())

figure, axes = plt.subplots(4, 8, figsize=(8, 4.4), layout="constrained")
for group, row in enumerate(axes):
    examples = dataset.client(group)["train"]
    for place, axis in enumerate(row):
        axis.imshow(examples["x"][place, ..., 0], cmap="gray_r", interpolation="nearest")
        axis.set_title(str(examples["y"][place]), fontsize=9)
        axis.set_axis_off()
figure.suptitle("A client of each group: its digits, and what it calls them")
plt.show()

# %% [markdown]
# ## One base, one bank
#
# Rules say which parameters are adapted and how: every matrix W by a product a·b of low rank,
# every bias by an offset of its own. An adaptor is 5 % of the base here; the client's own part is
# four numbers.

# %%
model = fl.models.mlp(10, hidden=(100,))
rules = [
    fl.adaptors.Rule(".*/kernel", fl.adaptors.low_rank(budget=0.05)),
    fl.adaptors.Rule(".*/bias", fl.adaptors.additive()),
]
batch = fl.simulate.sample_batch(dataset)
adapted = fl.adaptors.adapt(model, rules, batch)
print(fl.adaptors.format_table(fl.adaptors.plan_table(adapted.plan, adapted.methods)))

# %% [markdown]
# ## Training
#
# Client k trains `base + Σ_c π_c adaptor_c` on its own digits: the base, the adaptors and its
# mixture π at once. The server averages the base over all clients, and adaptor c over those who
# use it. The loop is yours: a round is one compiled function of the state.

# %%
algorithm = fl.algorithms.floral(
    adapted,
    fl.losses.cross_entropy,
    fl.algorithms.local_solver(optax.sgd, learning_rate=0.1),
    fl.mixtures.softmax(),
    num_adaptors=4,
    mixture_learning_rate=1.0,
    precondition_epsilon=1e-3,
)
simulator = fl.simulate.make_simulator(
    algorithm,
    model,
    dataset,
    metrics={"accuracy": fl.metrics.accuracy()},
    batching=fl.data.batching(batch_size=10, epochs=2),
)
print(simulator.costs)

seen = dataset.seen
state = simulator.init(jax.random.key(0))
snapshots = {}
for taken in range(1, 41):
    state, _ = simulator.round(state)
    if taken in (1, 5, 10, 15, 20, 25, 30, 40):
        snapshots[taken] = simulator.evaluate(state, "test", seen)

# %% [markdown]
# ## Finding the groups
#
# Each row is a client, sorted by its true group; each column an adaptor; bright is much weight.
# All start in the middle. No one told them, yet clients of a group end up on the same adaptor.
# (The numbering of adaptors means nothing.)

# %%
order = seen[np.argsort(clusters[seen], kind="stable")]
last = snapshots[40]["mixture"]
means = [last[clusters[seen] == group].mean(axis=0) for group in range(4)]
adaptors = np.argsort(np.argmax(means, axis=0), kind="stable")  # in the order of the groups
figure, axes = plt.subplots(1, 4, figsize=(9, 4), layout="constrained", sharey=True)
for axis, taken in zip(axes, (1, 10, 20, 40), strict=True):
    weights = dict(zip(seen, snapshots[taken]["mixture"], strict=True))
    image = axis.imshow(
        np.stack([weights[k] for k in order])[:, adaptors],
        aspect="auto",
        cmap="cividis",
        vmin=0,
        vmax=1,
        interpolation="nearest",
    )
    axis.set_xticks(range(4), adaptors)
    axis.set(title=f"after round {taken}", xlabel="adaptor")
axes[0].set_ylabel("clients, sorted by true group")
figure.colorbar(image, ax=axes, label="weight")
plt.show()

# %% [markdown]
# As the groups come apart, accuracy jumps: before, every picture had four names.
#
# Here mixtures follow their gradient, as the paper's do. Not every seed finds all groups this way:
# the head of `configs/quickstart.yaml` has ten of them. The next notebook shows other ways, one of
# which that config uses.

# %%
taken = list(snapshots)
accuracy = [100 * snapshots[t]["accuracy"].mean() for t in taken]
found = [100 * fl.mixtures.agreement(snapshots[t]["mixture"], clusters[seen]) for t in taken]
figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
axis.plot(taken, accuracy, "o-", label="test accuracy, mean over clients", color="#0072B2")
axis.plot(taken, found, "s--", label="clients in their true group", color="#D55E00")
axis.set(xlabel="round", ylabel="%", ylim=(0, 102))
figure.legend(loc="outside lower center", ncols=2)
axis.grid(alpha=0.3)
plt.show()

# %% [markdown]
# ## A new client joins
#
# A client that was never seen gets the finished base and bank, and learns **four numbers**. How
# many steps does that take? `personalization` says what such a client may do before it predicts.

# %%
unseen = np.flatnonzero(dataset.unseen)
joined = {}
for steps in (1, 5, 20):
    newcomer = fl.simulate.make_simulator(
        algorithm,
        model,
        dataset,
        metrics={"accuracy": fl.metrics.accuracy()},
        personalization=fl.simulate.Personalization(fl.data.batching(batch_size=10, steps=steps)),
    )
    joined[steps] = newcomer.evaluate(state, "test", unseen)["accuracy"]

figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
for place, values in enumerate(joined.values()):
    axis.scatter(place + np.linspace(-0.2, 0.2, len(values)), 100 * np.sort(values), s=18)
    axis.hlines(100 * values.mean(), place - 0.3, place + 0.3, linewidth=2)
axis.axhline(100 * snapshots[40]["accuracy"].mean(), color="gray", linestyle=":")
axis.set(xlabel="steps a new client learns its mixture", ylabel="its test accuracy (%)")
axis.set_xticks(range(len(joined)), [str(steps) for steps in joined])
axis.set_title("dots: new clients, bar: their mean, dotted: mean of trained clients", fontsize=10)
plt.show()

# %% [markdown]
# ## A model to take away
#
# Merged with its mixture, a client's model is a plain params tree of the original shapes: nothing
# of floral is needed to use it.

# %%
client = 7
params = simulator.export(state, client)
x = dataset.client(client)["test"]["x"][:4]
plain, _ = model.apply(params, (), {"x": x})
mixed = simulator.predict(state, client, x)
print("largest difference between merged and mixed outputs:", float(abs(plain - mixed).max()))
