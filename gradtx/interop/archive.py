"""Named arrays as any container of arrays holds them, with a header by which damage is found.

Containers differ in the dtypes that they know: `.npz` loses bfloat16 and float8, safetensors lacks
complex128. So numpy's bools, integers and floats are stored as they are, complex numbers as pairs of floats,
everything else as its bits, and the header has the dtypes. It is JSON as an array of bytes, with a digest of
every entry and one of itself.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.spec.words import some

HEADER = "gradtx"
FORMAT = "gradtx state"
VERSION = 1
KEEP = "Restore an older copy; nothing was changed."


def pack(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays as they are stored, each a copy, and the header."""
    if HEADER in arrays:
        raise ValueError(
            f"A state cannot have an entry {HEADER!r}, the name of the header. Put it in a dict."
        )
    stored: dict[str, np.ndarray] = {}
    entries: dict[str, dict[str, str]] = {}
    for key, x in arrays.items():
        stored[key], dtype = _encode(x)
        entries[key] = {"digest": _digest(key, stored[key])} | ({"dtype": dtype} if dtype else {})
    header = {"format": FORMAT, "version": VERSION, "entries": entries}
    text = json.dumps(header | {"checksum": _checksum(header)}).encode()
    return {HEADER: np.frombuffer(text, np.uint8).copy(), **stored}


def unpack(source: Any) -> dict[str, np.ndarray]:
    """The arrays of a mapping or of an `.npz` file, every one of them compared with its digest."""
    where, stored = _read(source)
    if HEADER not in stored:
        has = some(sorted(stored)) or "nothing"
        raise ValueError(
            f"{where} was not made by gradtx.to_state_dict: it has no entry {HEADER!r}, but {has}. A tree "
            f"that an Orbax checkpoint gave back is a state already."
        )
    entries = _entries(where, stored.pop(HEADER))
    lacks, other = sorted(set(entries) - set(stored)), sorted(set(stored) - set(entries))
    if lacks:
        raise ValueError(
            f"{where} is not complete: it lacks {some(lacks)}, which were written with the rest. {KEEP}"
        )
    if other:
        raise ValueError(
            f"{where} has entries that gradtx.to_state_dict did not write: {some(other)}. Keep what else "
            f"you save, such as parameters, in a mapping of its own."
        )
    damaged = [key for key, entry in entries.items() if _digest(key, stored[key]) != entry["digest"]]
    if damaged:
        raise ValueError(
            f"{where} is damaged, or was changed after it was written: the digest of {some(damaged)} is "
            f"another. {KEEP} To change numbers, restore the state and use gradtx.set_hyperparams."
        )
    return {key: _decode(where, key, stored[key], entry.get("dtype")) for key, entry in entries.items()}


def _encode(x: np.ndarray) -> tuple[np.ndarray, str]:
    """An array as it is stored, and the name of its dtype where that is another."""
    x = np.array(x, order="C")
    if x.dtype.isbuiltin == 1 and x.dtype.kind in "biuf":
        return x, ""
    if x.dtype.kind == "c":
        return x[..., None].view(f"f{x.dtype.itemsize // 2}"), x.dtype.name
    return x.view(f"u{x.dtype.itemsize}"), x.dtype.name


def _decode(where: str, key: str, x: np.ndarray, name: str | None) -> np.ndarray:
    """The array that was stored."""
    if name is None:
        return x
    try:
        dtype = np.dtype(name)
        if dtype.kind == "c" and x.shape[-1:] == (2,) and x.dtype.kind == "f":
            return np.ascontiguousarray(x).view(dtype)[..., 0]
        if jnp.issubdtype(dtype, np.number) and dtype.itemsize == x.dtype.itemsize and x.dtype.kind == "u":
            return x.view(dtype)
    except (TypeError, ValueError, SyntaxError):
        pass
    raise ValueError(f"{where}: {key!r} is {_described(x)}, which is no way to store {name!r}. {KEEP}")


def _digest(key: str, x: np.ndarray) -> str:
    digest = hashlib.sha256(f"{key}|{x.dtype.str}|{x.shape}|".encode())
    digest.update(np.ascontiguousarray(x).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _checksum(header: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()


def _entries(where: str, x: np.ndarray) -> dict[str, dict[str, str]]:
    """What the header says of each entry."""
    if x.dtype != np.uint8 or x.ndim != 1:
        raise ValueError(f"{where}: its header {HEADER!r} is {_described(x)}, not bytes. {KEEP}")
    try:
        header = json.loads(x.tobytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: its header {HEADER!r} is damaged. {KEEP}") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"{where}: its header {HEADER!r} is not that of a state. {KEEP}")
    version = header.get("version")
    if type(version) is int and version > VERSION:
        raise ValueError(
            f"{where} has version {version} of the format, and this gradtx reads up to version {VERSION}. "
            f"Update gradtx."
        )
    checksum = header.pop("checksum", None)
    if type(version) is not int or version != VERSION or checksum != _checksum(header):
        raise ValueError(f"{where}: its header {HEADER!r} is damaged: its checksum is another. {KEEP}")
    entries = header.get("entries")
    if not isinstance(entries, dict) or not all(map(_is_entry, entries.values())):
        raise ValueError(f"{where}: its header {HEADER!r} does not list entries with their digests. {KEEP}")
    return entries


def _is_entry(x: Any) -> bool:
    return isinstance(x, dict) and "digest" in x and all(isinstance(v, str) for v in x.values())


def _read(source: Any) -> tuple[str, dict[str, np.ndarray]]:
    """A name for errors, and the arrays as they are stored."""
    if isinstance(source, Mapping):
        return "This state dict", _arrays("This state dict", source)
    if not isinstance(source, str | os.PathLike):
        raise TypeError(
            f"A state dict is a mapping of names to arrays, or the path of an .npz file; got a "
            f"{type(source).__name__}."
        )
    where = os.fspath(source)
    if str(where).endswith(".safetensors"):
        raise ValueError(f"{where}: read it first and pass the dict, safetensors.numpy.load_file(path).")
    with open(source, "rb") as file:
        try:
            archive = np.load(file, allow_pickle=False)
        except Exception as error:  # a damaged file makes the readers of zip and npy raise many types
            raise ValueError(f"{where} is no .npz file, or is damaged or cut off: {error}. {KEEP}") from error
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError(f"{where} holds one array, not the .npz of a state dict.")
        with archive:
            return str(where), _arrays(str(where), archive)


def _arrays(where: str, source: Mapping[Any, Any]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for key in source:
        if not isinstance(key, str):
            raise ValueError(f"{where}: its keys are strings such as 'step', not {key!r:.60}.")
        try:
            x = source[key]
        except Exception as error:  # as above
            raise ValueError(f"{where}: {key!r} is damaged or cut off: {error}. {KEEP}") from error
        if not isinstance(x, np.ndarray | np.generic | jax.Array):
            raise ValueError(f"{where}: {key!r} is a {type(x).__name__}, not a numpy array.")
        found[key] = np.asarray(x)
        if found[key].dtype.kind not in "biuf" or found[key].dtype.isbuiltin != 1:
            raise ValueError(
                f"{where}: {key!r} is {_described(found[key])}, a dtype that is not stored. Pass the dict as "
                f"gradtx.to_state_dict gave it."
            )
    return found


def _described(x: np.ndarray) -> str:
    return f"{x.dtype.name}{list(x.shape)}"
