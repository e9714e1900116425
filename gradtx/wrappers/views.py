"""The keyword arguments of a transform that sees another tree than its caller."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from gradtx.core.engine.update import GRAD, GRAD_FN, OF_PARAMS


def seen_through(
    extra: dict[str, Any], view: Callable[[Any], Any], back: Callable[[Any], Any]
) -> dict[str, Any]:
    """The loss and its gradient, which are about the caller's tree, as what is inside sees it.

    `view` makes its tree of the caller's gradients, and `back` the caller's parameters of its own.
    """
    result = dict(extra)
    if GRAD in extra:
        result[GRAD] = view(extra[GRAD])
    for name in OF_PARAMS:
        if name in extra:
            result[name] = _through(extra[name], view if name == GRAD_FN else lambda value: value, back)
    return result


def _through(function: Any, view: Callable[[Any], Any], back: Callable[[Any], Any]) -> Any:
    @functools.wraps(function)
    def seen(params: Any, *args: Any, **kwargs: Any) -> Any:
        return view(function(back(params), *args, **kwargs))

    return seen
