"""What every line search does: it looks along the update, scales it, and remembers what it found."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.compose.rule import Slot, Whole, WholeScalar
from gradtx.core.compose.wrapper import Wrapper
from gradtx.core.engine.on_shards import refuse_unnamed
from gradtx.core.engine.scope import Slots
from gradtx.core.engine.update import VALUE_FN
from gradtx.core.engine.wrapped_update import WrappedUpdate
from gradtx.linesearch.line import Leaves, Line, Point, chosen, constant, either, most, scaled


class Found(NamedTuple):
    """Where a line search ended.

    Attributes:
        point: the rate, the loss there and, where it is known, the slope.
        grads: the gradient of the loss there.
        trials: how many rates were tried.
        errors: by how much each condition is broken there, by name; 0 where it holds, the
            largest number where the loss is not finite.
    """

    point: Point
    grads: Leaves
    trials: jax.Array
    errors: dict[str, jax.Array]


class LineSearch(Wrapper):
    """A transform that scales updates by a rate, which it finds by evaluating the loss."""

    verbose: bool

    in_place = False
    needs = ("params", "value", VALUE_FN)

    learning_rate = WholeScalar(lambda search: 1.0)
    value = WholeScalar(lambda search: math.inf)
    grad = Slot()
    num_linesearch_steps = Whole(lambda search, params: np.int32(0))
    decrease_error = WholeScalar()

    @property
    def tolerance(self) -> Any:
        """By how much a condition may be broken."""
        raise NotImplementedError

    def search(self, line: Line, before: jax.Array) -> Found:
        """Finds a rate; `before` is the one that was found last, and 1 at first and after a rate of 0."""
        raise NotImplementedError

    def run(self, gs: Leaves, slots: Slots, call: WrappedUpdate) -> tuple[Leaves, dict[str, Any]]:
        line, last = Line(gs, call, self.name), jax.lax.stop_gradient(slots.learning_rate)
        refuse_unnamed(self.name, self, line.start)
        fixed = self._with(**constant(self._values()))
        found = fixed.search(line, jnp.where(last > 0, last, jnp.ones_like(last)))
        error = found.errors["decrease_error"]
        moves = error < most(error)
        end, grads = chosen(moves, (found.point, found.grads), (line.start, line.grads))
        if self.verbose:
            _tell(self.name, line.start, end.rate, found, fixed.tolerance)
        return scaled(gs, end.rate), {
            "learning_rate": end.rate,
            "value": end.value,
            "grad": [None if old is None else g for old, g in zip(slots.grad, grads, strict=True)],
            "num_linesearch_steps": found.trials,
            **found.errors,
        }


def _tell(name: str, start: Point, rate: jax.Array, found: Found, tolerance: Any) -> None:
    """Prints what a search ended with that found no rate at which all conditions hold."""
    words = (
        f"{name}: no rate that was tried meets all conditions. It takes {{rate}} after {{trials}} trials, "
        f"which break them by {{errors}}. At the parameters the loss is {{value}}, and its slope along the "
        f"update is {{slope}}; it must be negative for the loss to decrease."
    )
    told = {"rate": rate, "trials": found.trials, "errors": found.errors}

    def tell() -> None:
        jax.debug.print(words, **told, value=start.value, slope=start.slope)

    broken = functools.reduce(jnp.logical_or, [error > tolerance for error in found.errors.values()])
    either(broken, tell, lambda: None)
