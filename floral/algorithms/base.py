"""The tuple of pure functions that every federated algorithm is."""

from collections.abc import Callable
from typing import Any, NamedTuple

import optax

from floral.adaptors import Factored
from floral.data import Batches
from floral.display import functions
from floral.messages import Context, Download, Reduced, Upload
from floral.typing import Array, Batch, Key, Loss, Params, PyTree

__all__ = [
    "Context",
    "Diagnostics",
    "Download",
    "FederatedAlgorithm",
    "Objective",
    "Reduced",
    "Upload",
]

Objective = Callable[[PyTree, PyTree, Batch, Key], tuple[Array, PyTree]]
"""``(trained, stats, batch, key) -> (losses [B], stats)``: what local training minimises."""


class Diagnostics(NamedTuple):
    """What an evaluation may ask of a client of a bank of C adaptors, beside its predictions.

    Attributes:
      losses: ``(server, client, batch of B) -> (own [B], alone [C, B])``: the losses of its own
        model, and of the one in which each adaptor alone has all the weight.
      gradients: ``(server, client, batch) -> {"base": params, "bank": {path: {factor: [C, ...]}}}``
        of the mean loss over live examples, as the client predicts, by what is averaged over
        clients; of the base None where a leaf is not, and only those paths of the bank that are.
    """

    losses: Callable[[Any, PyTree, Batch], tuple[Array, Array]]
    gradients: Callable[[Any, PyTree, Batch], dict[str, PyTree]]


class FederatedAlgorithm(NamedTuple):
    """A federated method. An algorithm never sees how clients are executed.

    Attributes:
      init: ``(key, params, stats) -> server``.
      client_init: ``(key, server, traits) -> client``, the state a client keeps between rounds;
        ``()`` for a stateless one.
      download: ``(server, context) -> Download``, what this client receives.
      client_update: ``(key, Download, client, Batches, context) -> (Upload, client, metrics)``;
        metrics are scalars that are summed over clients, by name: ``loss_sum`` and ``examples``,
        and whatever else a method has to report. A run shows them in the round's line under
        ``train``: ``<name>_sum`` as ``<name>``, divided by ``examples``, any other as its sum.
      aggregate: ``(server, Reduced, context) -> server``.
      personalize: ``(key, server, client, Batches, context) -> client``: what a stateless or an
        unseen client does, on training examples alone, before it predicts.
      predict: ``(server, client, batch) -> outputs`` of this client's own model.
      export: ``(server, client) -> params`` of that model as one plain params tree (its statistics,
        if any, are the server's or the row's); None where outputs are mixed and no one set of
        params exists.
      mixture: ``(server, client) -> [C]`` or ``{path prefix: [C]}``; None without mixtures.
      check_traits: ``({name: [N, ...]}) -> None``: raises SpecError, on the host, for a population
        that the algorithm cannot serve; None if any will do.
      report: ``(server) -> {name: number}``, what an evaluation should tell of the server's own
        state; None if nothing.
      diagnostics: what it may ask of some clients; None without a bank that clients share, or
        without mixtures.
      factored: which factor pairs the server averages, for reducers that average products; None
        for an algorithm without any.
      local_optimizer: the optimizer that clients start anew in each round, of which a simulator
        checks that every client's steps suffice to move anything; None where that is not checked.
      global_model: whether the server and a first row (``client_init``) that no example has
        touched make the one model that all clients share: the uniform mixture of a bank, the
        server's model where clients have models of their own. False where a first row holds what
        no training has touched (a head of one's own), or what is given and not learnt (known
        mixtures).
      loss: what clients minimise, which ``make_simulator`` checks against the model's outputs and
        the data; None leaves only what local training checks, that it is one float an example.
    """

    init: Callable[[Key, Params, PyTree], Any]
    client_init: Callable[[Key, Any, Any], PyTree]
    download: Callable[[Any, Context], Download]
    client_update: Callable[
        [Key, Download, PyTree, Batches, Context], tuple[Upload, PyTree, dict[str, Array]]
    ]
    aggregate: Callable[[Any, Reduced, Context], Any]
    personalize: Callable[[Key, Any, PyTree, Batches, Context], PyTree]
    predict: Callable[[Any, PyTree, Batch], Any]
    export: Callable[[Any, PyTree], Params] | None = None
    mixture: Callable[[Any, PyTree], PyTree] | None = None
    check_traits: Callable[[Any], None] | None = None
    report: Callable[[Any], dict[str, Array]] | None = None
    diagnostics: Diagnostics | None = None
    factored: Factored | None = None

    def __repr__(self) -> str:
        return functions(self, "FederatedAlgorithm", self._fields)

    local_optimizer: optax.GradientTransformation | None = None
    global_model: bool = True
    loss: Loss | None = None
