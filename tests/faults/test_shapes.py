"""What a loss, a metric or a model gives is one row an example, and meets its own target alone.

All of it is refused when the simulator is made, before anything is compiled.
"""

# ruff: noqa: E501  (a row is a line)

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import floral as fl
from floral.config.build import build
from floral.config.reading.resolve import methods, read
from floral.errors import SpecError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(7, 4)).astype(np.float32)
LABELS = np.arange(7) % 3
NUMBERS = (X @ np.array([1.0, -2.0, 3.0, 0.5])).astype(np.float32)  # [7], exactly linear
LOCAL = fl.algorithms.local_solver(optax.sgd, learning_rate=0.1)


def two_clients(y, **settings):
    split = {"x": X, "y": y}
    return fl.data.from_clients([{"train": split, "test": split}] * 2, **settings)


def network(outputs, apply=lambda w, x: jnp.tanh(x @ w)):
    return fl.models.from_function(
        lambda key, x: {"w": 0.1 * jax.random.normal(key, (4, outputs))},
        lambda params, x: apply(params["w"], x),
    )


def linear(outputs):
    return network(outputs, lambda w, x: x @ w)


def simulator(model, data, loss, *, metrics=None, batch_size=7):
    return fl.simulate.make_simulator(
        fl.algorithms.fedavg(model, loss, LOCAL),
        model,
        data,
        metrics=metrics or {},
        batching=fl.data.batching(batch_size=batch_size),
        execution=fl.simulate.execution(devices=1),
    )


def trained(sim, rounds=60):
    state = sim.init(jax.random.key(0))
    for _ in range(rounds):
        state, metrics = sim.round(state)
    return float(metrics["loss_sum"] / metrics["examples"])


def fail(words):
    raise AssertionError(words)


def error(outputs, batch):
    return outputs - batch["y"]


CE, SE = fl.losses.cross_entropy, fl.losses.squared_error
COLUMN = NUMBERS[:, None]

LOSSES = {
    "a column": (1, COLUMN, lambda o, b: error(o, b) ** 2, r"got \[B, 1\]; take .mean\(-1\)"),
    "a scalar": (1, COLUMN, lambda o, b: jnp.mean(error(o, b) ** 2), r"got \[\]; leave out the mean"),
    "all pairs": (1, NUMBERS, lambda o, b: error(o, b) ** 2, r"all pairs of examples, \[B, B\]: outputs are \[B, 1\], targets \[B\]"),
    "a mean over pairs": (1, NUMBERS, lambda o, b: jnp.mean(error(o, b) ** 2, -1), "all pairs"),
    "a mean over the batch": (7, np.ones((7, 7), "f"), lambda o, b: jnp.mean(error(o, b), 0), "keep the first axis"),
    "three axes": (2, np.ones((7, 2), "f"), lambda o, b: error(o, b)[:, None], r"reshape\(B, -1\)"),
    "whole numbers": (1, COLUMN, lambda o, b: jnp.zeros(o.shape[:1], int), "floats.*got int32"),
    "truth values": (1, COLUMN, lambda o, b: o[:, 0] > 0, "floats.*got bool"),
    "two values": (1, COLUMN, lambda o, b: (o[:, 0], o[:, 0]), "got tuple"),
    "text": (1, COLUMN, lambda o, b: "low", "raised TypeError"),
    "arguments (outputs, y)": (1, COLUMN, lambda o, y: (o - y) ** 2, r"called with \(outputs, batch\), the targets being batch\['y'\]"),
    "a key that is not there": (1, COLUMN, lambda o, b: o - b["label"], "KeyError"),
    "three arguments": (1, COLUMN, lambda o, b, key: o, "takes other arguments"),
    "a name": (1, COLUMN, "squared_error", "must be a function of .outputs, batch.*got str"),
    "nothing": (1, COLUMN, None, "got NoneType"),
    "classes for a column of labels": (3, LABELS[:, None], CE, r"labels \[B, 1\]; drop the last axis"),
    "classes for one-hot labels": (3, np.eye(3, dtype=int)[LABELS], CE, r"argmax\(-1\) of one-hot"),
    "one class alone": (1, LABELS, CE, r"outputs \[B, 1\] have one class alone"),
    "labels that are floats": (3, LABELS.astype("f"), CE, "labels are float32, expected whole numbers; cast them"),
    "two outputs for three targets": (2, np.ones((7, 3), "f"), SE, r"outputs \[B, 2\] and targets \[B, 3\]"),
    "two outputs for one target": (2, NUMBERS, SE, r"outputs \[B, 2\] and targets \[B\]"),
    "one output for two targets": (1, np.ones((7, 2), "f"), SE, r"outputs \[B, 1\] and targets \[B, 2\]"),
}  # fmt: skip


@pytest.mark.parametrize(("outputs", "y", "loss", "said"), LOSSES.values(), ids=LOSSES)
def test_a_loss_that_is_not_one_float_an_example_is_refused(outputs, y, loss, said):
    with pytest.raises(SpecError, match=said):
        simulator(network(outputs), two_clients(y), loss)


@pytest.mark.parametrize("algorithm", ["ensemble", "partial", "dual_adaptor", "floral"])
def test_every_root_of_the_algorithms_hands_its_loss_to_the_check(algorithm, build):
    made = build(algorithm, **({"private": ["**"]} if algorithm == "partial" else {}))
    assert made.loss is SE


def test_local_training_checks_the_loss_of_an_algorithm_that_names_none():
    model, data = linear(1), two_clients(COLUMN)
    bare = fl.algorithms.fedavg(model, lambda o, b: error(o, b) ** 2, LOCAL)._replace(loss=None)
    with pytest.raises(SpecError, match=r"loss: expected \[B\].*got \[B, 1\]"):
        fl.simulate.make_simulator(bare, model, data, metrics={})


@pytest.mark.parametrize("y", [NUMBERS, COLUMN], ids=["targets [B]", "targets [B, 1]"])
def test_one_output_and_one_target_are_each_others(y):
    assert trained(simulator(linear(1), two_clients(y), SE)) < 0.01


def test_outputs_without_an_axis_meet_a_column_of_targets():
    model = network(1, lambda w, x: (x @ w)[:, 0])
    assert trained(simulator(model, two_clients(COLUMN), SE)) < 0.01


LEGITIMATE = {
    "weights of outputs": (3, np.ones((7, 3), "f"), lambda o, b: (error(o, b) ** 2 * jnp.arange(3.0)[None]).mean(-1)),
    "pairs on purpose": (3, np.ones((7, 3), "f"), lambda o, b: jnp.sum(jnp.where(b["mask"][None], (o @ o.T) ** 2, 0), -1) + SE(o, b)),
    "one logit of two classes": (1, LABELS % 2, lambda o, b: optax.sigmoid_binary_cross_entropy(o[:, 0], b["y"])),
    "a scale": (1, COLUMN, lambda o, b: 0.5 * SE(o, b) + 1.0),
}  # fmt: skip


@pytest.mark.parametrize(("outputs", "y", "loss"), LEGITIMATE.values(), ids=LEGITIMATE)
def test_losses_of_ones_own_that_are_right_are_taken(outputs, y, loss):
    classes = 2 if y.dtype.kind == "i" else None
    simulator(linear(outputs), two_clients(y, num_classes=classes), loss)


def test_a_loss_may_promote_ranks_without_pairing_examples():
    weights = np.array([1.0, 2.0, 3.0], np.float32)
    with jax.numpy_rank_promotion("allow"):
        loss = lambda o, b: (error(o, b) ** 2 * weights).mean(-1)  # noqa: E731
        simulator(linear(3), two_clients(np.ones((7, 3), "f")), loss)


def test_fewer_outputs_than_classes_are_refused_whatever_the_loss():
    for loss in (CE, lambda o, b: -jax.nn.log_softmax(o)[:, 0]):
        with pytest.raises(SpecError, match="2 outputs, the data have 3 classes"):
            simulator(network(2), two_clients(LABELS, num_classes=3), loss)


MODELS = {
    "outputs alone": (lambda b, p, s: b["x"] @ p["w"], r"must give a pair \(outputs, stats\)"),
    "a scalar": (lambda b, p, s: (jnp.sum(b["x"] @ p["w"]), s), r"one row an example, got \[\]"),
    "the wrong axis first": (lambda b, p, s: ((b["x"] @ p["w"]).T, s), r"got \[1, B\]"),
    "no output": (lambda b, p, s: (None, s), r"expected outputs \[B, ...\], got NoneType"),
    "text": (lambda b, p, s: ("high", s), "raised TypeError"),
    "statistics from nowhere": (lambda b, p, s: (b["x"] @ p["w"], {"m": jnp.ones(3)}), "statistics of the shapes"),
    "another width of inputs": (lambda b, p, s: (b["x"] @ jnp.ones((5, 1)), s), r"model.apply is called with .* raised TypeError"),
}  # fmt: skip


@pytest.mark.parametrize(("apply", "said"), MODELS.values(), ids=MODELS)
def test_a_model_that_gives_anything_but_outputs_and_statistics_is_refused(apply, said):
    model = fl.models.Model(
        lambda key, batch: ({"w": jnp.ones((4, 1))}, ()),
        lambda params, stats, batch, *, key=None, train=False: apply(batch, params, stats),
    )
    with pytest.raises(SpecError, match=said):
        simulator(model, two_clients(COLUMN), SE)


def test_a_model_whose_start_has_no_statistics_at_all_is_refused():
    model = fl.models.Model(lambda key, batch: {"w": jnp.ones((4, 1))}, lambda *a, **k: None)
    with pytest.raises(SpecError, match=r"model.init must give a pair \(params, stats\)"):
        simulator(model, two_clients(COLUMN), SE)


METRICS = {
    "all pairs": (lambda o, b: jnp.abs(o - b["y"]), NUMBERS, 1, "all pairs"),
    "a column": (lambda o, b: jnp.abs(o - b["y"]), COLUMN, 1, r"got \[B, 1\]; take .mean"),
    "a scalar": (lambda o, b: jnp.mean(o), COLUMN, 1, r"got \[\]"),
    "a factory that was not called": (fl.metrics.accuracy, LABELS, 3, r"call it: accuracy\(\)"),
    "one argument": (lambda o: o, COLUMN, 1, "must be a Metric"),
    "a number": (3, COLUMN, 1, "got int 3"),
    "complex numbers": (lambda o, b: o[:, 0] * 1j, COLUMN, 1, "values: expected real numbers, got complex64"),
    "an assertion that fails": (lambda o, b: fail("the shapes differ"), COLUMN, 1, "raised AssertionError: the shapes differ"),
    "accuracy of labels [B, 1]": (fl.metrics.accuracy(), LABELS[:, None], 3, r"labels \[B, 1\]"),
    "accuracy of one output": (fl.metrics.accuracy(), LABELS, 1, "one class alone"),
    "accuracy of numbers": (fl.metrics.accuracy(), NUMBERS, 3, "labels are float32"),
    "more places than classes": (fl.metrics.top_k_accuracy(k=5), LABELS, 3, "at most the model's 3 outputs, got 5"),
    "F1 of one output": (fl.metrics.macro_f1(), LABELS, 1, "one class alone"),
    "an area of numbers": (fl.metrics.auc(), NUMBERS, 1, "labels are float32"),
    "errors of two outputs": (fl.metrics.rmse(), NUMBERS, 2, r"outputs \[B, 2\] and targets \[B\]"),
    "sums of an example": (fl.metrics.Metric(lambda o, b: o[:, 0], jnp.add, jnp.sum), COLUMN, 1, r"must not depend on the size B of a batch, got \[B\]"),
    "a merge that changes dtypes": (fl.metrics.Metric(lambda o, b: jnp.sum(b["mask"]), lambda l, r: l + 1.0 * r, lambda s: s), COLUMN, 1, "merge must keep"),
}  # fmt: skip


@pytest.mark.parametrize(("metric", "y", "outputs", "said"), METRICS.values(), ids=METRICS)
def test_a_metric_that_does_not_fit_is_refused_by_its_name(metric, y, outputs, said):
    def loss(out, batch):
        return jnp.mean(out**2, -1)

    with pytest.raises(SpecError, match=f"^metrics.mine.*{said}"):
        simulator(network(outputs), two_clients(y), loss, metrics={"mine": metric})


@pytest.mark.parametrize("name", ["client", "examples", "mixture", "", 3])
def test_metrics_may_not_take_the_names_of_other_columns(name):
    with pytest.raises(SpecError, match="metrics"):
        simulator(network(1), two_clients(COLUMN), SE, metrics={name: fl.metrics.rmse()})


def test_a_plain_function_is_the_metric_of_its_mean():
    given = {"plain": lambda o, b: jnp.abs(error(o, b))[:, 0], "mae": fl.metrics.mae()}
    sim = simulator(network(1), two_clients(COLUMN), SE, metrics=given)
    report = sim.evaluate(sim.init(jax.random.key(0)))
    np.testing.assert_array_equal(report["plain"], report["mae"])


DIRECT = {
    "values [B, B]": (lambda: fl.metrics.from_per_example(lambda o, b: o - b["y"][None]), np.ones((4, 1), "f"), np.zeros(4, "f"), r"got \[B, B\]; give outputs and targets the same shape"),
    "labels [B, 1]": (fl.metrics.accuracy, np.ones((4, 3), "f"), np.zeros((4, 1), int), "drop the last axis"),
    "one output": (fl.metrics.accuracy, np.ones((4, 1), "f"), np.zeros(4, int), "one class alone"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "outputs", "y", "said"), DIRECT.values(), ids=DIRECT)
def test_a_metric_refuses_by_itself_what_would_exceed_one(make, outputs, y, said):
    batch = {"y": jnp.asarray(y), "mask": jnp.ones(4, bool)}
    with pytest.raises(SpecError, match=said):
        make().from_outputs(jnp.asarray(outputs), batch)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_a_config_regresses_one_number_an_example(kind, tmp_path):
    np.savez(tmp_path / "numbers.npz", x=X, y=NUMBERS)
    source = {"kind": "npz", "path": str(tmp_path / "numbers.npz")}
    config = read(
        {
            "rounds": 1,
            "data": {"source": source, "partition": {"kind": "iid", "clients": 2}},
            "model": {"kind": kind},
            "algorithm": {"kind": "fedavg"},
            "local": {"kind": "sgd", "learning_rate": 0.05},
            "execution": {"devices": 1},
        }
    )
    (one,) = methods(config).values()
    sim = build(one).simulator
    before, after = trained(sim, 1), trained(sim, 20)
    assert after < 0.6 * before
