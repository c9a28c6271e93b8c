r"""How the factors of adaptors are averaged: averaging factors is not averaging products.

What adaptor c does is its product ``aᵀ b``. Clients move both factors, and with
``p_k = n_k π_kc / Σ_j n_j π_jc`` the average of their products is the product of their average
factors and a covariance over clients, which the updates alone tell:

    Σ_k p_k a_kᵀ b_k = āᵀ b̄ + E_c,    E_c = Σ_k p_k Δa_kᵀ Δb_k − Δāᵀ Δb̄.

| form | what the server takes |
|---|---|
| `weighted_mean` | ``ā`` and ``b̄``, as the paper does: E is lost |
| `factor_mean` | the same, and E is measured |
| `product_mean` | the best pair of the same rank for ``āᵀ b̄ + E`` |
| `residual_mean` | ``ā`` and ``b̄``, and the base takes the mean of E over the cohort |
| one side frozen | factors under `weighted_mean`, of which clients train one: E is zero |

One side is frozen by what FLoRAL trains, ``train: [base, "bank/**/b", "bank/**/offset", mixture]``
with additive adaptors beside the pairs; `ffa_lora` is the same with one adaptor for all.

The reducers here tell a round's ``averaging_gap``: the norm of E over all pairs and adaptors,
relative to that of the average of products. Under `weighted_mean` a simulator measures it when
asked, as evaluations of the command line do. Adaptors without factors, such as additive ones, and
pairs of which one factor is frozen, are averaged as they are, which is exact.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from floral import check, tree
from floral.adaptors import Factored, best_pair
from floral.errors import SpecError
from floral.first_argument import first_by_place
from floral.messages import Reduced
from floral.typing import Array, PyTree
from floral.uplink.base import Reducer
from floral.uplink.pairs import Average, Products, first, stacked, steps, streamed

__all__ = ["factor_mean", "product_mean", "residual_mean"]


def factor_mean() -> Reducer:
    """The weighted mean of every factor by itself, with the gap to the mean of products told.

    Moves the server as `weighted_mean` does. Streams; holds one array of the leaf's shape for each
    adaptor and adapted leaf.

    Raises:
      SpecError: once it meets an algorithm whose server averages no pairs of factors.

    Source: the FLoRAL paper (arXiv 2410.03497), Algorithm 1.
    """
    return _fitting(
        "factor_mean", lambda pairs, factored: streamed(pairs, factored.values, _as_averaged)
    )


@first_by_place
def product_mean(*, whole_cohort: bool = False) -> Reducer:
    """The mean of products, weighted by ``n_k π_kc``, truncated to the adaptors' rank.

    By a singular value decomposition, so that no pair of that rank is nearer to the mean of
    products in the Frobenius norm; exact where the clients' products share a row or a column space
    of that many dimensions. The factors come out balanced: ``a aᵀ = b bᵀ``.

    Args:
      whole_cohort: factorises all updates of a cohort of K by QR, [K R, rows], instead of summing
        products as they come: never forms an array of the leaf's shape, which is less where K R
        is small beside its sides, but holds every client's update at once.

    Raises:
      SpecError: once it meets an algorithm whose server averages no pairs of factors or steps by
        an optimizer, or an adaptor that is no product of two matrices.

    Source: Bai et al., "Federated Fine-tuning of Large Language Models under Heterogeneous Tasks
    and Client Resources", 2024 (FlexLoRA). Differs from the paper: factors are balanced.
    """

    check.boolean(whole_cohort=whole_cohort)

    def fit(pairs: Products, factored: Factored) -> Reducer:
        _check_plain("product_mean", factored)
        if whole_cohort:
            return stacked(pairs, factored.values)
        return streamed(pairs, factored.values, _refactored)

    return _fitting("product_mean", fit)


def residual_mean() -> Reducer:
    r"""The mean of factors, and what that misses of the products, ``E``, added to the base.

    All clients share one base, so it takes ``Ē = Σ_c W_c E_c / Σ_c W_c``, ``W_c = Σ_k n_k π_kc``:

    * with one adaptor every client has exactly the mean of products, at full rank;
    * with C adaptors the mean model of the cohort, ``Σ_k n_k (base + Σ_c π_kc a_cᵀ b_c)``, is
      exactly what the mean of products makes it, with the mixtures that clients have sent;
    * the model of client k is off by ``Σ_c π_kc E_c − Ē``, whose mean square, weighted by n_k, no
      other choice of Ē makes smaller.

    Streams, as `factor_mean` does.

    Raises:
      SpecError: once it meets an algorithm whose server averages no pairs of factors, steps by an
        optimizer, or has a base that clients do not train where it is adapted.

    Source: Singhal et al., "FedEx-LoRA: Exact Aggregation for Federated and Efficient Fine-Tuning
    of Foundation Models", 2025, for one adaptor. Differs from the paper: the base is trained too.
    """

    def fit(pairs: Products, factored: Factored) -> Reducer:
        _check_plain("residual_mean", factored)
        for path in sorted(factored.pairs.keys() - factored.base):
            raise SpecError(
                f"uplink.reduce: residual_mean adds to the base, and clients do not train its "
                f"{path!r}: add 'base' to what is trained, or use product_mean"
            )
        return streamed(pairs, factored.values, _folded)

    return _fitting("residual_mean", fit)


def _as_averaged(reduced: Reduced, averages: Mapping[str, Average]) -> PyTree:
    return reduced.update


def _refactored(reduced: Reduced, averages: Mapping[str, Average]) -> PyTree:
    bank = dict(reduced.update["bank"])
    for path, average in averages.items():
        rank = average.left.shape[1]
        pairs = jax.vmap(lambda matrix, rank=rank: best_pair(matrix, rank))(average.of_products)
        bank[path] = steps(average.product, average.start, pairs, average.trusted)
    return {**reduced.update, "bank": bank}


def _folded(reduced: Reduced, averages: Mapping[str, Average]) -> PyTree:
    def fold(path: str, leaf: Array) -> Array:
        if path not in averages:
            return leaf
        average = averages[path]
        total = jnp.sum(average.weight)
        shares = average.weight / jnp.where(total > 0, total, 1)
        residual = jnp.tensordot(shares, average.covariance, axes=1, precision="highest")
        return leaf - average.product.leaf(residual, first(average.start)).astype(leaf.dtype)

    return {**reduced.update, "base": tree.map_with_path(fold, reduced.update["base"])}


def _fitting(name: str, fit: Callable[[Products, Factored], Reducer]) -> Reducer:
    """The reducer that is ``fit(products of its pairs, factored)`` for an algorithm."""

    def reduce(updates, weights, state, *, key=None, server=None):
        raise SpecError(
            f"{name} reduces the factor pairs of one algorithm: make_simulator fits it to that, or "
            "its fit(algorithm.factored)"
        )

    def fit_checked(factored: Factored | None) -> Reducer:
        if factored is None or not factored.pairs:
            raise SpecError(
                f"uplink.reduce: {name} averages pairs of factors, and this algorithm sends its "
                "server none: use weighted_mean, which is exact where one of each pair is frozen"
            )
        products = {}
        for path, adaptor in factored.pairs.items():
            products[path] = adaptor.product
            if adaptor.product is None:
                raise SpecError(
                    f"uplink.reduce: {name} needs the factors of {path!r} to be a product of two "
                    f"matrices, which {adaptor.kind} does not say: give the adaptor its product, "
                    "or use weighted_mean"
                )
        return fit(products, factored)

    return Reducer(init=lambda update: (), reduce=reduce, fit=fit_checked)


def _check_plain(name: str, factored: Factored) -> None:
    if not factored.plain:
        raise SpecError(
            f"uplink.reduce: {name} says where the server goes, and a server optimizer would go "
            "elsewhere: leave server_optimizer and bank_server_optimizer out, or use factor_mean"
        )
