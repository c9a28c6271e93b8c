"""How one mapping is laid over another: the one rule behind extends, compare and overrides."""

from collections.abc import Mapping
from typing import Any

__all__ = ["merge"]


def merge(parent: Mapping[str, Any], child: Mapping[str, Any]) -> dict[str, Any]:
    """The parent with what the child states laid over it; neither is changed.

    Mappings are merged key by key, everything else is replaced: a list is a value, since its
    entries have no names to tell which is meant. So is null; nothing is ever deleted.

    Where the child states another ``kind`` than the parent, the parent's mapping is dropped
    first. Its other keys are settings of the parent's kind: most would be refused as unknown,
    and those that happen to share a name, as ``learning_rate``, would silently carry over a value
    that was chosen for something else.

    Example:
      >>> merge({"kind": "sgd", "learning_rate": 0.1}, {"learning_rate": 0.2})
      {'kind': 'sgd', 'learning_rate': 0.2}
      >>> merge({"kind": "sgd", "learning_rate": 0.1}, {"kind": "adam"})
      {'kind': 'adam'}
    """
    if "kind" in parent and "kind" in child and parent["kind"] != child["kind"]:
        parent = {}
    merged = {key: _copied(value) for key, value in parent.items()}
    for key, value in child.items():
        below = parent.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = merge(below, value)
        else:
            merged[key] = _copied(value)
    return merged


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_copied(inner) for inner in value]
    return value
