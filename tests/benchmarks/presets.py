"""AdamW in every preset of gradtx.precision, against Optax in float32 and against its own float32."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

import gradtx

from . import trees
from .cases import HYPERPARAMETERS, in_one, plain, update_and_apply
from .measure import BASE, Row, owning, rows, take_turns, wall

OWN = "f32"
OPTAX_LOW = "Optax, mu_dtype=bfloat16"
LOW = optax.adamw(3e-4, **HYPERPARAMETERS, mu_dtype=jnp.bfloat16)
CONTESTANTS: dict[str, tuple[Any, Any, Any]] = {
    BASE: (plain(optax), update_and_apply(optax, plain(optax)), jnp.float32),
    **{
        preset: (tx, in_one(tx), dtype)
        for preset, dtype in {
            OWN: jnp.float32,
            "8bit": jnp.float32,
            "bf16": jnp.bfloat16,
            "7-bytes": jnp.bfloat16,
        }.items()
        for tx in [gradtx.precision(plain(gradtx), preset)]
    },
    OPTAX_LOW: (LOW, update_and_apply(optax, LOW), jnp.float32),
}
"""Of each its transform, its step, and the dtype of parameters and gradients."""

NATIVE = ", native"
"""What the name of a preset has behind it where its step is by native kernels, on a CPU."""
if jax.default_backend() == "cpu":
    presets = [name for name in CONTESTANTS if name in (OWN, "8bit", "bf16", "7-bytes")]
    CONTESTANTS |= {name + NATIVE: CONTESTANTS[name] for name in presets}

OPTIONS: dict[str, dict[str, Any]] = {
    "": {},
    ", scheduled for memory": {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"},
}
"""How XLA orders the operations: in its own way, and so that the least is held at once."""


def programs(shapes: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The compiled step of each, with what it is given donated but the gradients."""
    made = {}
    for name, (tx, step, dtype) in CONTESTANTS.items():
        params = jax.tree.map(
            lambda x, dtype=dtype: jax.ShapeDtypeStruct(x.shape, dtype), trees.abstract(shapes)
        )
        with gradtx.kernels("native" if name.endswith(NATIVE) else "xla"):
            jitted = jax.jit(step, donate_argnums=(0, 1))
            lowered = jitted.lower(params, jax.eval_shape(tx.init, params), params)
            made[name] = lowered.compile(compiler_options=options)
    return made


def stepping(name: str, shapes: Any, compiled: Any) -> Any:
    """A call of the compiled step, which owns what it works on."""
    tx, _, dtype = CONTESTANTS[name]
    params, grads = (jax.tree.map(lambda x: x.astype(dtype), trees.filled(shapes, seed)) for seed in (0, 1))
    held = params, tx.init(params)
    return owning(compiled, held, grads)


def of_shapes(case: str, shapes: Any, rounds: int, orderings: list[str]) -> list[Row]:
    """The step of each preset beside Optax's and the own one in float32, three at a time, for the memory."""
    result, count = [], sum(x.size for x in jax.tree.leaves(trees.abstract(shapes)))
    for ordering in orderings:
        compiled = programs(shapes, OPTIONS[ordering])
        for name in [*CONTESTANTS][1:]:
            own = [*dict.fromkeys((BASE, OWN, name))]
            seconds: dict[str, list[float]] = {n: [] for n in own}
            for order in (own, own[::-1]):
                running = {n: wall(stepping(n, shapes, compiled[n]), 1) for n in order}
                for n, spent in take_turns(running, rounds).items():
                    seconds[n] += spent
                running.clear()
            result += rows(f"step: {case}{ordering}", {n: seconds[n] for n in (BASE, name)}, None)
            if name not in (OWN, OPTAX_LOW):
                against = {BASE: seconds[OWN], name: seconds[name]}
                result += rows(f"step: {case}{ordering}, against float32", against, None)
        sizes = {n: p.memory_analysis().temp_size_in_bytes / count for n, p in compiled.items()}
        for name in [*CONTESTANTS][1:]:
            title = f"temporaries, bytes a parameter: {case}{ordering}"
            result.append(Row(title, name, f"{sizes[name]:.2f}", f"{sizes[BASE]:.2f}", "", "", "", None))
    return result


def one_leaf(quick: bool) -> list[Row]:
    shapes = {"w": (64, 128)} if quick else {"w": (4_096, 8_192)}
    return of_shapes("AdamW, one leaf of 34M", shapes, 1 if quick else 3, [""])


def many_leaves(quick: bool) -> list[Row]:
    shapes = trees.transformer(1, 64, 100, 64) if quick else trees.transformer(2, 768, 8_000, 1_024)
    on_a_cpu = jax.default_backend() == "cpu"
    return of_shapes("AdamW, 28 leaves of GPT-2", shapes, 1 if quick else 3, [*OPTIONS] if on_a_cpu else [""])


CASES = {"presets-one-leaf": one_leaf, "presets": many_leaves}
"""Every case by the name that `--case` takes."""
