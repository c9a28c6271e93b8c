"""The averages of factor pairs over a cohort, and of their products.

As matrices: what two factors make is ``leftᵀ right`` whatever their layout (`Product`). Of the
clients' updates sums alone are kept, or all of them side by side where their products are not to be
formed.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from floral import tree
from floral.adaptors import Product, best_pair_of_sum, weights_at
from floral.messages import Reduced, evidence
from floral.typing import Array, PyTree
from floral.uplink.base import Fold, Reducer
from floral.uplink.mean import weighted_mean

__all__ = ["Average", "Finish", "Products", "first", "stacked", "steps", "streamed"]

Products = Mapping[str, Product]
"""How the factors of each pair are a product of two matrices, by path."""

_MEAN = weighted_mean()
_SUMS = cast(Fold, _MEAN.fold)


class Average(NamedTuple):
    """The average of the pairs at one path, in matrices.

    Attributes:
      product: how the factors are matrices.
      start: the server's factors before the round.
      left, right: [C, R, rows] and [C, R, columns], the average factors.
      covariance: [C, rows, columns], the mean of products less the product of means.
      weight: [C].
      trusted: [C] bool.
    """

    product: Product
    start: dict[str, Array]
    left: Array
    right: Array
    covariance: Array
    weight: Array
    trusted: Array

    @property
    def of_products(self) -> Array:
        """The mean of products, [C, rows, columns]."""
        return _times(self.left, self.right) + self.covariance


Finish = Callable[[Reduced, Mapping[str, Average]], PyTree]
"""``(reduced, averages by path) -> update``: what the server takes."""

Values = Callable[[Any], Mapping[str, Any]]
"""``(server) -> what updates are changes of``."""


def streamed(products: Products, values: Values, finish_update: Finish) -> Reducer:
    """Sums the factors of clients, and their products, as they come.

    Args:
      products: of the pairs.
      values: ``(server) -> {"bank": {path: {factor: [C, ...]}}, ...}``.
      finish_update: what the server takes of the averages.
    """

    def zero(update, weight):
        def empty(path: str) -> Array:
            left, right = jax.eval_shape(_matrices(products[path]), update["bank"][path])
            return jnp.zeros((*left.shape[::2], right.shape[2]), left.dtype)  # [C, rows, columns]

        return _SUMS.zero(update, weight), {path: empty(path) for path in products}

    def add(sums, updates, weights):
        totals, crossed = sums
        added = {}
        for path, product in products.items():
            left, right, share = _sent(product, path, updates, weights)
            left = left * share[..., None, None]
            added[path] = jnp.einsum("kcri,kcrj->cij", left, right, precision="highest")
        return _SUMS.add(totals, updates, weights), tree.add(crossed, added)

    def finish(sums, server=None):
        totals, crossed = sums
        reduced = _SUMS.finish(totals, server)
        bank = values(server)["bank"]
        averages = {}
        for path, product in products.items():
            start = bank[path]
            moved = _matrices(product)(reduced.update["bank"][path])
            left, right = tree.subtract(_matrices(product)(start), moved)
            weight = _weight_at(reduced.weight, path, len(moved[0]))
            trusted = evidence(weight)
            mean = crossed[path] / jnp.where(trusted, weight, 1)[:, None, None]
            covariance = jnp.where(trusted[:, None, None], mean - _times(*moved), 0)
            averages[path] = Average(product, start, left, right, covariance, weight, trusted)
        squares = [
            (
                average.product,
                average.trusted,
                _square(average.covariance),
                _square(average.of_products),
            )
            for average in averages.values()
        ]
        return reduced._replace(update=finish_update(reduced, averages), diagnostics=_gap(squares))

    def reduce(updates, weights, state, *, key=None, server=None):
        sums = zero(*first((updates, weights)))
        return finish(add(sums, updates, weights), server), state

    return Reducer(init=lambda update: (), reduce=reduce, fold=Fold(zero, add, finish))


def stacked(products: Products, values: Values) -> Reducer:
    """The best pairs for the means of products, from the factors of a cohort side by side.

    Args:
      products: of the pairs.
      values: ``(server) -> {"bank": {path: {factor: [C, ...]}}, ...}``.
    """

    def reduce(updates, weights, state, *, key=None, server=None):
        reduced, _ = _MEAN.reduce(updates, weights, ())
        bank, squares = dict(reduced.update["bank"]), []
        for path, product in products.items():
            start = values(server)["bank"][path]
            left, right, weight = _sent(product, path, updates, weights)
            total = _weight_at(reduced.weight, path, weight.shape[1])
            trusted = evidence(total)
            share = weight / jnp.where(trusted, total, 1)[None]
            now = _matrices(product)(start)
            moved = _matrices(product)(reduced.update["bank"][path])
            stacks = _stack(now[0][None] - left, now[1][None] - right, share)
            centred = _stack(left - moved[0][None], right - moved[1][None], share)
            rank = left.shape[2]
            pairs = jax.vmap(lambda left, right, rank=rank: best_pair_of_sum(left, right, rank))
            bank[path] = steps(product, start, pairs(*stacks), trusted)
            squares.append((product, trusted, _square_of(*centred), _square_of(*stacks)))
        update = {**reduced.update, "bank": bank}
        return reduced._replace(update=update, diagnostics=_gap(squares)), state

    return Reducer(init=lambda update: (), reduce=reduce)


def steps(
    product: Product, start: dict[str, Array], pairs: tuple[Array, Array], trusted: Array
) -> dict[str, Array]:
    """Old less new factors [C, ...] where the pairs are to be trusted, zero elsewhere."""
    like = first(start)
    end = jax.vmap(lambda left, right: product.pair(left, right, like))(*pairs)
    return tree.select(trusted, tree.subtract(start, end), tree.zeros_like(start))


def first(stacked: Any) -> Any:
    """The first of C, or of K, that are stacked."""
    return jax.tree.map(lambda leaf: leaf[0], stacked)


def _matrices(product: Product) -> Callable[[PyTree], tuple[Array, Array]]:
    """``({factor: [C, ...]}) -> ([C, R, rows], [C, R, columns])`` in float32 at least."""

    def matrices(factors):
        left, right = jax.vmap(product.matrices)(factors)
        dtype = jnp.promote_types(left.dtype, jnp.float32)
        return left.astype(dtype), right.astype(dtype)

    return matrices


def _sent(
    product: Product, path: str, updates: PyTree, weights: PyTree
) -> tuple[Array, Array, Array]:
    """The updates of a path as matrices [K, C, R, ...], zero where their weights [K, C] are."""
    left, right = jax.vmap(_matrices(product))(updates["bank"][path])
    weight = weights_at(weights["bank"], path)
    weight = jnp.broadcast_to(weight.reshape(len(weight), -1), left.shape[:2])
    spoke = (weight != 0)[..., None, None]
    return jnp.where(spoke, left, 0), jnp.where(spoke, right, 0), weight


def _weight_at(weights: PyTree, path: str, num_adaptors: int) -> Array:
    """The summed weight of a path's adaptors, [C]."""
    return jnp.broadcast_to(weights_at(weights["bank"], path), (num_adaptors,))


def _stack(left: Array, right: Array, share: Array) -> tuple[Array, Array]:
    """Matrices [K, C, R, n] as [C, K·R, n], the right ones times their shares [K, C]."""

    def stack(matrices: Array) -> Array:
        moved = jnp.moveaxis(matrices, 1, 0)
        return moved.reshape(moved.shape[0], -1, moved.shape[-1])

    return stack(left), stack(right * share[..., None, None])


def _times(left: Array, right: Array) -> Array:
    return jnp.einsum("cri,crj->cij", left, right, precision="highest")


def _square(matrices: Array) -> Array:
    return jnp.sum(jnp.square(matrices), axis=(1, 2))


def _square_of(left: Array, right: Array) -> Array:
    """``‖leftᵀ right‖²`` of every adaptor, from Gram matrices."""
    grams = (jnp.einsum("cmi,cni->cmn", one, one, precision="highest") for one in (left, right))
    return jnp.maximum(jnp.sum(jnp.multiply(*grams), axis=(1, 2)), 0)


def _gap(squares: list[tuple[Product, Array, Array, Array]]) -> dict[str, Array]:
    """From each path's product, and for each of C whether it counts, its ‖E‖² and ‖mean‖²."""
    missed = whole = jnp.zeros(())
    for product, trusted, of_covariance, of_product in squares:
        scale = jnp.where(trusted, product.scale**2, 0)
        missed += jnp.sum(scale * of_covariance)
        whole += jnp.sum(scale * of_product)
    return {"averaging_gap": jnp.sqrt(missed / jnp.where(whole > 0, whole, 1))}
