"""How modules are told that they train: by an argument of their call, never to be forgotten."""

import inspect
from typing import Any

from floral import check
from floral.errors import SpecError

__all__ = ["check_call", "training_arguments"]

_WHEN_TRAINING = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "inference": False,
    "use_running_average": False,
}
"""The customary arguments by which modules are told, and their values in training."""


def training_arguments(train_argument: str | None, train: bool) -> dict[str, Any]:
    """The keywords that tell a module whether it trains; none without a name for it.

    Example:
      >>> training_arguments("train", True), training_arguments("deterministic", True)
      ({'train': True}, {'deterministic': False})
    """
    if train_argument is None:
        return {}
    return {train_argument: train == _WHEN_TRAINING.get(train_argument, True)}


def check_call(
    wrapper: str,
    kind: type,
    train_argument: str | None,
    mask: bool = False,
    features_argument: str | None = None,
) -> None:
    """Raises SpecError unless the module's call takes what it will be given and lacks nothing.

    Args:
      wrapper: the function that makes a model of the module, for messages.
      kind: the module's class.
      train_argument: the keyword that says whether it trains, or None.
      mask: whether it is given ``mask``.
      features_argument: the keyword that asks for features, or None.
    """
    parameters = inspect.signature(kind.__call__).parameters
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    takes = [name for name in list(parameters)[1:] if parameters[name].kind in _BY_NAME]
    asked = {"train_argument": train_argument, "features_argument": features_argument}
    for setting, name in asked.items():
        if name is not None and not isinstance(name, str):
            raise SpecError(
                f"{wrapper}: {setting} must be the name of an argument, got {check.described(name)}"
            )
    for setting, name in (asked | {"mask": "mask" if mask else None}).items():
        if name is not None and name not in takes and not anything:
            known = ", ".join(takes) or "nothing"
            raise SpecError(
                f"{wrapper}: {setting}: {kind.__name__} takes no {name!r}; its call takes {known}"
                + check.did_you_mean(name, takes)
            )
    for name in takes if train_argument is None else ():
        if name in _WHEN_TRAINING:
            raise SpecError(
                f"{wrapper}: {kind.__name__} takes {name!r}, which nobody passes; give "
                f"train_argument={name!r}, or it trains as it predicts"
            )


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
