"""kNN-Per: a global model and the nearest of one's own examples."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from floral import algorithms, data, losses, metrics, models, simulate
from floral.algorithms._knn_per import Memory
from floral.errors import SpecError
from floral.metrics import from_per_example

LOCAL = algorithms.local_solver(optax.sgd, learning_rate=0.1)
SAMPLE = {"x": np.zeros((2, 2), np.float32), "y": np.zeros(2, np.int32), "mask": np.ones(2, bool)}
CLASSES = 3


@pytest.fixture(scope="module")
def labelled(make_population, two_classes):
    """The five clients, with two classes."""
    return make_population(targets=two_classes)


@pytest.fixture(scope="module")
def classifier(build, simulator, labelled):
    """``(name, **settings) -> Simulator`` of a classifier by the shared network."""
    measures = {
        "accuracy": metrics.accuracy(),
        "loss": from_per_example(losses.cross_entropy),
    }

    def make(name, **settings):
        return simulator(build(name, of_classes=True, **settings), labelled, metrics=measures)

    return make


@pytest.fixture(scope="module")
def server():
    """FedAvg's server of a linear model from two features to three classes."""
    rng = np.random.default_rng(0)
    dense = {"kernel": rng.standard_normal((2, CLASSES)), "bias": rng.standard_normal(CLASSES)}
    params = {"params": {"Dense_0": jax.tree.map(jnp.float32, dense)}}
    return knn().init(jax.random.key(0), params, ())


@pytest.fixture(scope="module")
def memory():
    """Five examples and two empty places, one of which lies where an input is."""
    rng = np.random.default_rng(1)
    features = rng.standard_normal((7, 2)).astype(np.float32)
    features[3] = INPUTS[0]
    return Memory(
        jnp.asarray(features),
        jnp.array([0, 1, 1, 2, 0, 2, 0]),
        jnp.array([True, True, True, False, True, True, False]),
        jnp.float32(0.3),
    )


INPUTS = np.random.default_rng(2).standard_normal((4, 2)).astype(np.float32)


def knn(model=None, sample=SAMPLE, **settings):
    """The algorithm, what clients do in it compiled."""
    model = models.linear(CLASSES) if model is None else model
    algorithm = algorithms.knn_per(model, losses.cross_entropy, LOCAL, sample, **settings)
    return algorithm._replace(
        personalize=jax.jit(algorithm.personalize), predict=jax.jit(algorithm.predict)
    )


def _softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def _by_model(server, x):
    dense = server.params["params"]["Dense_0"]
    return _softmax(np.float64(x) @ np.float64(dense["kernel"]) + np.float64(dense["bias"]))


def _by_neighbors(x, features, labels, neighbors, scale):
    """The vote for each class, written out for one input."""
    squares = np.sum((np.float64(features) - x) ** 2, axis=1)
    nearest = np.argsort(squares)[:neighbors]
    kernel = np.exp(-squares[nearest] / (2 * scale))
    return np.array([kernel[labels[nearest] == c].sum() for c in range(CLASSES)]) / kernel.sum()


def test_without_weight_on_neighbors_it_is_fedavg_bit_for_bit(classifier, after, same):
    knn_per, average = classifier("knn_per", local_weight=0.0), classifier("fedavg")
    state, expected = after(knn_per, 3), after(average, 3)
    same(state.server, expected.server)
    x = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    same(knn_per.predict(state, 2, x), average.predict(expected, 2, x))
    same(knn_per.evaluate(state), average.evaluate(expected))
    assert knn_per.costs.upload_bytes == average.costs.upload_bytes
    assert knn_per.costs.client_state_bytes == 0


def test_the_nearest_example_alone_is_each_training_example_itself(classifier, after, labelled):
    sim = classifier("knn_per", local_weight=1.0, num_neighbors=1)
    state = after(sim, 1)
    for client in range(5):
        own = labelled.client(client)["train"]
        predicted = np.argmax(sim.predict(state, client, own["x"]), axis=1)
        np.testing.assert_array_equal(predicted, own["y"])


@pytest.mark.parametrize(("neighbors", "scale"), [(1, 1.0), (3, 0.5), (5, 1.0), (9, 2.0)])
def test_predictions_are_the_mixture_written_out(server, memory, neighbors, scale):
    algorithm = knn(num_neighbors=neighbors, scale=scale)
    outputs = algorithm.predict(server, memory, {"x": INPUTS})
    live = np.asarray(memory.live)
    features, labels = np.asarray(memory.features)[live], np.asarray(memory.labels)[live]
    local = [_by_neighbors(x, features, labels, neighbors, scale) for x in INPUTS]
    expected = 0.3 * np.array(local) + 0.7 * _by_model(server, INPUTS)
    np.testing.assert_allclose(_softmax(np.float64(outputs)), expected, rtol=1e-5)


def test_a_vote_by_hand():
    """Squared distances 1 and 4 in one dimension at scale 1 weigh e^-1 and e^-4."""
    sample = SAMPLE | {"x": np.zeros((2, 1), np.float32)}
    algorithm = knn(models.linear(2), sample, num_neighbors=2)
    zero = {"params": {"Dense_0": {"kernel": jnp.zeros((1, 2)), "bias": jnp.zeros(2)}}}
    server = algorithm.init(jax.random.key(0), zero, ())
    features = jnp.array([[1.0], [-2.0], [5.0]])
    memory = Memory(features, jnp.array([0, 1, 1]), jnp.ones(3, bool), jnp.float32(0.5))
    probabilities = jax.nn.softmax(algorithm.predict(server, memory, {"x": jnp.zeros((1, 1))}))
    vote = np.exp(-1) / (np.exp(-1) + np.exp(-4))
    np.testing.assert_allclose(probabilities[0, 0], 0.5 * 0.5 + 0.5 * vote, rtol=1e-6)


def test_the_order_of_the_memory_is_irrelevant(server, memory, near):
    algorithm = knn(num_neighbors=3)
    order = jnp.array([6, 2, 5, 0, 3, 4, 1])
    turned = Memory(*(leaf[order] for leaf in memory[:3]), memory.weight)
    batch = {"x": INPUTS}
    near(algorithm.predict(server, turned, batch), algorithm.predict(server, memory, batch))


def test_an_empty_memory_leaves_the_global_model_as_it_is(server, memory, same):
    empty = memory._replace(live=jnp.zeros(7, bool), weight=jnp.float32(1.0))
    expected = algorithms.fedavg(models.linear(CLASSES), losses.cross_entropy, LOCAL)
    batch = {"x": INPUTS}
    same(knn().predict(server, empty, batch), jax.jit(expected.predict)(server, (), batch))


def _batches(rows, mask):
    """Batches of an own small population, of which the client shows these rows."""
    rng = np.random.default_rng(3)
    examples = {"x": jnp.float32(rng.standard_normal((9, 2))), "y": jnp.arange(9) % CLASSES}
    return data.Batches(examples, jnp.array(rows), jnp.array(mask, bool))


def test_the_memory_holds_every_example_that_is_shown_once_in_stored_order(server, same):
    algorithm = knn(num_neighbors=3)

    def remembered(rows, mask):
        return algorithm.personalize(None, server, (), _batches(rows, mask), None)

    once = remembered([[2, 3], [5, 7], [0, 0]], [[1, 1], [1, 1], [0, 0]])
    again = remembered([[7, 2], [3, 7], [2, 5]], [[1, 1], [1, 1], [1, 1]])
    same(once, again)
    assert once.live.tolist() == [True] * 4 + [False] * 2
    assert once.labels[:4].tolist() == [2, 0, 2, 1]
    np.testing.assert_array_equal(
        once.features[:4], _batches([[0]], [[1]]).examples["x"][jnp.array([2, 3, 5, 7])]
    )


@pytest.mark.parametrize("neighbors", [1, 3])
def test_a_client_s_weight_is_that_of_its_most_likely_labels_each_left_out(server, neighbors):
    rows = [[0, 1, 2], [3, 4, 5], [6, 7, 0]]
    batches = _batches(rows, np.ones((3, 3)))
    x, y = (np.asarray(batches.examples[name])[:8] for name in "xy")
    weights = np.linspace(0, 1, 11)
    likely = np.zeros(11)
    for i in range(8):
        others = np.delete(np.arange(8), i)
        local = _by_neighbors(x[i], x[others], y[others], neighbors, 1.0)[y[i]]
        whole = _by_model(server, x[i])[y[i]]
        likely += np.log(np.maximum(weights * local + (1 - weights) * whole, 1e-30))
    chosen = knn(num_neighbors=neighbors).personalize(None, server, (), batches, None).weight
    np.testing.assert_allclose(chosen, weights[np.argmax(likely)], atol=1e-6)


def test_a_client_leans_on_neighbors_as_far_as_they_are_right(server):
    """Two far groups of one label each, under a model that calls both by the other's."""
    x = jnp.array([[9.0, 9.0], [9.1, 9.0], [-9.0, -9.0], [-9.1, -9.0]])
    wrong = jnp.argmin(knn().predict(server, _none(), {"x": x}), axis=1)
    batch = {"x": x[None], "mask": jnp.ones((1, 4), bool)}
    right = knn(num_neighbors=1).personalize(None, server, (), batch | {"y": wrong[None]}, None)
    assert right.weight == 1.0
    odd = jnp.array([[0, 1, 0, 1]])
    never = knn(num_neighbors=1).personalize(None, server, (), batch | {"y": odd}, None)
    assert never.weight == 0.0


def _none():
    return Memory(jnp.zeros((1, 2)), jnp.zeros(1, int), jnp.zeros(1, bool), jnp.float32(0.0))


def test_an_only_example_says_nothing_about_the_weight(server):
    memory = knn().personalize(None, server, (), _batches([[4, 4]], [[1, 1]]), None)
    assert memory.live.tolist() == [True, False]
    assert memory.weight == 0.0


def test_a_model_of_convolutions_finds_its_neighbors_among_the_last_features():
    model = models.cnn(CLASSES, channels=[2], kernels=[3], pools=[2], hidden=[5])
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 6, 6, 1)).astype(np.float32)
    sample = {"x": x, "y": np.arange(4) % CLASSES, "mask": np.ones(4, bool)}
    algorithm = knn(model, sample, num_neighbors=1, local_weight=1.0)
    server = algorithm.init(jax.random.key(0), *model.init(jax.random.key(1), sample))
    batches = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], sample)
    memory = algorithm.personalize(None, server, (), batches, None)
    assert memory.features.shape == (4, 5)
    predicted = jnp.argmax(algorithm.predict(server, memory, sample), axis=1)
    np.testing.assert_array_equal(predicted, sample["y"])


def test_a_model_that_does_not_say_its_features_is_refused():
    model = models.from_function(
        lambda key, x: {"w": jnp.zeros((2, CLASSES))}, lambda params, x: x @ params["w"]
    )
    with pytest.raises(SpecError, match=r"does not say what its features are.*features_argument"):
        knn(model)


@pytest.mark.parametrize(
    "targets", [np.zeros(2, np.float32), np.zeros((2, 3), np.float32), np.zeros((2, 3), np.int32)]
)
def test_targets_that_are_no_classes_are_refused(targets):
    with pytest.raises(SpecError, match="knn_per mixes probabilities of classes: it needs labels"):
        knn(sample=SAMPLE | {"y": targets})


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"num_neighbors": 0}, "num_neighbors must be a whole number of at least 1, got 0"),
        ({"scale": 0.0}, "scale must be positive, got 0.0"),
        ({"local_weight": 1.5}, "local_weight must lie between 0 and 1, got 1.5"),
    ],
)
def test_settings_without_meaning_are_refused(setting, message):
    with pytest.raises(SpecError, match=message):
        knn(**setting)


def test_clients_may_be_limited_in_what_they_remember(
    build, simulator, labelled, network, after, near
):
    few = simulate.Personalization(data.batching(batch_size=2, steps=1, shuffle=False))
    sim = simulator(build("knn_per", of_classes=True), labelled, personalization=few)
    state = after(sim, 1)
    memory = sim.client(state, 2)
    first = {name: values[:2] for name, values in labelled.client(2)["train"].items()}
    near(memory.features, network.features(state.server.params, (), first))
    np.testing.assert_array_equal(memory.labels, first["y"])
