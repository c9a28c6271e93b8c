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
# # Ten examples each: how does a client find its group?
#
# A mixture must be found before it can help. Here 200 clients have ten training images each, and
# each belongs to one of four groups: a group holds its camera upright, on its side, or upside down.
# Which group, nobody says. Four ways to find mixtures train the same base and the same bank:
#
# * **gradient**: the mixture's logits follow their gradient, as in the FLoRAL paper;
# * **losses**: a client prefers the adaptor that alone loses least on its examples;
# * **discriminants**: clients first tell what their examples look like, and the server sees sums
#   over many clients alone; groups are found in these before any adaptor has learnt a thing;
# * **known**: an oracle tells. No one has it; it shows what there is to gain.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

import floral as fl

# %%
dataset = fl.data.federate(
    fl.data.digits(),
    partition=fl.data.iid(clients=200),
    shift=fl.data.rotate(clusters=4),
    split={"test": 0.4},
    keep=0.67,
    seed=0,
)
clusters = dataset.traits["cluster"]
print(dataset.describe())

figure, axes = plt.subplots(4, 10, figsize=(8, 3.6), layout="constrained")
for group, row in enumerate(axes):
    for place, axis in enumerate(row):
        axis.imshow(
            dataset.client(group)["train"]["x"][place, ..., 0],
            cmap="gray_r",
            interpolation="nearest",
        )
        axis.set_axis_off()
figure.suptitle("All that a client of each group has")
plt.show()

# %% [markdown]
# ## Four runs that differ in their mixtures alone

# %%
model = fl.models.mlp(10, hidden=(100,))
rules = [
    fl.adaptors.Rule(".*/kernel", fl.adaptors.low_rank(budget=0.05)),
    fl.adaptors.Rule(".*/bias", fl.adaptors.additive(bound=1.0)),
]
adapted = fl.adaptors.adapt(model, rules, fl.simulate.sample_batch(dataset))
ways = {
    "gradient": (fl.mixtures.softmax(), ("base", "bank", "mixture")),
    "losses": (fl.mixtures.exponential_weights(every=5), ("base", "bank")),
    "discriminants": (
        fl.mixtures.discriminants(size=128, survey_rounds=10, group_rounds=10),
        ("base", "bank"),
    ),
    "known": (fl.mixtures.known(), ("base", "bank")),
}


def train(mixing, trained, rounds=60, every=10):
    """Accuracy and mixtures every so many rounds, and the last state."""
    algorithm = fl.algorithms.floral(
        adapted,
        fl.losses.cross_entropy,
        fl.algorithms.local_solver(optax.sgd, learning_rate=0.1),
        mixing,
        num_adaptors=4,
        train=trained,
        mixture_learning_rate=0.3 if "mixture" in trained else None,
        precondition_epsilon=1e-3,
    )
    simulator = fl.simulate.make_simulator(
        algorithm,
        model,
        dataset,
        metrics={"accuracy": fl.metrics.accuracy()},
        batching=fl.data.batching(batch_size=10, steps=2),
        cohort=fl.simulate.fixed(size=40),
    )
    state, evaluations = simulator.init(jax.random.key(0)), {}
    for taken in range(every, rounds + 1, every):
        state, _ = simulator.rounds(state, every)
        evaluations[taken] = simulator.evaluate(state, "test")
    return evaluations, state


runs = {name: train(*way) for name, way in ways.items()}
for name, (evaluations, _) in runs.items():
    last = evaluations[max(evaluations)]
    found = fl.mixtures.agreement(last["mixture"], clusters)
    print(f"{name:14} accuracy {last['accuracy'].mean():.1%}, in their true group {found:.0%}")

# %% [markdown]
# ## Who finds the groups, and what it is worth

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharex=True)
colors = dict(zip(ways, ("#D55E00", "#E69F00", "#0072B2", "#000000"), strict=True))
for name, (evaluations, _) in runs.items():
    taken = list(evaluations)
    style = {"color": colors[name], "linestyle": ":" if name == "known" else "-"}
    found = [fl.mixtures.agreement(e["mixture"], clusters) for e in evaluations.values()]
    accuracy = [e["accuracy"].mean() for e in evaluations.values()]
    axes[0].plot(taken, 100 * np.array(found), label=name, **style)
    axes[1].plot(taken, 100 * np.array(accuracy), label=name, **style)
axes[0].set(xlabel="round", ylabel="clients in their true group (%)", ylim=(0, 104))
axes[1].set(xlabel="round", ylabel="test accuracy, mean over clients (%)")
for axis in axes:
    axis.grid(alpha=0.3)
figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=4)
plt.show()

# %%
# Clients stand by their true group, adaptors by the group that uses them most: groups are blocks.
by_group = np.argsort(clusters, kind="stable")
figure, axes = plt.subplots(1, 3, figsize=(8, 4), layout="constrained", sharey=True)
for axis, name in zip(axes, ("gradient", "losses", "discriminants"), strict=True):
    evaluations, _ = runs[name]
    weights = evaluations[max(evaluations)]["mixture"][by_group]
    means = [weights[clusters[by_group] == group].mean(axis=0) for group in range(4)]
    adaptors = np.argsort(np.argmax(means, axis=0), kind="stable")
    image = axis.imshow(
        weights[:, adaptors],
        aspect="auto",
        cmap="cividis",
        vmin=0,
        vmax=1,
        interpolation="nearest",
    )
    axis.set_xticks(range(4), adaptors)
    axis.set(title=name, xlabel="adaptor")
axes[0].set_ylabel("clients, sorted by true group")
figure.colorbar(image, ax=axes, label="weight")
plt.show()

# %% [markdown]
# ## What the discriminants saw
#
# Clients' mean sketches differ by chance, and by group. The directions in which they differ by more
# than chance explains stand out: with four groups there are three. So the data themselves say how
# many groups there are, before a single adaptor is trained
# (`fl.mixtures.discriminants(find_count=True)` rests the adaptors that are not needed).

# %%
grouping = runs["discriminants"][1].server.inference.clustering
spread = np.asarray(grouping.spread)[:12]
figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
stand_out = np.arange(len(spread)) < int(grouping.groups) - 1
axis.bar(
    np.arange(1, len(spread) + 1), spread, color=np.where(stand_out, colors["discriminants"], "0.7")
)
axis.set(
    xlabel="direction",
    ylabel="variance between clients,\nover what chance explains",
    title=f"{int(grouping.groups)} groups: {int(grouping.groups) - 1} directions stand out",
)
plt.show()
