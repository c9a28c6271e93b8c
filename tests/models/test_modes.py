"""Training and evaluation differ where a module says so, and nothing differs by oversight."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from floral import models
from floral.errors import SpecError

X = np.random.default_rng(0).standard_normal((7, 4)).astype(np.float32)
BATCH = {"x": X, "mask": jnp.arange(7) < 5}
LIVE = {"x": X[:5], "mask": jnp.ones(5, bool)}


class Dropped(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(x))


class Deterministic(nn.Module):
    @nn.compact
    def __call__(self, x, deterministic=True):
        return nn.Dense(3)(nn.Dropout(0.5)(x, deterministic))


class NeverDropped(nn.Module):
    train: bool = False

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=not self.train)(x))


class Noisy(nn.Module):
    always: bool = False

    @nn.compact
    def __call__(self, x, train=False):
        if train or self.always:
            x = x + jax.random.normal(self.make_rng("noise"), x.shape)
        return nn.Dense(3)(x)


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3)(nn.BatchNorm(use_running_average=not train)(nn.Dense(5)(x)))


class AlwaysMoving(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=False)(x)


class OwnStatistic(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        mean = self.variable("batch_stats", "mean", lambda: jnp.zeros(4))
        if train:
            mean.value = x.mean(axis=0)
        return nn.Dense(3)(x - mean.value[None])


class NNXNet(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(4, 3, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.dropout(self.dense(x))


class NNXAlways(NNXNet):
    def __call__(self, x):
        return self.dropout(self.dense(x), deterministic=False)


class NNXNormed(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(4, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)

    def __call__(self, x, mask=None):
        x = self.dense(x)
        mask = None if mask is None else jnp.broadcast_to(mask[:, None], x.shape)
        return self.norm(x, mask=mask)


class NNXPlain(NNXNormed):
    def __call__(self, x):
        return self.norm(self.dense(x))


class NNXCompiled(NNXNormed):
    """Its layers are called in a transformation of NNX, which takes modules apart and makes them
    anew."""

    def __call__(self, x):
        return nnx.jit(nnx.remat(lambda module, x: module.norm(module.dense(x))))(self, x)


class NNXShared(NNXNormed):
    def __init__(self, rngs):
        super().__init__(rngs)
        self.norms = nnx.List([self.norm, nnx.BatchNorm(3, rngs=rngs), self.norm])

    def __call__(self, x):
        x = self.dense(x)
        for norm in self.norms:
            x = norm(x)
        return x


class NNXBlock(nnx.Module):
    def __init__(self, rngs):
        self.dense, self.norm = nnx.Linear(4, 4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs)

    def __call__(self, x):
        return self.norm(nnx.relu(self.dense(x)))


class NNXStacked(nnx.Module):
    """As many layers as a batch has rows, each a slice of one module: masks must not be sliced."""

    def __init__(self, rngs):
        make = nnx.vmap(NNXBlock, in_axes=(0,), out_axes=0)
        self.layers = nnx.split_rngs(splits=7)(make)(rngs)

    def __call__(self, x):
        scan = nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return scan(lambda x, layer: layer(x))(x, self.layers)


class OwnCall(nnx.BatchNorm):
    def __call__(self, x):
        return super().__call__(x)


class NNXOwnCall(NNXPlain):
    def __init__(self, rngs):
        self.dense, self.norm = nnx.Linear(4, 3, rngs=rngs), OwnCall(3, rngs=rngs)


class NNXOwnStatistic(NNXPlain):
    def __init__(self, rngs):
        super().__init__(rngs)
        self.largest = nnx.BatchStat(jnp.zeros(()))


class NNXFolded(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(2, rngs=rngs)

    def __call__(self, x):
        return self.norm(x.reshape(-1, 2)).reshape(-1, 4)


class EquinoxNet(eqx.Module):
    linear: eqx.nn.Linear
    dropout: eqx.nn.Dropout

    def __init__(self, key):
        self.linear, self.dropout = eqx.nn.Linear(4, 3, key=key), eqx.nn.Dropout(0.5)

    def __call__(self, x, key=None):
        return self.linear(self.dropout(x, key=key))


class EquinoxKeyless(EquinoxNet):
    def __call__(self, x):
        return self.linear(self.dropout(x))


class EquinoxNormed(eqx.Module):
    norm: eqx.nn.BatchNorm

    def __init__(self, key):
        self.norm = eqx.nn.BatchNorm(4, "batch", mode="ema")

    def __call__(self, x):
        return x


class Reversed(eqx.Module):
    linear: eqx.nn.Linear
    order: jax.Array

    def __init__(self, key):
        self.linear, self.order = eqx.nn.Linear(4, 3, key=key), jnp.array([3, 2, 1, 0])

    def __call__(self, x):
        return self.linear(x[self.order])


class Keyed(Reversed):
    def __init__(self, key):
        self.linear, self.order = eqx.nn.Linear(4, 3, key=key), key


RANDOM = {
    "linen, train": lambda: models.from_linen(Dropped(), train_argument="train"),
    "linen, deterministic": lambda: models.from_linen(
        Deterministic(), train_argument="deterministic"
    ),
    "linen, a stream of another name": lambda: models.from_linen(Noisy(), train_argument="train"),
    "nnx": lambda: models.from_nnx(lambda rngs: NNXNet(rngs)),
    "equinox": lambda: models.from_equinox(EquinoxNet),
}


@pytest.mark.parametrize("kind", RANDOM)
def test_a_module_draws_from_the_key_in_training_and_not_at_all_in_evaluation(kind):
    model = RANDOM[kind]()
    params, stats = model.init(jax.random.key(0), BATCH)

    def outputs(seed=None, **settings):
        key = None if seed is None else jax.random.key(seed)
        return np.asarray(model.apply(params, stats, BATCH, key=key, **settings)[0])

    np.testing.assert_array_equal(outputs(), outputs(seed=1))
    np.testing.assert_array_equal(outputs(seed=1, train=True), outputs(seed=1, train=True))
    assert np.any(outputs(seed=1, train=True) != outputs(seed=2, train=True))
    assert np.any(outputs(seed=1, train=True) != outputs())
    rows = outputs(seed=1, train=True) - outputs()
    assert np.any(rows[0] != rows[1])  # each example draws its own


NORMED = {
    "linen": lambda: models.from_linen(Normed(), train_argument="train"),
    "nnx": lambda: models.from_nnx(NNXPlain),
    "nnx with a mask of the module's own": lambda: models.from_nnx(NNXNormed, mask=True),
    "nnx in a transformation": lambda: models.from_nnx(NNXCompiled),
    "nnx, one norm in three places": lambda: models.from_nnx(NNXShared),
    "nnx in stacked layers": lambda: models.from_nnx(NNXStacked),
}


@pytest.mark.parametrize("kind", NORMED)
def test_padding_enters_neither_the_moments_of_a_batch_nor_the_running_ones(kind, near, jit):
    model = NORMED[kind]()
    params, stats = model.init(jax.random.key(0), BATCH)
    train = jit(lambda batch: model.apply(params, stats, batch, train=True))
    padded, moved = train(BATCH)
    alone, expected = train(LIVE)
    near(padded[:5], alone)
    near(moved, expected)
    before, after = jax.tree.leaves(stats), jax.tree.leaves(moved)
    assert all(np.any(one != other) for one, other in zip(before, after, strict=True))


def test_integer_arrays_of_an_equinox_module_are_constants():
    model = models.from_equinox(Reversed)
    params, stats = model.init(jax.random.key(3), {"x": X})
    assert stats == ()
    assert len(jax.tree.leaves(params)) == 2
    outputs = jax.jit(model.apply)(params, stats, {"x": X})[0]
    expected = X[:, ::-1] @ params.linear.weight.T + params.linear.bias[None]
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)


REFUSED = {
    "a linen module's train that nobody passes": (
        lambda: models.from_linen(Dropped()),
        "Dropped takes 'train', which nobody passes; give train_argument='train'",
    ),
    "a linen module's deterministic that nobody passes": (
        lambda: models.from_linen(Deterministic()),
        "Deterministic takes 'deterministic', which nobody passes",
    ),
    "a misspelt argument": (
        lambda: models.from_linen(Dropped(), train_argument="trian"),
        "train_argument: Dropped takes no 'trian'; its call takes x, train; did you mean 'train'?",
    ),
    "a mask that is not taken": (
        lambda: models.from_linen(Dropped(), train_argument="train", mask=True),
        "mask: Dropped takes no 'mask'",
    ),
    "a dropout that never drops": (
        lambda: models.from_linen(NeverDropped()),
        "the dropout 'Dropout_0' of NeverDropped drops nothing in training",
    ),
    "a dropout that drops in evaluation": (
        lambda: models.from_linen(NeverDropped(train=True)),
        "NeverDropped draws random numbers in evaluation, from the stream 'dropout'",
    ),
    "noise in evaluation": (
        lambda: models.from_linen(Noisy(always=True), train_argument="train"),
        "Noisy draws random numbers in evaluation, from the stream 'noise'",
    ),
    "statistics that move in evaluation": (
        lambda: models.from_linen(AlwaysMoving()),
        "AlwaysMoving moves its statistics in evaluation too",
    ),
    "a statistic of one's own": (
        lambda: models.from_linen(OwnStatistic(), train_argument="train"),
        "OwnStatistic keeps the statistic 'batch_stats/mean', which the examples that pad",
    ),
    "an nnx batch norm with a call of its own": (
        lambda: models.from_nnx(NNXOwnCall),
        "NNXOwnCall keeps the statistic 'norm/mean', which the examples that pad",
    ),
    "an nnx statistic of one's own": (
        lambda: models.from_nnx(NNXOwnStatistic),
        "NNXOwnStatistic keeps the statistic 'largest', which the examples that pad",
    ),
    "an nnx batch norm that sees other rows": (
        lambda: models.from_nnx(NNXFolded),
        "norm: this batch norm sees an array of shape (14, 2), whose first axis is not the batch's",
    ),
    "an nnx dropout that drops in evaluation": (
        lambda: models.from_nnx(lambda rngs: NNXAlways(rngs)),
        "NNXAlways draws random numbers in evaluation",
    ),
    "an equinox dropout without a key": (
        lambda: models.from_equinox(EquinoxKeyless),
        "EquinoxKeyless has dropout, and its call takes no 'key'",
    ),
    "an equinox batch norm": (
        lambda: models.from_equinox(EquinoxNormed),
        "EquinoxNormed keeps a state",
    ),
    "a key in an equinox module": (
        lambda: models.from_equinox(Keyed),
        "a random key is neither trained nor kept",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_would_go_wrong_in_silence_is_refused(kind):
    make, sentence = REFUSED[kind]

    def use():
        model = make()
        params, stats = model.init(jax.random.key(0), BATCH)
        model.apply(params, stats, BATCH)

    with pytest.raises(SpecError) as caught:
        use()
    assert sentence in str(caught.value)


def test_a_batch_norm_that_sees_other_rows_than_the_batch_has_is_refused():
    class Folded(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = nn.BatchNorm(use_running_average=not train)(x.reshape(-1, 2))
            return x.reshape(-1, 4)

    model = models.from_linen(Folded(), train_argument="train")
    with pytest.raises(SpecError, match=r"'?BatchNorm_0'?: this batch norm sees .* \(14, 2\)"):
        model.init(jax.random.key(0), BATCH)
