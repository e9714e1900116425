"""Values that print as the call that builds them: the base of transforms, rules and schedules.

A `Spec` is immutable and opaque (no pytree). Its repr is code, equality is by value, its hash covers
structure only (two specs that differ in numbers share a hash), and it pickles by value.
"""

from __future__ import annotations

import enum
import inspect
import math
import sys
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import AbstractMesh, Mesh, PartitionSpec

FACTORIES: weakref.WeakValueDictionary[str, Callable[..., Any]] = weakref.WeakValueDictionary()
"""The public constructor of each declared name, for the defaults that a repr leaves out."""


def register(constructor: Callable[..., Any]) -> None:
    """Takes a constructor into the table, where a name of gradtx's goes on to mean gradtx's own."""
    known = FACTORIES.get(constructor.__name__)
    if known is None or is_of_gradtx(constructor) or not is_of_gradtx(known):
        FACTORIES[constructor.__name__] = constructor


def is_of_gradtx(constructor: Callable[..., Any]) -> bool:
    """Whether a constructor is one of gradtx's own."""
    return constructor.__module__.startswith("gradtx.")


class Spec:
    """An immutable value described by a name and the arguments of the call that builds it."""

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        """The name, positional and keyword arguments of the call that rebuilds this value."""
        raise NotImplementedError

    def _identity(self) -> Any:
        """What is compared when two values are: by default the call that the repr shows."""
        return self._call()

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(
            f"{type(self).__name__} is immutable: {name!r} cannot be assigned. Build a new one, or change "
            f"a hyperparameter in the state with gradtx.set_hyperparams."
        )

    def _set(self, **values: Any) -> None:
        self.__dict__.update(values)

    def __repr__(self) -> str:
        name, args, kwargs = self._call()
        shown = [show(a) for a in args] + [f"{k}={show(v)}" for k, v in kwargs.items()]
        return f"{name}({', '.join(shown)})"

    def __str__(self) -> str:
        return spread_out(self)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(self) is not type(other):
            return NotImplemented
        return same(self._identity(), other._identity())  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        cached = self.__dict__.get("_hash")
        if cached is None:
            cached = hash((type(self), outline(self._identity())))
            self._set(_hash=cached)
        return cached

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_hash", "_program", "_made_by")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._set(**state)


def call_arguments(
    name: str, values: Mapping[str, Any], constructor: Callable[..., Any] | None = None
) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """The shortest call of the public constructor `name` that gives `values`: defaults are left out.

    Several may have the name; `constructor` is the one that is meant.
    """
    factory = constructor or FACTORIES.get(name)
    if factory is None:
        return name, (), dict(values)
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    for i, (key, parameter) in enumerate(inspect.signature(factory).parameters.items()):
        if key not in values:
            continue
        required = parameter.default is parameter.empty
        if parameter.kind is parameter.VAR_POSITIONAL:
            positional.extend(values[key])
        elif not required and same(values[key], parameter.default):
            continue
        elif (required or i == 0) and parameter.kind is not parameter.KEYWORD_ONLY:
            positional.append(values[key])
        else:
            keywords[key] = values[key]
    return name, tuple(positional), keywords


def is_array(x: Any) -> bool:
    """Whether `x` is an array, concrete or traced."""
    return isinstance(x, jax.Array | np.ndarray)


def is_key(x: Any) -> bool:
    """Whether `x` is a concrete `jax.random.key`; its raw data prints, compares and pickles as numbers do."""
    return (
        isinstance(x, jax.Array)
        and not isinstance(x, Tracer)
        and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    )


def show(x: Any) -> str:
    """Code for `x` where there is such code, `<...>` where there is none."""
    if isinstance(x, float):
        x = getattr(x, "number", x)  # of a recipe's argument
        return float.__repr__(x) if math.isfinite(x) else f"float('{x}')"
    if isinstance(x, np.bool_):
        return repr(bool(x))
    if isinstance(x, enum.Enum):
        return f"{show(type(x))}.{x.name}"
    if isinstance(x, Tracer) or (is_array(x) and x.ndim):
        return f"<array {x.dtype.name}{list(x.shape)}>"
    if is_array(x):
        return f"<array {x.item()!r}>"
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return f"<{maker(getattr(x, 'update', None)) or type(x).__name__}>"
    if isinstance(x, tuple):
        return f"({', '.join(map(show, x))}{',' * (len(x) == 1)})"
    if isinstance(x, list):
        return f"[{', '.join(map(show, x))}]"
    if type(x) is dict:
        return "{" + ", ".join(f"{show(k)}: {show(v)}" for k, v in x.items()) + "}"
    if isinstance(x, Spec | str | int | type(None)):
        return repr(x)
    if isinstance(x, PartitionSpec):
        return f"jax.sharding.PartitionSpec{show(tuple(x))}"
    if isinstance(x, Mesh | AbstractMesh):
        return _show_mesh(x)
    module, name = str(getattr(x, "__module__", "")), str(getattr(x, "__qualname__", ""))
    library, *inside = module.split(".")
    # The public name stays where a file moves, and no function hides it from the path to its file.
    if inside and getattr(sys.modules.get(library), "__dict__", {}).get(name) is x:
        return f"{library}.{name}"
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is x and found is not None:
        return name if module == "builtins" else f"{module}.{name}"
    return f"<{name or type(x).__name__}>"


def _show_mesh(mesh: Mesh | AbstractMesh) -> str:
    """Code for a mesh of all devices in their order, or of none; another one's devices have no code."""
    kinds = ", ".join(f"jax.sharding.AxisType.{kind.name}" for kind in mesh.axis_types)
    form = f"({show(mesh.axis_sizes)}, {show(mesh.axis_names)}, ({kinds},))"
    if isinstance(mesh, AbstractMesh):
        return f"jax.sharding.AbstractMesh{form}"
    return f"jax.make_mesh{form}" if [*mesh.devices.flat] == jax.devices() else f"<Mesh {form}>"


def maker(update: Any) -> str:
    """The function that made another library's transform, such as `optax.clip`, told by its `update`."""
    library = str(getattr(update, "__module__", "")).partition(".")[0]
    name = str(getattr(update, "__qualname__", "")).partition(".")[0]
    return f"{library}.{name}" if library and name.isidentifier() else ""


def spread_out(x: Any, indent: str = "", before: str = "") -> str:
    """The code of `x`, a line for each part where it has several transforms in it or passes 100 columns."""
    opening, parts, closing = _pieces(x)
    code, deeper = show(x), indent + "    "
    if not parts or (_inside(x) < 2 and len(indent + before + code) < 100):
        return before + code
    lines = [deeper + spread_out(part, deeper, name) + ",\n" for name, part in parts]
    return f"{before}{opening}\n{''.join(lines)}{indent}{closing}"


def _pieces(x: Any) -> tuple[str, list[tuple[str, Any]], str]:
    """What the code of `x` begins with, its parts with what stands before each, and what it ends with."""
    if isinstance(x, Spec):
        name, args, kwargs = x._call()
        return f"{name}(", [("", a) for a in args] + [(f"{k}=", v) for k, v in kwargs.items()], ")"
    if type(x) is dict:
        return "{", [(f"{show(k)}: ", v) for k, v in x.items()], "}"
    brackets = {tuple: "()", list: "[]"}.get(type(x), "")
    return brackets[:1], [("", part) for part in x] if brackets else [], brackets[1:]


def _inside(x: Any) -> int:
    """The number of transforms of any library in the arguments of a call, or in a container."""
    parts = [part for _, part in _pieces(x)[1]]
    own = [callable(getattr(p, "init", None)) and callable(getattr(p, "update", None)) for p in parts]
    return sum(own) + sum(map(_inside, parts))


def same(a: Any, b: Any) -> bool:
    """Equality by value: numbers by value (NaN equals NaN), tracers by identity, trees leaf by leaf."""
    if a is b:
        return True
    if isinstance(a, Tracer) or isinstance(b, Tracer):
        return False
    if isinstance(a, bool | np.bool_) != isinstance(b, bool | np.bool_):
        return False
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b or (a != a and b != b)
    if is_array(a) and is_array(b):
        x, y = np.asarray(a), np.asarray(b)
        return x.dtype == y.dtype and np.array_equal(x, y)
    if type(a) is not type(b):
        return False
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Mapping):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    equal = a == b
    return equal if isinstance(equal, bool) else False


def outline(x: Any) -> Any:
    """A hashable description of the structure of `x`, without its numbers."""
    if isinstance(x, bool | str | type(None) | Spec):
        return x
    if isinstance(x, int | float) or is_array(x):
        return "number"
    if isinstance(x, tuple | list):
        return (type(x), *map(outline, x))
    if isinstance(x, Mapping):
        return (type(x), *((k, outline(v)) for k, v in x.items()))
    try:
        hash(x)
    except TypeError:
        return type(x)
    return x
