"""How many programs XLA compiles, eager operations included."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import jax

_total = 0


def _listen(event: str, duration: float, **_: object) -> None:
    global _total
    _total += event == "/jax/core/compile/backend_compile_duration"


jax.monitoring.register_event_duration_secs_listener(_listen)


@contextlib.contextmanager
def compilations() -> Iterator[Callable[[], int]]:
    """Gives a function that says how many programs were compiled since the start of the block."""
    before = _total
    yield lambda: _total - before
