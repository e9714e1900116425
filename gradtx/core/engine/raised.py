"""What is said of an error that a user's own code raised inside of an update: where, and what to write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import jax

TRACED = (
    "A value there is traced: an update is compiled once for all values, and knows only shapes and dtypes."
)
INSTEAD = {
    jax.errors.TracerBoolConversionError: (
        "`if`, `and`, `min` of Python ask for a value: write jnp.where(condition, a, b), a & b, jnp.minimum."
    ),
    jax.errors.TracerArrayConversionError: (
        "Functions of numpy ask for values: write jnp.sign(x) for np.sign(x), and x itself for np.asarray(x)."
    ),
    jax.errors.NonConcreteBooleanIndexError: (
        "x[condition] has a size that depends on values: write jnp.where(condition, x, 0)."
    ),
    jax.errors.TracerIntegerConversionError: (
        "A list's index, a size and `range` ask for a number: write jnp.take(array, i); what decides about "
        "sizes is no hyperparameter but an option, a field annotated `int`."
    ),
    jax.errors.ConcretizationTypeError: (
        "float(x), int(x) and x.item() ask for a value: use x as it is, an array of one number; "
        "x.astype(jnp.int32) makes it whole."
    ),
    jax.errors.UnexpectedTracerError: (
        "It was used after its update: what a rule keeps, it gives back as a gradtx.Slot or WholeScalar."
    ),
}
"""What to write, by the error that JAX raises where a value is asked for; the first that fits."""
_RAISED = "This was raised "


def instead(error: Exception) -> str:
    """What to write instead, where an error comes from the use of a traced array; otherwise nothing."""
    return next((f"{TRACED} {words}" for kind, words in INSTEAD.items() if isinstance(error, kind)), "")


@contextmanager
def raised(where: str) -> Iterator[None]:
    """Notes on an error where it comes from, such as `by apply of scale_by_adam`, unless that was said."""
    try:
        yield
    except Exception as error:
        if not any(note.startswith(_RAISED) for note in getattr(error, "__notes__", ())):
            error.add_note(f"{_RAISED}{where}.")
            if words := instead(error):
                error.add_note(words)
        raise
