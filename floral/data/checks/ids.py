"""Clients by id or by name: every question about a client passes through here."""

import numbers
from typing import Any

import numpy as np

from floral import check
from floral.errors import SpecError

__all__ = ["client_ids"]

_MOST_COMPARED = 10_000  # names that an unknown one is compared with


def client_ids(clients: Any, count: int, names: np.ndarray | None = None) -> np.ndarray:
    """The ids of clients that are given by id, by name, or as a mask: int64 [K].

    Args:
      clients: an id or a name, several of them, or ``[N]`` bool that marks some.
      count: N, the number of clients.
      names: ``[N]``, their names; None where they have none.

    Raises:
      SpecError: for what is neither an id from 0 to N - 1 nor a name.

    Example:
      >>> client_ids(["b", 0], 2, np.array(["a", "b"])).tolist()
      [1, 0]
    """
    each = _each(clients, count, names)
    if _is_mask(each, count):
        ids = np.flatnonzero(np.asarray(each))
        if not ids.size:
            raise SpecError(f"clients: the mask marks none of the {count} clients")
        return ids
    if isinstance(each, np.ndarray) and each.dtype.kind in "iu":
        wrong = np.flatnonzero((each < 0) | (each >= count))
        if len(wrong):
            raise _unknown(int(each[wrong[0]]), count, names)
        ids = each.astype(np.int64)
    else:
        ids = np.array([_id(client, count, names) for client in each], np.int64)
    if not ids.size:
        raise _unknown(clients, count, names)
    return ids


def _each(clients: Any, count: int, names: np.ndarray | None) -> Any:
    """The clients as a list, or an array with one axis."""
    if isinstance(clients, list | tuple):
        return clients
    if isinstance(clients, np.ma.MaskedArray):
        clients = np.ma.filled(clients.astype(object), None)
    try:
        array = np.asarray(clients)
    except (ValueError, TypeError, RuntimeError) as error:
        raise _unknown(clients, count, names) from error
    if array.ndim == 0:
        return [clients]
    if array.ndim > 1:
        raise _unknown(clients, count, names)
    return array


def _is_mask(clients: Any, count: int) -> bool:
    if len(clients) != count:
        return False
    if isinstance(clients, list | tuple):
        return all(isinstance(one, bool | np.bool_) for one in clients)
    return clients.dtype.kind == "b"


def _id(client: Any, count: int, names: np.ndarray | None) -> int:
    if isinstance(client, np.ndarray) and client.ndim == 0:
        client = client[()]
    if isinstance(client, str) and names is not None:
        found = np.flatnonzero(names == client)
        if len(found):
            return int(found[0])
    whole = isinstance(client, numbers.Integral) and not isinstance(client, bool)
    if whole and 0 <= int(client) < count:
        return int(client)
    raise _unknown(client, count, names)


def _unknown(client: Any, count: int, names: np.ndarray | None) -> SpecError:
    shown = " ".join(repr(client).split())[:80]
    expected = f"clients must be ids from 0 to {count - 1}"
    if names is None:
        unnamed = "; these clients have no names" if isinstance(client, str) else ""
        return SpecError(f"{expected}, got {shown}{unnamed}")
    hint = ""
    if isinstance(client, str):
        hint = check.did_you_mean(client, names[:_MOST_COMPARED].tolist())
    return SpecError(f"{expected} or names such as {str(names[0])!r}, got {shown}{hint}")
