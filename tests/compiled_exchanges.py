"""What a compiled step exchanges, beside what `gradtx.explain` says of it, on simulated devices.

    python tests/compiled_exchanges.py 64 muon-zero1 soap-fsdp

compiles the steps that are named on so many devices, and prints as JSON what the two say of each.
"""

from __future__ import annotations

import collections
import json
import os
import re
import sys
from typing import Any

MODES = ("fsdp", "two axes", "zero1")


def exchanges(text: str) -> list[tuple[str, int]]:
    """The kind of each collective operation of a compiled program, and the bytes that a device gets of it.

    One that the compiler has joined of several counts as these, but for an all-to-all, which it writes as
    the shards that it consists of.
    """
    found = []
    kinds = "all-to-all|all-gather|all-reduce|reduce-scatter|collective-permute"
    for result, kind in re.findall(rf"= (.*?) ({kinds})(?:-start)?\(", text):
        sizes = [_size(*array) for array in re.findall(r"(\w+)\[([\d,]*)\]", result)]
        found += [(kind, sum(sizes))] if kind == "all-to-all" else [(kind, size) for size in sizes]
    return found


def _size(dtype: str, dims: str) -> int:
    size = 1 if dtype == "pred" else int(dtype.strip("bfsuc")) // 8
    for n in filter(None, dims.split(",")):
        size *= int(n)
    return size


def compared(name: str, mode: str, kind: str, devices: int, layers: int = 2) -> dict[str, Any]:
    """What is said of a step and what is compiled: the exchanges, and the bytes of what it is given."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    import gradtx

    make = {
        "adamw": lambda: gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3)),
        "adafactor": lambda: gradtx.adafactor(1e-3, min_dim_size_to_factor=64),
        "muon": lambda: gradtx.muon(1e-3),
        "soap": lambda: gradtx.soap(1e-3),
    }
    axes = {"data": devices // 2, "model": 2} if mode == "two axes" else {"data": devices}
    mesh = jax.make_mesh(tuple(axes.values()), tuple(axes), (AxisType[kind],) * len(axes))
    wide = max(64, devices)
    shapes: dict[str, tuple[int, ...]] = {"bias": (wide,)}
    for i in range(layers):
        shapes |= {f"{i}/up": (wide, 2 * wide), f"{i}/down": (2 * wide, wide), f"{i}/query": (wide, wide)}

    def placed(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
        parts: list[Any] = [None] * len(shape)
        if mode != "zero1":
            parts[: len(axes)] = [*axes][: len(shape)]
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(*parts)))

    tx = make[name]()
    if mode == "zero1":
        tx = gradtx.shard_state(tx, mesh, "data", min_size=128)
    return compared_of(tx, {k: placed(shape) for k, shape in shapes.items()}, mesh)


def compared_of(tx: Any, params: Any, mesh: Any) -> dict[str, Any]:
    """The same of any transform and abstract parameters on a mesh."""
    import jax

    import gradtx

    said = gradtx.explain(tx, params)
    with jax.set_mesh(mesh):
        state = tx.init(params)

        def step(grads: Any, state: Any, params: Any) -> Any:
            return gradtx.apply_gradients(tx, grads, state, params)

        jitted = jax.jit(step, donate_argnums=(1, 2), keep_unused=True)
        compiled = jitted.lower(params, state, params).compile()
    counts = collections.Counter[tuple[str, int]]()
    for kind, nbytes in exchanges(compiled.as_text()):
        counts[kind, nbytes] += 1
    return {
        "said": _by_kind((x.kind, x.times, x.nbytes) for x in said.exchanges),
        "compiled": _by_kind((kind, times, times * nbytes) for (kind, nbytes), times in counts.items()),
        # The gradients are parameters too.
        "said bytes": 2 * said.parameters.on_one + said.state.on_one,
        "compiled bytes": compiled.memory_analysis().argument_size_in_bytes,
        "unknown": said.unknown,
    }


def _by_kind(exchanges: Any) -> dict[str, list[int]]:
    """The number of the exchanges of each kind, and their bytes."""
    found: dict[str, list[int]] = {}
    for kind, times, nbytes in exchanges:
        of_kind = found.setdefault(kind, [0, 0])
        of_kind[0] += times
        of_kind[1] += nbytes
    return dict(sorted(found.items()))


if __name__ == "__main__":
    number, *cases = sys.argv[1:]
    flag = f"--xla_force_host_platform_device_count={number}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"
    print(json.dumps({case: compared(*case.split("-"), "Auto", int(number), layers=1) for case in cases}))
