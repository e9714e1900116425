"""The laws that every optimizer should obey, and `check`, which tests one against all of them.

It needs jax and numpy alone. A law is one function of a `Case`: a transform, parameters and a few gradients,
with what the laws share (the compiled step and its trajectory) computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradtx._names import listing
from gradtx.testing import gradtx_laws, init_laws, step_laws
from gradtx.testing.case import LAWS, OURS, Case, example_grads, example_params, law, law_of_ours
from gradtx.testing.compare import PyTree

__all__ = ["LAWS", "OURS", "Case", "check", "example_grads", "example_params", "law", "law_of_ours"]

__dir__ = listing(globals())

del gradtx_laws, init_laws, step_laws  # imported for their laws


def check(
    tx: Any,
    params: PyTree | None = None,
    grads: Sequence[PyTree] | None = None,
    *,
    alternative: Any = None,
    skip: Sequence[str] = (),
    **extra: Any,
) -> None:
    """Checks an optimizer, of this library or any other, against every law that applies to it.

    Args:
        tx: an object with `init` and `update`.
        params: parameters to try it on; by default two small float32 leaves.
        grads: a few gradients, one tree for each step; by default random ones.
        alternative: the same transform with other numbers, for the law that numbers live in the state.
        skip: names of laws to leave out, from `gradtx.testing.LAWS`.
        **extra: what its `update` needs, such as `value=`.

    Raises:
        AssertionError: a law does not hold; the law and the path of the leaf are named.

    Examples:
        >>> import gradtx
        >>> from gradtx import testing
        >>> testing.check(gradtx.sgd(0.1, momentum=0.9), skip=["sharded_equals_unsharded"])
    """
    unknown = set(skip) - set(LAWS)
    if unknown:
        raise ValueError(f"There is no law {sorted(unknown)[0]!r}. There are {', '.join(LAWS)}.")
    case = Case(tx, params, grads, alternative=alternative, **extra)
    # What every optimizer obeys comes first: where that is broken, others are too, and say less plainly why.
    for name in sorted(LAWS, key=OURS.__contains__):
        if name not in skip and case.concerns(name):
            case.obeys(name)
