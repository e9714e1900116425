"""One value for ever."""

from __future__ import annotations

import jax

from gradtx.core.numbers.schedule import Schedule
from gradtx.core.numbers.steps import Steps
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import Number, Scalar


class ConstantSchedule(Schedule, name="constant_schedule"):
    """The value."""

    value: Number

    def at(self, step: Steps) -> jax.Array:
        return self.value

    def corners(self) -> tuple[float, ...]:
        return ()


@builds(ConstantSchedule)
def constant_schedule(value: Scalar) -> Schedule:
    """The same value at every step.

    Args:
        value: the value at every step.

    Returns:
        A schedule; its number is set as `<name>.value`.

    Examples:
        >>> import gradtx
        >>> float(gradtx.constant_schedule(0.5)(100))
        0.5
    """
    ...
