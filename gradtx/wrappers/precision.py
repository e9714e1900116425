"""One policy for the precision of a run: in which formats its state is kept, and how its parameters are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from gradtx.core.compose.combine import chain
from gradtx.core.compose.recipe import recipe
from gradtx.core.compose.store import store
from gradtx.core.engine.coded import MIN_SIZE
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.arguments import suggestion
from gradtx.core.spec.spec import show
from gradtx.wrappers.precise_params import How, precise_params

Preset = Literal["f32", "bf16", "8bit", "7-bytes"]

AT_RANDOM = {"means": "bfloat16_stochastic", "mean_squares": "bfloat16_stochastic"}
EIGHT_BITS = {"means": "int8", "mean_squares": "uint8_stochastic"}
PRESETS: dict[str, tuple[dict[str, str], Any]] = {
    "f32": ({}, None),
    "bf16": (AT_RANDOM, "stochastic"),
    "8bit": (EIGHT_BITS, None),
    "7-bytes": (EIGHT_BITS, "split8"),
}
"""The formats of slots, and what is beside the parameters, by the name of a preset."""


@recipe
def precision(
    inner: AnyTransform,
    preset: Preset = "7-bytes",
    *,
    slots: Mapping[str, Any] | None = None,
    params: How | None = None,
    min_size: int = MIN_SIZE,
    seed: int = 0,
) -> Transform:
    """Says in how many bits the state of an optimizer is kept, and that parameters of 16 bits lose nothing.

    | preset | averages | mean squares | parameters of 16 bits | AdamW: bytes of weight, gradient and state |
    |---|---|---|---|---|
    | `"f32"` | float32 | float32 | as they are | 12 |
    | `"bf16"` | bfloat16 at random | bfloat16 at random | rounded at random | 8 |
    | `"8bit"` | int8 | uint8 at random | as they are | 6.06 |
    | `"7-bytes"` | int8 | uint8 at random | and 8 bits beside each | 7.06 |

    The bytes are those of a parameter in bfloat16 with a gradient in bfloat16. A mean of squares with a decay
    near 1 moves by less than half a step of its code in one update, and would stand still if it were rounded
    to the nearest; so it is rounded at random. With `"7-bytes"` the parameters themselves have the digits to
    take small updates. What a preset says of parameters is for those of 16 bits alone, so that it may be
    given to any model.

    Args:
        inner: the wrapped transform, of any library. It is the whole optimizer.
        preset: the name of a preset.
        slots: formats by the name of a slot, as `gradtx.store` takes them, which go before the preset's.
        params: what is kept beside each parameter, in place of what the preset says. It is `how` of
            `gradtx.precise_params`.
        min_size: the fewest elements of what is kept in a format.
        seed: another one rounds at random in another way.

    Returns:
        The optimizer with the same numbers, and another state.

    Raises:
        ValueError: there is no such preset; what `gradtx.store` and `gradtx.precise_params` raise.
        TypeError: `slots` are not by name.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.precision(gradtx.adamw(1e-3), "7-bytes")
        >>> state = tx.init({"w": jnp.zeros((64, 128), jnp.bfloat16)})
        >>> state["slots"]["precise_params"]["beside"]["w"].dtype.name
        'int8'

    References:
        Dettmers et al., 8-bit Optimizers via Block-wise Quantization, 2021, https://arxiv.org/abs/2110.02861;
        FlashOptim, https://github.com/databricks/flashoptim.
    """
    if preset not in PRESETS:
        hint = suggestion(str(preset), None, [*PRESETS])
        there_are = f"There are {', '.join(map(repr, PRESETS))}. {hint}".rstrip()
        raise ValueError(f"precision: there is no preset {show(preset)}. {there_are}")
    if slots is not None and not isinstance(slots, Mapping):
        raise TypeError(
            f"precision: slots are formats by the name of each slot, as slots={{'nu': 'float32'}}; got "
            f"{show(slots)}. A preset stands before them: gradtx.precision(tx, '8bit')."
        )
    formats, how = PRESETS[preset]
    how = params or how
    made = inner if how is None else precise_params(inner, how, seed=seed)
    if not formats and not slots:
        return chain(made)
    return store(made, min_size=min_size, seed=seed, **{**formats, **(slots or {})})
