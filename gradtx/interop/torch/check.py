"""Whether a gradtx transform is the optimizer that torch's options describe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gradtx.core.engine import Composed
from gradtx.core.program import Unit
from gradtx.core.spec import show
from gradtx.interop.torch.table import Kind, Options, is_decoupled, refuse_foreign

Read = Callable[[Unit, str], Any]
"""The value of a field of a unit: a number, a function if it is a schedule, or a setting."""

MULTIPLIERS = ("scale", "scale_by_schedule", "scale_by_group", "scale_by_param_block_rms")
RATE = "scale_by_learning_rate"


def as_given(unit: Unit, field: str) -> Any:
    """The value of a field as the transform was given it."""
    return unit.transform.__dict__[field]


def check(kind: Kind, options: Options, units: list[Unit], leaf: str, read: Read) -> None:
    """Raises unless the units that work on a leaf are torch's optimizer, and says what means the same.

    Learning rates are not compared where the transform gives it by a schedule, or as a product of several.
    Transforms without a state that torch's optimizer does not have, such as clipping, are not looked at.
    """
    rates = [u for u in units if u.transform.name == RATE]
    scheduled = not rates or any(callable(read(u, "learning_rate")) for u in rates)
    refuse_foreign(options, scheduled)
    same = kind.same(options)
    forms = [_differences(_of(tx), units, read) for tx in same]
    fewest = min(forms, key=len)
    if not fewest:
        return
    shown = same[forms.index(fewest)]
    hint = ""
    if "initial_lr" in options and any(RATE in line for line in fewest):
        hint = " torch's rate is set by a scheduler: give tx the schedule as its learning rate."
    name = "AdamW" if is_decoupled(options) else kind.name
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
    counts = {u.transform.name for u in theirs} | {"add_decayed_weights", "trace", RATE}
    counting = [u for u in mine if u.transform.name in counts or u.transform.slots]
    counting = [u for u in counting if not _is_idle(u, read)]
    if not any(u.transform.name == RATE for u in counting):
        theirs = [u for u in theirs if u.transform.name != RATE]
    names, wanted = [u.transform.name for u in counting], [u.transform.name for u in theirs]
    if names != wanted:
        return [
            f"it runs {', '.join(names) or 'nothing'} in tx and {', '.join(wanted) or 'nothing'} in torch"
        ]
    scaled = any(u.transform.name in MULTIPLIERS for u in mine)
    found = []
    for a, b in zip(counting, theirs, strict=True):
        for key, field in a.transform.fields().items():
            ours, other = read(a, key), as_given(b, key)
            skipped = key == "mask" or field.dtype or (key == "learning_rate" and scaled)
            if key == "dampen_first" and not as_given(b, "dampening"):
                skipped = True  # without dampening the first step is like the others
            if not skipped and not _equal(ours, other):
                found.append(f"{key} of {a.transform.name} is {show(ours)} in tx and {show(other)} in torch")
    return found


def _is_idle(unit: Unit, read: Read) -> bool:
    """Whether it decays nothing, or is the identity."""
    decays = unit.transform.name == "add_decayed_weights"
    return unit.transform.name == "identity" or (decays and _equal(read(unit, "weight_decay"), 0.0))


def _equal(ours: Any, theirs: Any) -> bool:
    if callable(ours):
        return True
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in (ours, theirs))
    return bool(np.isclose(ours, theirs, rtol=3e-7, atol=0)) if numbers else ours == theirs
