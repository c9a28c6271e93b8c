"""The gates that a fast path could slip through, each merged with its reason and right numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from floral.adaptors import (
    Rule,
    adapted,
    additive,
    conv,
    embedding,
    low_rank,
    make_plan,
    merge,
    truncate,
)
from floral.adaptors.fast.uses import count_uses
from floral.errors import SpecError
from floral.models import Model, from_equinox, from_function, from_linen, from_nnx

KEY = jax.random.key(0)
WEIGHTS = jnp.array([0.5, 0.2, 0.3])


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def plan_of(model, batch, *rules):
    params, _ = jax.eval_shape(model.init, KEY, batch)
    return make_plan(rules, params)


class MLP(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(jnp.tanh(nn.Dense(4)(x)))


class OwnKernel(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x @ self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], 4))


class Tied(nn.Module):
    """A language model whose output layer is its embedding, by flax's method or behind its back."""

    by_method: bool

    @nn.compact
    def __call__(self, ids):
        embed = nn.Embed(7, 4)
        hidden = jnp.tanh(embed(ids))
        return embed.attend(hidden) if self.by_method else hidden @ embed.embedding.T


class Shared(nn.Module):
    @nn.compact
    def __call__(self, x):
        layer = nn.Dense(4)
        return layer(jnp.tanh(layer(x)))


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, x):
        def body(layer, carry, _):
            return jnp.tanh(layer(carry)), None

        scan = nn.scan(body, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
        return scan(nn.Dense(4, name="layer"), x, None)[0]


class Rematerialized(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.remat(nn.Dense)(4)(x)


class Jitted(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.jit(nn.Dense)(4)(x)


class Mapped(nn.Module):
    @nn.compact
    def __call__(self, x):
        layers = nn.vmap(nn.Dense, variable_axes={"params": 0}, split_rngs={"params": True})
        return layers(4)(x)


class DenseOfAnotherKind(nn.Dense):
    pass


class InTraining(nn.Module):
    """A layer that only training visits."""

    @nn.compact
    def __call__(self, x, train=False):
        y = nn.Dense(4)(x)
        return y + nn.Dense(4, name="extra")(x) if train or self.is_initializing() else y


LIFTED = "inside a lifted transform (nn.scan, nn.vmap, nn.remat, nn.jit, …)"
X, IDS = normal(3, 4), jnp.array([[0, 6], [2, 2]])


@pytest.mark.parametrize(
    ("module", "x", "settings", "reason"),
    [
        (OwnKernel(), X, {}, "met through OwnKernel.__call__"),
        (Tied(by_method=True), IDS, {}, "met through Embed.attend"),
        (Tied(by_method=False), IDS, {}, "also read outside its layer"),
        (Shared(), X, {}, "met 2 times (a shared layer)"),
        (Scanned(), X, {"in_axes": (0,)}, LIFTED),
        (Mapped(), X, {"in_axes": (0,)}, LIFTED),
        (Rematerialized(), X, {}, LIFTED),
        (Jitted(), X, {}, LIFTED),
        (DenseOfAnotherKind(4), X, {}, "met through DenseOfAnotherKind.__call__"),
        (nn.Dense(4, dot_general=jax.lax.dot_general), X, {}, "custom dot_general"),
        (
            nn.DenseGeneral(4, batch_dims=(0,), axis=-1),
            normal(2, 3, 4),
            {"in_axes": (0, 1)},
            "batch_dims",
        ),
        (
            nn.ConvTranspose(4, (3,)),
            normal(2, 5, 3),
            {"in_axes": (0, 1)},
            "met through ConvTranspose.__call__",
        ),
        (nn.Embed(1, 4), jnp.zeros(3, int), {}, "a table of one row, which flax broadcasts"),
    ],
)
def test_what_is_not_a_plain_layer_is_merged(merged_is_factored, module, x, settings, reason):
    model, batch = from_linen(module), {"x": x}
    rule = Rule(".*/(kernel|embedding)", low_rank(rank=1, **settings))
    plan = plan_of(model, batch, rule)
    methods = merged_is_factored(model, plan, batch)
    assert set(methods.values()) == {f"merged: {reason}"}


def test_additive_offsets_are_merged_beside_fast_kernels(merged_is_factored):
    model, batch = from_linen(MLP()), {"x": X}
    plan = plan_of(
        model, batch, Rule(".*/kernel", low_rank(rank=1)), Rule(".*/bias", additive(alpha=2.0))
    )
    assert merged_is_factored(model, plan, batch) == {
        "params/Dense_0/bias": "merged: additive has no fast path",
        "params/Dense_0/kernel": "fast",
        "params/Dense_1/bias": "merged: additive has no fast path",
        "params/Dense_1/kernel": "fast",
    }


def test_a_layer_that_only_training_visits_is_merged():
    model, batch = from_linen(InTraining(), train_argument="train"), {"x": X}
    plan = plan_of(model, batch, Rule(".*/kernel", low_rank(rank=1)))
    methods = adapted(model, plan, batch).methods
    assert methods == {"params/Dense_0/kernel": "fast", "params/extra/kernel": "merged: never met"}


def test_a_kernel_that_is_never_used_is_merged(merged_is_factored):
    model = from_function(
        lambda key, x: {"used": jnp.zeros((4, 2)), "idle": jnp.zeros((4, 2))},
        lambda params, x: x @ params["used"],
    )
    plan = plan_of(model, {"x": X}, Rule(".*", low_rank(rank=1)))
    methods = merged_is_factored(model, plan, {"x": X})
    assert set(methods.values()) == {"merged: never met"}


def test_nnx_models_are_merged(merged_is_factored):
    from flax import nnx

    model = from_nnx(lambda rngs: nnx.Linear(4, 2, rngs=rngs))
    plan = plan_of(model, {"x": X}, Rule("kernel.*", low_rank(rank=1)))
    assert list(merged_is_factored(model, plan, {"x": X}).values()) == ["merged: never met"]


def test_equinox_models_are_merged(merged_is_factored):
    eqx = pytest.importorskip("equinox")
    model = from_equinox(lambda key: eqx.nn.Linear(4, 2, key=key))
    plan = plan_of(model, {"x": X}, Rule(".*weight", low_rank(rank=1)))
    assert list(merged_is_factored(model, plan, {"x": X}).values()) == ["merged: never met"]


def test_several_linen_modules_with_names_in_common_stay_apart(merged_is_factored):
    encoder, head = MLP(), MLP()

    def init(key, x):
        hidden, variables = encoder.init_with_output(key, x)
        return {"encoder": variables["params"], "head": head.init(key, hidden)["params"]}

    def apply(params, x):
        return head.apply(
            {"params": params["head"]}, encoder.apply({"params": params["encoder"]}, x)
        )

    model = from_function(init, apply)
    plan = plan_of(model, {"x": X}, Rule(".*/kernel", low_rank(rank=1)))
    assert set(merged_is_factored(model, plan, {"x": X}).values()) == {"fast"}


def test_a_layer_inside_jax_scan_and_vmap_stays_fast(merged_is_factored):
    """Unlike flax's lifted transforms, JAX's own hand the layer the very array it was given."""
    layer = nn.Dense(4)

    def apply(params, x):
        def body(carry, _):
            return jnp.tanh(jax.vmap(lambda one: layer.apply(params, one))(carry)), None

        return jax.lax.scan(body, x, length=2)[0]

    model = from_function(layer.init, apply)
    plan = plan_of(model, {"x": X}, Rule(".*/kernel", low_rank(rank=1)))
    assert merged_is_factored(model, plan, {"x": X}) == {"params/kernel": "fast"}


def test_boxed_parameters_are_recognised(merged_is_factored):
    boxed = nn.with_partitioning(nn.initializers.lecun_normal(), (None, None))
    model = from_linen(nn.Dense(4, kernel_init=boxed))
    plan = plan_of(model, {"x": X}, Rule(".*/kernel.*", low_rank(rank=1)))
    assert list(merged_is_factored(model, plan, {"x": X}).values()) == ["fast"]


def test_one_array_at_two_paths_is_told_apart(random_bank, close):
    class Pair(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(4, use_bias=False)(jnp.tanh(nn.Dense(4, use_bias=False)(x)))

    model, batch, kernel = from_linen(Pair()), {"x": X}, normal(4, 4)
    plan = plan_of(model, batch, Rule(".*", low_rank(rank=2)))
    params = {"params": {"Dense_0": {"kernel": kernel}, "Dense_1": {"kernel": kernel}}}
    bank = random_bank(plan)
    slow = model.apply(merge(params, bank, WEIGHTS, plan), (), batch)
    close(adapted(model, plan, batch).apply(params, (), bank, WEIGHTS, batch), slow)


def test_numpy_params_will_do(random_bank, random_tree, close):
    model, batch = from_linen(MLP()), {"x": np.asarray(X)}
    params = random_tree(jax.eval_shape(model.init, KEY, batch)[0], 1)
    plan = make_plan([Rule(".*/kernel", low_rank(rank=1))], params)
    bank = random_bank(plan)
    fast = adapted(model, plan, batch)
    given = jax.tree.map(np.asarray, params)
    close(fast.apply(given, (), bank, WEIGHTS, batch), fast.apply(params, (), bank, WEIGHTS, batch))


def test_mixtures_per_layer_merged_is_factored(merged_is_factored):
    model, batch = from_linen(MLP()), {"x": X}
    plan = plan_of(model, batch, Rule(".*/kernel", low_rank(rank=2)))
    weights = {"": WEIGHTS, "params/Dense_1": jnp.array([0.0, 1.0, 0.0])}
    merged_is_factored(model, plan, batch, weights=weights)


def test_permuting_adaptors_with_their_weights_changes_nothing(random_bank, random_tree, close):
    from floral.adaptors import permute

    model, batch = from_linen(MLP()), {"x": X}
    plan = plan_of(model, batch, Rule(".*/kernel", low_rank(rank=2)), Rule(".*", additive()))
    params, bank = random_tree(plan.leaves, 1), random_bank(plan)
    params = jax.tree.unflatten(
        jax.tree.structure(jax.eval_shape(model.init, KEY, batch)[0]), list(params.values())
    )
    fast, order = adapted(model, plan, batch), jnp.array([2, 0, 1])
    close(
        fast.apply(params, (), permute(bank, order), WEIGHTS[order], batch),
        fast.apply(params, (), bank, WEIGHTS, batch),
    )


def test_a_truncated_bank_serves_the_fast_path(random_bank, random_tree, close):
    model, batch = from_linen(nn.Conv(4, (3, 2))), {"x": normal(2, 5, 4, 3)}
    struct = jax.eval_shape(model.init, KEY, batch)[0]
    plan = make_plan([Rule(".*/kernel", conv(rank=3)), Rule(".*", additive())], struct)
    params, bank = random_tree(struct, 1), random_bank(plan)
    slow = model.apply(merge(params, bank, WEIGHTS, plan, rank=2), (), batch)
    fast = adapted(model, plan, batch)
    close(fast.apply(params, (), truncate(bank, plan, 2), WEIGHTS, batch), slow)


def test_clients_share_the_base_product(random_bank, random_tree, close):
    """Under vmap over clients with the base outside, no kernel of the base gains a client axis."""
    model, batch = from_linen(MLP()), {"x": normal(5, 3, 4)}  # [K, B, features]
    one = {"x": batch["x"][0]}
    struct = jax.eval_shape(model.init, KEY, one)[0]
    plan = make_plan([Rule(".*/kernel", low_rank(rank=1))], struct)
    params, bank = random_tree(struct, 1), random_bank(plan)
    weights = jax.nn.softmax(normal(5, 3))
    fast = adapted(model, plan, one)

    def clients(params, bank, weights, batch):
        def client(weights, batch):
            return fast.apply(params, (), bank, weights, batch)[0]

        return jax.vmap(client)(weights, batch)

    slow = jax.vmap(lambda w, b: model.apply(merge(params, bank, w, plan), (), b)[0])
    close(jax.jit(clients)(params, bank, weights, batch), slow(weights, batch))
    program = jax.make_jaxpr(clients)(params, bank, weights, batch)
    products = [eqn for eqn in program.jaxpr.eqns if eqn.primitive.name == "dot_general"]
    assert len(products) == 6  # of two layers: the base's, into the bank, out of the bank
    assert all(eqn.params["dimension_numbers"][1] == ((), ()) for eqn in products)


def test_statistics_and_keys_pass_through(random_bank):
    class Noisy(nn.Module):
        @nn.compact
        def __call__(self, x, train=False, mask=None):
            x = nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))
            return nn.Dropout(0.5, deterministic=not train)(x)

    model = from_linen(Noisy(), train_argument="train", mask=True)
    batch = {"x": X, "mask": jnp.ones(3, bool)}
    params, stats = model.init(KEY, batch)
    plan = make_plan([Rule(".*/kernel", low_rank(rank=1)), Rule(".*/scale", additive())], params)
    bank, fast = random_bank(plan), adapted(model, plan, batch)
    given = {"key": KEY, "train": True}
    left = fast.apply(params, stats, bank, WEIGHTS, batch, **given)
    right = model.apply(merge(params, bank, WEIGHTS, plan), stats, batch, **given)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert np.any(left[1]["batch_stats"]["BatchNorm_0"]["mean"])


def test_a_branch_taken_otherwise_than_planned_is_refused(random_bank, random_tree):
    layer, calls = nn.Dense(2), [True]

    def apply(params, x):
        return layer.apply(params, x) if calls[0] else x @ params["params"]["kernel"]

    model = from_function(layer.init, apply)
    struct = jax.eval_shape(model.init, KEY, {"x": X})[0]
    plan = make_plan([Rule(".*/kernel", low_rank(rank=1))], struct)
    fast = adapted(model, plan, {"x": X})
    calls[0] = False
    with pytest.raises(SpecError, match="'params/kernel' ran 0 times here and once when"):
        fast.apply(random_tree(struct, 1), (), random_bank(plan), WEIGHTS, {"x": X})


def test_params_may_be_given_instead_of_made():
    def refuse(key, batch):
        raise RuntimeError("not called")

    layer = from_linen(nn.Dense(2))
    params, stats = jax.eval_shape(layer.init, KEY, {"x": X})
    plan = make_plan([Rule(".*/kernel", low_rank(rank=1))], params)
    model = Model(refuse, layer.apply)
    methods = adapted(model, plan, {"x": X}, params=params, stats=stats).methods
    assert methods == {"params/kernel": "fast"}


def test_uses_are_counted_inside_control_flow():
    def fn(once, twice, branch, loop, idle, returned):
        total, _ = jax.lax.scan(lambda c, _: (c + twice * twice, None), once, length=2)
        total += jax.lax.cond(total > 0, lambda x: x, lambda x: x * 0.0, branch)
        total += jax.lax.while_loop(lambda c: c < 3.0, lambda c: c + loop, total)
        return total, returned

    program = jax.make_jaxpr(fn)(*map(float, range(6))).jaxpr
    once, twice, branch, loop, idle, returned = count_uses(program)
    assert (once, twice, idle, returned) == (1, 2, 0, 1)
    assert branch >= 1
    assert loop >= 1


def test_embeddings_and_convolutions_and_products_meet_in_one_model(merged_is_factored):
    class Text(nn.Module):
        @nn.compact
        def __call__(self, ids):
            x = nn.Conv(4, (2,))(nn.Embed(7, 3)(ids))
            return nn.Dense(2)(jnp.tanh(x).mean(axis=-2))

    model, batch = from_linen(Text()), {"x": IDS}
    plan = plan_of(
        model,
        batch,
        Rule(".*/embedding", embedding(rank=2)),
        Rule(".*/Conv_0/kernel", conv(rank=2)),
        Rule(".*/kernel", low_rank(rank=2)),
    )
    assert set(merged_is_factored(model, plan, batch).values()) == {"fast"}
