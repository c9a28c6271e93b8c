"""How factor pairs are averaged, against deltas of whole leaves in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from floral.adaptors import (
    Factored,
    Rule,
    additive,
    conv,
    embedding,
    factor_pairs,
    init_bank,
    low_rank,
    make_plan,
)
from floral.data import batching
from floral.errors import SpecError
from floral.simulate import Sampler, execution
from floral.uplink import factor_mean, product_mean, residual_mean, uplink, weighted_mean

K, C, R = 5, 3, 2

# Sums of some dozens of float32 terms of order one, and their singular vectors.
TOLERANCE = 5e-5

SHAPES = {"bias": (3,), "conv": (3, 2, 2, 4), "matrix": (5, 4), "table": (6, 3)}
RULES = [
    Rule("bias", additive()),
    Rule("conv", conv(rank=R, alpha=0.5)),
    Rule("matrix", low_rank(rank=R, alpha=2.0)),
    Rule("table", embedding(rank=R)),
]
PARAMS = {name: jnp.zeros(shape) for name, shape in SHAPES.items()}
PLAN = make_plan(RULES, PARAMS)
PAIRS = ("conv", "matrix", "table")
REDUCERS = {
    "factors": factor_mean(),
    "products": product_mean(),
    "whole cohort": product_mean(whole_cohort=True),
    "residual": residual_mean(),
}


def _numbers(structs, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), structs)


def _structs(leading, num_adaptors=C):
    bank = jax.eval_shape(lambda: init_bank(jax.random.key(0), PLAN, num_adaptors)).trained
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((*leading, *leaf.shape), leaf.dtype),
        {"base": PARAMS, "bank": bank},
    )


def _case(seed=0, num_adaptors=C):
    """``(server, updates, weights)``: clients' factors are the server's less their updates."""
    server, updates = (_numbers(_structs(l, num_adaptors), seed) for l in ((), (K,)))
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 9, K).astype(np.float32)
    mixtures = rng.dirichlet(np.ones(num_adaptors), K).astype(np.float32)
    return server, updates, {"base": counts, "bank": counts[:, None] * mixtures}


FACTORED = Factored(
    pairs=factor_pairs(PLAN, _structs(())["bank"]),
    base=frozenset(SHAPES),
    values=lambda server: server,
    plain=True,
)


def _compiled(reducer):
    fitted = reducer.fit(FACTORED)
    return jax.jit(lambda *case: fitted.reduce(*case[1:], (), server=case[0])[0])


REDUCE = {name: _compiled(reducer) for name, reducer in REDUCERS.items()}


@pytest.fixture(params=REDUCE)
def reduce(request):
    """``(server, updates, weights) -> Reduced`` of each form."""
    return REDUCE[request.param]


def _deltas(factors, path):
    """Of every adaptor, in float64: [..., C, *leaf]."""
    shape = jax.tree.leaves(factors)[0].shape
    leading = len(shape) - len(jax.tree.leaves(_structs(())["bank"][path])[0].shape) + 1
    delta = PLAN.adaptors[path].delta
    for _ in range(leading):
        delta = jax.vmap(delta, (0, None))
    with jax.enable_x64(True):
        return np.asarray(delta(jax.tree.map(lambda leaf: jnp.asarray(leaf, float), factors), ()))


def _after(server, reduced):
    return jax.tree.map(lambda now, step: now - step, server, reduced.update)


def _mean_of_products(server, updates, weights, path):
    ends = jax.tree.map(
        lambda now, steps: now[None].astype(float) - steps,
        server["bank"][path],
        updates["bank"][path],
    )
    share = weights["bank"].astype(float) / weights["bank"].sum(0)
    return np.einsum("kc,kc...->c...", share, _deltas(ends, path))


def _as_matrix(deltas, path):
    """[C, *leaf] as [C, rows, columns]."""
    if path == "conv":  # a has the first axis and c_in, b the second and c_out
        deltas = deltas.transpose(0, 1, 3, 2, 4)
        return deltas.reshape(C, 3 * 2, 2 * 4)
    return deltas


def _truncated(matrices, rank):
    u, s, v = np.linalg.svd(matrices, full_matrices=False)
    return np.einsum("cir,cr,crj->cij", u[..., :rank], s[:, :rank], v[:, :rank])


def _near(left, right, tolerance=TOLERANCE):
    np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance * np.abs(right).max())


def test_what_is_no_pair_is_averaged_as_ever(reduce, same):
    server, updates, weights = _case()
    mean, _ = weighted_mean().reduce(updates, weights, ())
    reduced = reduce(server, updates, weights)
    same(reduced.update["bank"]["bias"], mean.update["bank"]["bias"])
    same(reduced.update["base"]["bias"], mean.update["base"]["bias"])
    same(reduced.weight, mean.weight)


def test_factors_averaged_by_themselves_are_the_weighted_mean(same):
    server, updates, weights = _case()
    mean, _ = weighted_mean().reduce(updates, weights, ())
    same(REDUCE["factors"](server, updates, weights).update, mean.update)


@pytest.mark.parametrize("form", ["products", "whole cohort"])
@pytest.mark.parametrize("path", PAIRS)
def test_products_are_the_mean_of_products_truncated_to_the_rank(form, path):
    case = _case()
    after = _after(case[0], REDUCE[form](*case))
    mean = _as_matrix(_mean_of_products(*case, path), path)
    assert np.linalg.matrix_rank(mean[0]) > R  # something is cut off
    _near(_as_matrix(_deltas(after["bank"][path], path), path), _truncated(mean, R))


@pytest.mark.parametrize("form", ["products", "whole cohort"])
def test_products_are_exact_where_the_rank_suffices(form):
    """Two clients of rank one each: the mean has rank two."""
    server, updates, weights = _case()

    silent = jax.tree.map(lambda weight: np.where(np.arange(K) < 2, weight.T, 0).T, weights)
    for path, axes in {"conv": (-1, -2), "matrix": (1, 1), "table": (-1, 1)}.items():
        for name, axis in zip("ab", axes, strict=True):  # of the directions, behind C
            for client in range(2):
                ends = server["bank"][path][name] - updates["bank"][path][name][client]
                np.moveaxis(ends, axis, 0)[1 - client] = 0
                updates["bank"][path][name][client] = server["bank"][path][name] - ends
    after = _after(server, REDUCE[form](server, updates, silent))
    for path in PAIRS:
        _near(_deltas(after["bank"][path], path), _mean_of_products(server, updates, silent, path))


def test_the_base_and_the_mean_factors_hold_the_mean_of_products_of_one_adaptor():
    case = _case(num_adaptors=1)
    mean, _ = weighted_mean().reduce(*case[1:], ())
    after = _after(case[0], REDUCE["residual"](*case))
    for path in PAIRS:
        base = case[0]["base"][path] - mean.update["base"][path]
        own = after["base"][path] + _deltas(after["bank"][path], path)[0]
        _near(own, base + _mean_of_products(*case, path)[0])


def test_the_residual_keeps_the_mean_model_and_is_the_nearest_that_all_can_share():
    server, updates, weights = _case()
    mean, _ = weighted_mean().reduce(updates, weights, ())
    after = _after(server, REDUCE["residual"](server, updates, weights))
    mixtures = weights["bank"] / weights["base"][:, None]
    share = weights["base"] / weights["base"].sum()
    for path in PAIRS:
        products = _mean_of_products(server, updates, weights, path)
        missed = products - _deltas(after["bank"][path], path)
        lacking = np.einsum("kc,c...->k...", mixtures, missed)  # of each client's own model
        folded = after["base"][path] - (server["base"][path] - mean.update["base"][path])
        best = np.einsum("k,k...->...", share, lacking)  # minimises the weighted mean square
        _near(folded, best)
        assert np.abs(lacking - best).max() > 0.01  # what no base can give every client


def _gap(server, updates, weights):
    mean, _ = weighted_mean().reduce(updates, weights, ())
    missed = whole = 0.0
    for path in PAIRS:
        products = _mean_of_products(server, updates, weights, path)
        missed += np.sum((products - _deltas(_after(server, mean)["bank"][path], path)) ** 2)
        whole += np.sum(products**2)
    return np.sqrt(missed / whole)


def test_the_gap_is_what_averages_of_factors_miss_of_the_mean_of_products(reduce):
    case = _case()
    told = reduce(*case).diagnostics["averaging_gap"]
    _near(told, _gap(*case))
    assert told > 0.1


def test_clients_that_agree_on_one_factor_have_no_gap(reduce):
    server, updates, weights = _case()
    for path in PAIRS:
        updates["bank"][path]["a"][:] = updates["bank"][path]["a"][:1]
    mean, _ = weighted_mean().reduce(updates, weights, ())
    reduced = reduce(server, updates, weights)
    after, plain = _after(server, reduced), _after(server, mean)
    assert reduced.diagnostics["averaging_gap"] < 1e-6
    for path in PAIRS:
        _near(_deltas(after["bank"][path], path), _deltas(plain["bank"][path], path))
        _near(after["base"][path], plain["base"][path])


def test_the_average_of_one_client_is_that_client(reduce):
    server, updates, weights = _case()
    alone = jax.tree.map(lambda leaf: leaf[:1], (updates, weights))
    after = _after(server, reduce(server, *alone))
    for path in PAIRS:
        own = jax.tree.map(lambda n, u: n - u[0], server["bank"][path], updates["bank"][path])
        _near(_deltas(after["bank"][path], path), _deltas(own, path))
        _near(after["base"][path], server["base"][path] - updates["base"][path][0])


def _means(case, reduce):
    """What does not depend on the signs of singular vectors."""
    reduced = reduce(*case)
    after = _after(case[0], reduced)
    deltas = {path: _deltas(after["bank"][path], path) for path in PAIRS}
    return {"base": after["base"], "deltas": deltas, "told": reduced.diagnostics}


def _alike(left, right):
    jax.tree.map(lambda one, other: _near(np.asarray(one), np.asarray(other)), left, right)


def test_the_order_of_clients_is_irrelevant(reduce):
    case = _case()
    order = np.array([3, 0, 4, 1, 2])
    shuffled = jax.tree.map(lambda leaf: leaf[order], case[1:])
    _alike(_means((case[0], *shuffled), reduce), _means(case, reduce))


def test_only_the_proportions_of_weights_count(reduce):
    server, updates, weights = _case()
    scaled = jax.tree.map(lambda weight: 1024 * weight, weights)
    _alike(_means((server, updates, scaled), reduce), _means((server, updates, weights), reduce))


def test_a_client_of_weight_zero_changes_nothing_even_with_a_nan(reduce, same):
    server, updates, weights = _case()
    for weight in weights.values():
        weight[2] = 0
    poisoned = jax.tree.map(np.copy, updates)
    for leaf in jax.tree.leaves(poisoned):
        leaf[2] = np.nan
    without = jax.tree.map(lambda leaf: np.delete(leaf, 2, 0), (updates, weights))
    same(reduce(server, poisoned, weights), reduce(server, updates, weights))
    _alike(_means((server, updates, weights), reduce), _means((server, *without), reduce))


def test_an_adaptor_that_no_one_spoke_for_stays_as_it_is(reduce):
    server, updates, weights = _case()
    weights["bank"][:, 1] = [1e-9, 0, 0, 0, 0]
    reduced = reduce(server, updates, weights)
    for path in PAIRS:
        for step in reduced.update["bank"][path].values():
            assert np.all(step[1] == 0)
            assert np.any(step[0] != 0)
    # The gap is that of the others.
    others = jax.tree.map(lambda leaf: leaf[[0, 2]], server["bank"])
    steps = jax.tree.map(lambda leaf: leaf[:, [0, 2]], updates["bank"])
    left = (
        {**server, "bank": others},
        {**updates, "bank": steps},
        {**weights, "bank": weights["bank"][:, [0, 2]]},
    )
    _near(reduced.diagnostics["averaging_gap"], _gap(*left))


def test_weights_may_differ_from_layer_to_layer(reduce, same):
    server, updates, weights = _case()
    apart = {**weights, "bank": dict.fromkeys(SHAPES, weights["bank"])}
    same(
        reduce(server, updates, apart)._replace(weight=()),
        reduce(server, updates, weights)._replace(weight=()),
    )


@pytest.mark.parametrize("form", ["factors", "products", "residual"])
def test_folding_in_pieces_is_the_whole_reduction(form):
    server, updates, weights = _case()
    fitted = REDUCERS[form].fit(FACTORED)
    fold, both = fitted.fold, (updates, weights)
    sums = fold.zero(*jax.tree.map(lambda leaf: leaf[0], both))
    for start, stop in itertools.pairwise([0, 1, 3, K]):
        sums = fold.add(sums, *jax.tree.map(lambda leaf: leaf[start:stop], both))  # noqa: B023
    pieces = _means((server, sums), lambda server, sums: fold.finish(sums, server))
    _alike(pieces, _means((server, *both), REDUCE[form]))


def test_the_whole_cohort_at_once_takes_no_pieces():
    assert REDUCERS["whole cohort"].fit(FACTORED).fold is None


# In rounds


UPLINKS = {form: uplink(reduce=reducer) for form, reducer in REDUCERS.items()}
UPLINKS["plain"] = uplink()
IN_ORDER = batching(batch_size=2, shuffle=False)


def _round(build, simulator, form, name="floral", execution=None, rounds=2, **settings):
    options = {} if execution is None else {"execution": execution}
    sim = simulator(build(name, **settings), uplink=UPLINKS[form], batching=IN_ORDER, **options)
    state = sim.init(jax.random.key(0))
    for _ in range(rounds):
        state, metrics = sim.round(state)
    return sim, state, metrics


def _models(sim, state):
    return [sim.export(state, client) for client in range(5)]


def test_rounds_tell_the_gap_and_only_factors_move_as_ever(build, simulator, near):
    ends = {form: _round(build, simulator, form) for form in UPLINKS}
    assert "uplink" not in ends["plain"][2]
    near(ends["factors"][1].server, ends["plain"][1].server)
    near(_models(*ends["products"][:2]), _models(*ends["whole cohort"][:2]))
    assert all(0 < ends[name][2]["uplink"]["averaging_gap"] < 1 for name in REDUCERS)
    kernels = {
        name: _models(*end[:2])[0]["params"]["Dense_0"]["kernel"] for name, end in ends.items()
    }
    for one, other in itertools.combinations(("factors", "products", "residual"), 2):
        assert np.abs(kernels[one] - kernels[other]).max() > 1e-6


@pytest.mark.parametrize(
    ("form", "walk"),
    [
        ("products", {"walk": "scan"}),
        ("products", {"walk": "chunk", "chunk": 2}),
        ("products", {"devices": 2}),
        ("products", {"population": "host", "rows": "host"}),
        ("whole cohort", {"walk": "chunk", "chunk": 2, "devices": 2}),
        ("residual", {"walk": "chunk", "chunk": 2, "devices": 2}),
    ],
    ids=str,
)
def test_the_walk_changes_nothing_beyond_the_order_of_sums(form, walk, build, simulator, near):
    sim, state, metrics = _round(build, simulator, form)
    other, end, told = _round(build, simulator, form, execution=execution(**walk))
    # Two more local steps on factors that differ in the last bits.
    near(_models(other, end), _models(sim, state), 1e-4)
    near(told, metrics, 1e-4)


@pytest.mark.parametrize("form", ["products", "whole cohort", "residual"])
def test_one_adaptor_for_all_is_the_mean_of_clients_models(form, build, simulator, near):
    """A linear model whose kernel has rank 1 beside a trained base: only the residual is whole."""
    settings = {"num_adaptors": 1, "rounds": 1}
    sim, state, _ = _round(build, simulator, form, **settings)
    plain, mean, _ = _round(build, simulator, "plain", **settings)
    alone = _rounds_of_one(build("floral", num_adaptors=1), simulator)
    kernels = [sim.export(end, 0)["params"]["Dense_0"]["kernel"] for end in alone]
    expected = np.average(kernels, axis=0, weights=[4, 1, 7, 4, 7])
    kernel = _models(sim, state)[0]["params"]["Dense_0"]["kernel"]
    distance = np.abs(kernel - expected).max()
    missed = np.abs(_models(plain, mean)[0]["params"]["Dense_0"]["kernel"] - expected).max()
    assert distance < 1e-6 if form == "residual" else distance < missed


def _rounds_of_one(algorithm, simulator):
    """A round of each client alone, from the same start: the server takes over what it ends with.

    The round's number says which client; nothing else depends on it.
    """
    one = Sampler(
        capacity=lambda population: 1,
        sample=lambda key, round_index, clients: (round_index[None], jnp.array([True])),
    )
    sim = simulator(algorithm, cohort=one, batching=IN_ORDER)
    start = sim.init(jax.random.key(0))
    return [sim.round(start._replace(round=jnp.int32(client)))[0] for client in range(5)]


def test_with_one_side_frozen_the_average_of_factors_is_that_of_products(build, simulator, near):
    """By training ``bank/**/b`` of the bank alone, under a plain weighted mean."""
    algorithm = build("floral", train=("base", "bank/**/b", "mixture"))
    sim = simulator(algorithm, batching=IN_ORDER)
    ended, _ = sim.round(sim.init(jax.random.key(0)))
    mixtures = np.asarray(jax.nn.softmax(ended.table["client"]["mixture"]))
    weights = np.array([4.0, 1, 7, 4, 7])[:, None] * mixtures

    def products(state):
        pair = state.server.bank["params/Dense_0/kernel"]
        return np.einsum("cri,crj->cij", pair["a"], pair["b"])

    each = [products(end) for end in _rounds_of_one(algorithm, simulator)]
    mean = np.einsum("kc,kcij->cij", weights / weights.sum(0), each)
    assert np.abs(mean).max() > 1e-3
    near(products(ended), mean.astype(np.float32))


def test_the_dual_adaptors_shared_one_may_be_averaged_by_products(build, simulator, near):
    ends = [_round(build, simulator, form, "dual_adaptor") for form in ("products", "whole cohort")]
    near(*(_models(*end[:2]) for end in ends))
    assert ends[0][2]["uplink"]["averaging_gap"] > 0


@pytest.mark.parametrize("form", REDUCERS)
@pytest.mark.parametrize("name", ["fedavg", "ensemble", "local_adaptor", "fedsa_lora", "ffa_lora"])
def test_an_algorithm_whose_server_averages_no_pairs_is_refused(form, name, build, simulator):
    message = r"uplink.reduce: .* this algorithm sends its server none: use weighted_mean"
    with pytest.raises(SpecError, match=message):
        simulator(build(name), uplink=UPLINKS[form])


@pytest.mark.parametrize("form", ["products", "whole cohort", "residual"])
@pytest.mark.parametrize("optimizer", ["server_optimizer", "bank_server_optimizer"])
def test_a_server_optimizer_is_refused_where_the_reducer_says_where_to_go(
    optimizer, form, build, simulator
):
    algorithm = build("floral", **{optimizer: optax.adam(0.1)})
    with pytest.raises(SpecError, match=rf"leave .*\b{optimizer}\b.* out, or use factor_mean"):
        simulator(algorithm, uplink=UPLINKS[form])


def test_a_residual_needs_a_base_that_moves(build, simulator):
    algorithm = build("floral", train=("bank", "mixture"))
    with pytest.raises(SpecError, match=r"do not train its 'params/Dense_0/kernel': add 'base'"):
        simulator(algorithm, uplink=UPLINKS["residual"])


def test_an_adaptor_that_is_no_product_is_named():
    plain = low_rank(rank=1)._replace(product=None, kind="mine")
    factored = FACTORED._replace(pairs={"w/kernel": plain})
    with pytest.raises(SpecError, match=r"'w/kernel' to be a product .* mine does not say"):
        product_mean().fit(factored)


def test_a_reducer_of_factors_reduces_nothing_before_it_meets_an_algorithm():
    _, updates, weights = _case()
    with pytest.raises(SpecError, match="product_mean reduces the factor pairs of one algorithm"):
        product_mean().reduce(updates, weights, ())
