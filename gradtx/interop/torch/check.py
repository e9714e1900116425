"""Whether a gradtx transform is the optimizer that torch's options describe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gradtx.core.engine.composed import Composed
from gradtx.core.engine.steps import Unit
from gradtx.core.spec.spec import show
from gradtx.interop.torch.rate import RATE, in_rate, is_multiplier, is_scheduled, misplaced
from gradtx.interop.torch.table import Kind, Options, is_decoupled, refuse_foreign

Read = Callable[[Unit, str], Any]
"""The value of a field of a unit: a number, a function if it is a schedule, or a setting."""

CLOSE = 3e-7
"""The part by which two numbers may differ that are one: five roundings to float32."""


def as_given(unit: Unit, field: str) -> Any:
    """The value of a field as the transform was given it."""
    return unit.transform.__dict__[field]


def check(kind: Kind, options: Options, units: list[Unit], leaf: str, read: Read) -> None:
    """Raises unless the units that work on a leaf are torch's optimizer, and says what means the same.

    A learning rate that is a product of several is not compared here, nor one by a schedule. Transforms
    without a state that torch's optimizer does not have, such as clipping, are not looked at.
    """
    refuse_foreign(kind, options, any(map(is_scheduled, in_rate(units))))
    try:
        same = kind.same(options)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"An option of torch's parameter group is wrong, so that it is no {kind.name}: {error}"
        ) from error
    forms = [_differences(_of(tx), units, read) for tx in same]
    fewest = min(forms, key=len)
    if not fewest:
        return
    shown = same[forms.index(fewest)]
    hint = ""
    if "initial_lr" in options and any(RATE in line for line in fewest):
        hint = " torch's rate is set by a scheduler: give tx the schedule as its learning rate."
    name = "AdamW" if kind.name == "Adam" and is_decoupled(options) else kind.name
    raise ValueError(
        f"tx is not torch's {name} on the leaf {leaf!r}: {'; '.join(fewest)}. What means the same is "
        f"gradtx.{shown!r}.{hint}"
    )


def _of(tx: Any) -> list[Unit]:
    assert isinstance(tx, Composed)
    return tx.program.units


def _differences(theirs: list[Unit], mine: list[Unit], read: Read) -> list[str]:
    """What differs, in words, between torch's units and those that work on a leaf."""
    theirs = [u for u in theirs if not _is_idle(u, as_given)]
    counts = {u.transform.name for u in theirs} | {"add_decayed_weights", "trace", "set_to_zero", RATE}
    scaled = any(u.transform.name != RATE for u in in_rate(mine))
    counting = [u for u in mine if u.transform.name in counts or u.transform.slots]
    counting = [u for u in counting if not _is_idle(u, read)]
    if scaled and not any(u.transform.name == RATE for u in counting):
        theirs = [u for u in theirs if u.transform.name != RATE]
    names, wanted = [u.transform.name for u in counting], [u.transform.name for u in theirs]
    if names != wanted:
        return [
            f"it runs {', '.join(names) or 'nothing'} in tx and {', '.join(wanted) or 'nothing'} in torch"
        ]
    found = list(misplaced(mine))
    for a, b in zip(counting, theirs, strict=True):
        for key, field in a.transform.fields().items():
            ours, other = read(a, key), as_given(b, key)
            skipped = key == "mask" or field.dtype or (scaled and is_multiplier(a))
            if key == "dampen_first" and not as_given(b, "dampening"):
                skipped = True  # without dampening the first step is like the others
            if not skipped and not equal(ours, other):
                found.append(f"{key} of {a.transform.name} is {show(ours)} in tx and {show(other)} in torch")
    return found


def _is_idle(unit: Unit, read: Read) -> bool:
    """Whether it decays nothing, or is the identity."""
    decays = unit.transform.name == "add_decayed_weights"
    return unit.transform.name == "identity" or (decays and equal(read(unit, "weight_decay"), 0.0))


def equal(ours: Any, theirs: Any) -> bool:
    """Whether two settings agree. A schedule agrees with every number."""
    if callable(ours):
        return True
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in (ours, theirs))
    return bool(np.isclose(ours, theirs, rtol=CLOSE, atol=0)) if numbers else ours == theirs
