"""States as flat dicts of numpy arrays by path, which `.npz` and safetensors hold."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.composed import Composed
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.structure import is_ours
from gradtx.core.numbers.states import held
from gradtx.core.spec.spec import is_array, is_key, show
from gradtx.interop.archive import pack, unpack
from gradtx.interop.restored import Restored

State = Any
PyTree = Any


def to_state_dict(state: State) -> dict[str, np.ndarray]:
    """A state as a flat dict of numpy arrays, which `np.savez` and `safetensors.numpy.save_file` write.

    The keys are the paths in the state: `step`, `numbers/adamw/weight_decay`,
    `slots/scale_by_adam/mu/layers/0/kernel`. A `/` within a name is written `%2F`. The entry `gradtx` is a
    header: the version of the format, the dtypes that files do not know (bfloat16 and float8 are stored
    as bits, complex numbers as pairs), and digests by which `from_state_dict` finds damage.

    Args:
        state: an optimizer state, or what holds one: a `TrainState` or an `nnx.Optimizer`. It may be one of
            another library's transforms, or a batch of states from `vmap`. Sharded arrays are gathered.

    Returns:
        The dict. Its arrays are copies.

    Raises:
        TypeError: something in the state is no array, or is traced or abstract.
        ValueError: two leaves have the same path, or an array is spread over several processes.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> d = gradtx.to_state_dict(gradtx.sgd(0.1, momentum=0.9).init({"w": jnp.ones(2)}))
        >>> list(d)
        ['gradtx', 'numbers/sgd/dampening', 'numbers/sgd/learning_rate', 'numbers/sgd/momentum',
         'slots/trace/trace/w', 'step']
    """
    found, _ = _by_path(held(state))
    for key, x in found.items():
        _check(key, x)
    raw = [jax.random.key_data(x) if is_key(x) else x for x in found.values()]
    return pack(dict(zip(found, map(np.asarray, jax.device_get(raw)), strict=True)))


def from_state_dict(
    tx: AnyTransform, params: PyTree, d: Mapping[str, Any] | str | os.PathLike[str], *, strict: bool = True
) -> tuple[State, Restored]:
    """Restores a state that `to_state_dict` gave, for a transform and parameters.

    All of it is checked before anything is made. The numbers in force are those of the dict, whatever `tx`
    says; `gradtx.rebase(tx, state)` brings those of `tx`.

    Args:
        tx: the transform that gets the state; as a rule the one that made it.
        params: the parameters; as `tx.init` takes them, arrays or `jax.ShapeDtypeStruct`s with shardings. For
            a batch of states, those of one of them.
        d: the dict, what `np.load` or `safetensors.numpy.load_file` gave, or the path of an `.npz` file.
        strict: whether anything that does not match is an error. With `strict=False` what matches is
            restored, and the rest starts as `tx.init` makes it, at the step of the dict: a new moment of
            Adam's is corrected as if it were old, so that its first updates may be several times too large.

    Returns:
        The state, with the dtypes, shapes and shardings of `tx.init(params)` and no memory of the dict's, and
        what became of each entry, which prints well.

    Raises:
        ValueError: the dict or the file is damaged, cut off, of a newer version, or no state dict; or, if
            strict, it does not match: what is missing, left over, or of another shape or kind of number is
            listed.
        TypeError: `tx` is no transform, or `d` no mapping and no path.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> params = {"w": jnp.ones(2)}
        >>> d = gradtx.to_state_dict(gradtx.adam(0.1).init(params))
        >>> state, _ = gradtx.from_state_dict(gradtx.adam(0.1), params, d)
        >>> tx = gradtx.chain(gradtx.trace(0.9), gradtx.adam(0.1))
        >>> state, restored = gradtx.from_state_dict(tx, params, d, strict=False)
        >>> print(restored)
        kept      8 entries
        new       numbers/trace (2 entries)
                  slots/trace
    """
    if not callable(getattr(tx, "init", None)):
        raise TypeError(f"from_state_dict takes the transform first, then the parameters; got {show(tx)}.")
    stored = unpack(d)
    shapes = jax.tree.map(_form, params)
    # Most arrays of init would only make room for those of the dict; where shapes say all, none are made.
    enough = is_ours(tx) and all(map(_says_all, jax.tree.leaves(shapes)))
    fresh, structure = _by_path(tx.init(shapes if enough else params))
    wanted = {key: _form(x) for key, x in fresh.items()}
    # In another library's state "step" may be anything, also a parameter's name.
    counts = isinstance(tx, Composed) and "step" in stored
    batch = stored["step"].shape if counts else ()
    step = int(np.max(stored["step"], initial=0)) if counts else 0
    restored = _compared(stored, wanted, batch, step, ours=isinstance(tx, Composed))
    if strict and not restored.is_complete:
        raise ValueError(_mismatch(restored))
    kept = set(restored.kept)
    if enough and len(kept) < len(wanted):
        fresh, _ = _by_path(tx.init(params))
    fresh = {key: x for key, x in fresh.items() if key not in kept or is_key(x)}
    for key, x in fresh.items():
        if isinstance(x, jax.ShapeDtypeStruct):
            raise ValueError(
                f"{key} is not in the dict and starts from the parameters, which are abstract. Pass arrays."
            )
    arrays = [
        _placed(stored[key], like, batch, fresh.get(key)) if key in kept else _repeated(fresh[key], batch)
        for key, like in wanted.items()
    ]
    return structure.unflatten(arrays), restored


# What "/" separates must not be in a name, and a zip file ends a name at a NUL.
_ESCAPED = re.compile(r"[%/\x00-\x1f\x7f\ud800-\udfff]")


def _by_path(tree: PyTree) -> tuple[dict[str, Any], Any]:
    """The leaves by path, and the structure."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    found: dict[str, Any] = {}
    for path, x in leaves:
        key = "/".join(_ESCAPED.sub(lambda m: f"%{ord(m[0]):02X}", part) for part in lv.path_parts(path))
        if key in found:
            raise ValueError(f"Two leaves of the state have the path {key!r}. Rename one of them.")
        found[key] = x
    return found, structure


def _check(key: str, x: Any) -> None:
    if isinstance(x, Tracer | jax.ShapeDtypeStruct):
        what = "traced: call to_state_dict outside of jit" if isinstance(x, Tracer) else "abstract"
        raise TypeError(f"{key or 'The state'} is {what}.")
    if not is_array(x) and not isinstance(x, np.generic | bool | int | float | complex):
        raise TypeError(
            f"to_state_dict takes the state of an optimizer, whose leaves are arrays; got {show(x)}."
        )
    if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
        raise ValueError(
            f"{key} is spread over several processes. Gather the state first, as with "
            f"jax.experimental.multihost_utils.process_allgather(state, tiled=True)."
        )


def _form(x: Any) -> jax.ShapeDtypeStruct:
    """What `init` gives at a leaf: shape, dtype and, if it is placed anywhere, the sharding."""
    x = jax.random.key_data(x) if is_key(x) else x
    if isinstance(x, jax.ShapeDtypeStruct):
        return x
    x = lv.as_array(x)
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding if x.committed else None)


def _says_all(x: jax.ShapeDtypeStruct) -> bool:
    """Whether an abstract array tells its full placement, which it cannot for an array on one device."""
    return x.sharding is None or isinstance(x.sharding, NamedSharding)


def _compared(
    stored: Mapping[str, np.ndarray],
    wanted: Mapping[str, Any],
    batch: tuple[int, ...],
    step: int,
    *,
    ours: bool,
) -> Restored:
    kept, cast, reshaped = [], {}, {}
    for key in [key for key in wanted if key in stored]:
        old, shape, dtype = stored[key], (*batch, *wanted[key].shape), wanted[key].dtype
        is_code = ours and old.dtype != dtype and _is_code(key, old.dtype, dtype)
        if old.shape != shape or is_code or not _holds(old, dtype):
            reshaped[key] = (f"{old.dtype.name}{list(old.shape)}", f"{dtype.name}{list(shape)}")
            continue
        kept.append(key)
        if old.dtype != dtype:
            cast[key] = (old.dtype.name, dtype.name)
    new = [key for key in wanted if key not in stored]
    dropped = [key for key in stored if key not in wanted]
    return Restored(tuple(kept), cast, tuple(new), tuple(dropped), reshaped, step)


_BESIDE = re.compile(r"(^|[/.])precise_params(_\d+)?/beside(/|$)")


def _is_code(key: str, *dtypes: Any) -> bool:
    """Whether what is under a key means something in its own form only, and would mean another thing cast.

    Numbers of one byte are parts of a scale, and what is beside a parameter counts in units of its form.
    """
    is_byte = any(x.itemsize == 1 and x != np.bool_ for x in map(np.dtype, dtypes))
    return is_byte or _BESIDE.search(key) is not None


def _holds(x: np.ndarray, dtype: Any) -> bool:
    """Whether a dtype is of the kind of an array's, and has room for its numbers."""
    kinds = (np.bool_, np.signedinteger, np.unsignedinteger, jnp.floating, np.complexfloating)
    if not any(jnp.issubdtype(x.dtype, kind) and jnp.issubdtype(dtype, kind) for kind in kinds):
        return False
    with np.errstate(over="ignore"):
        cast = x.astype(dtype)
    if jnp.issubdtype(dtype, np.inexact):
        return np.array_equal(np.isfinite(cast), np.isfinite(x))
    return np.array_equal(cast, x)


def _mismatch(restored: Restored, most: int = 20) -> str:
    lines = [f"lacks {name}" for name in restored.groups(restored.new)]
    lines += [
        f"has {name}, which the transform has no place for" for name in restored.groups(restored.dropped)
    ]
    lines += [f"has {key} as {old}, which is {new} here" for key, (old, new) in restored.reshaped.items()]
    cut = [f"and differs in {len(lines) - most} more places"] if len(lines) > most else []
    listed = "\n  ".join([*lines[:most], *cut])
    only_formats = (
        " For what is only kept in another way, restore the state for the transform that made it, and then "
        "call params, state, report = gradtx.convert_state(old_tx, state, tx, params)."
    )
    return (
        f"This state dict is not of this transform and these parameters. It\n  {listed}\nPass the transform "
        f"and the parameters that it was made with, or strict=False to restore what matches."
        f"{only_formats if restored.differs_in_formats else ''}"
    )


def _placed(x: np.ndarray, like: jax.ShapeDtypeStruct, batch: tuple[int, ...], key: Any) -> jax.Array:
    """An array as `init` would place it, from a copy; a random key if `init` gave the typed one `key`."""
    host, sharding = np.array(x, like.dtype), like.sharding
    if batch and isinstance(sharding, NamedSharding):
        spec = PartitionSpec(*[None] * len(batch), *sharding.spec)
        sharding = NamedSharding(sharding.mesh, spec, memory_kind=sharding.memory_kind)
    array = jnp.array(host) if sharding is None else jax.device_put(host, sharding)
    return array if key is None else jax.random.wrap_key_data(array, impl=jax.random.key_impl(key))


def _repeated(x: Any, batch: tuple[int, ...]) -> Any:
    """A leaf that starts anew, for each state of a batch."""
    return jnp.broadcast_to(x, (*batch, *jnp.shape(x))) if batch else x
