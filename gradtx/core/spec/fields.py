"""Declared hyperparameters: the kinds a field may have, their domains, and the values they accept."""

from __future__ import annotations

import dataclasses
import inspect
import math
import sys
import types
import typing
import weakref
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Union

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.core.numerics import Decay, number_dtype
from gradtx.core.spec.argument import Argument, GivenAsArray, GivenForOneUpdate, plain
from gradtx.core.spec.spec import FACTORIES, Spec, call_arguments, is_array, show

Scalar = float | jax.Array | np.ndarray
"""A number: a Python float or int, or a 0-d array."""

ScalarOrSchedule = float | jax.Array | np.ndarray | Callable[[Any], Any]
"""A number, or a schedule: a function of the step, from 0, that gives one."""

DType = Any
"""Anything that names a dtype, such as `'bfloat16'` or `jnp.float32`."""


class NotANumber(ValueError):
    """The error for a hyperparameter that is NaN."""


@dataclasses.dataclass(frozen=True)
class Domain:
    """The values that a hyperparameter may take, in words and as a test of a float.

    They are finite in the dtype of hyperparameters, unless infinity has a meaning, as for a limit.
    """

    words: str
    contains: Callable[[float], bool]
    remedy: str = ""
    counts_steps: bool = False
    """Whether it is a number of steps, which is exact also where it is larger than float32 holds."""
    infinite: bool = False

    def check(self, where: str, value: float) -> None:
        """Raises `ValueError` for a value outside; NaN is outside of every domain."""
        if value != value or not self.contains(value):
            raise (NotANumber if value != value else ValueError)(
                f"{where} must be {self.words}, got {show(value)}.{self.remedy}"
            )
        dtype = number_dtype()
        kept = _rounded(value, dtype)
        if math.isinf(kept) and not self.infinite:
            raise ValueError(f"{where} must be {self.words}, and finite in {dtype}; got {show(value)}.")
        if kept == 0 and not self.contains(0.0):
            raise ValueError(f"{where} must be {self.words} in {dtype}, where {show(value)} is 0.")


def _rounded(value: float, dtype: np.dtype) -> float:
    try:
        with np.errstate(over="ignore"):
            return float(dtype.type(value))
    except OverflowError:
        # An integer that no float can hold.
        return math.inf


LAST = 2**31 - 1
"""Where every count stops."""

ANY = Domain("a number other than NaN", lambda x: True)
PERIOD = Domain(
    f"a whole number from 1 to {LAST}",
    lambda x: 1 <= x <= LAST and x == int(x),
    " It counts calls, and the count stops there.",
    counts_steps=True,
)
DECAY = Domain("in [0, 1)", lambda x: 0 <= x < 1)
Number = Annotated[Any, ANY]
"""A field that takes any number other than NaN, or a schedule."""

NonNegative = Annotated[Any, Domain(">= 0", lambda x: x >= 0)]
"""A field that takes a number >= 0, or a schedule."""

Positive = Annotated[Any, Domain("> 0", lambda x: x > 0)]
"""A field that takes a number > 0, or a schedule."""

Limit = Annotated[Any, Domain(">= 0", lambda x: x >= 0, infinite=True)]
PositiveLimit = Annotated[Any, Domain("> 0", lambda x: x > 0, infinite=True)]
Fraction = Annotated[Any, Domain("in [0, 1]", lambda x: 0 <= x <= 1)]
"""A field that takes a number in [0, 1], or a schedule."""

PositiveFraction = Annotated[Any, Domain("in (0, 1]", lambda x: 0 < x <= 1)]
ProperFraction = Annotated[Any, Domain("in (0, 1)", lambda x: 0 < x < 1)]
Rate = Annotated[
    Any,
    Domain(">= 0", lambda x: x >= 0, " A negative one climbs; to maximize, negate the loss."),
]
"""A field that takes a learning rate, >= 0, or a schedule."""

StepNumber = Annotated[Any, Domain(ANY.words, lambda x: True, counts_steps=True)]
NonNegativeSteps = Annotated[Any, Domain(">= 0", lambda x: x >= 0, counts_steps=True)]
StepLimit = Annotated[Any, Domain(">= 0", lambda x: x >= 0, counts_steps=True, infinite=True)]
PositiveSteps = Annotated[Any, Domain("> 0", lambda x: x > 0, counts_steps=True)]
Period = Annotated[Any, PERIOD]
DTypeName = Annotated[str | None, "dtype"]
"""A field that takes the dtype in which a slot is stored, by name; None for the slot's own."""


def check_count(where: str, value: Any, least: int = 1) -> None:
    """Raises `ValueError` for what is no whole number, as an argument that is code and not a number is.

    A bool is none, though Python takes it for 0 or 1.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{where} must be an int >= {least}, got {show(value)}.")


def _is_injected() -> bool:
    """Whether Optax's `inject_hyperparams` is building a transform.

    It builds one for each update, from the numbers in its own state, which are then in force.
    """
    frame: Any = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == _INJECTING and frame.f_code.co_name in ("init_fn", "update_fn"):
            return True
        frame = frame.f_back
    return False


_INJECTING = "optax.schedules._inject"


@dataclasses.dataclass(frozen=True)
class Field:
    """One declared argument: its name, and its domain, or that of its elements, if it holds numbers.

    Without a default, `default` is `inspect.Parameter.empty`, as in a signature.
    """

    name: str
    domain: Domain | None
    decay: bool
    optional: bool
    dtype: bool
    default: Any
    elements: Domain | None = None

    @property
    def is_number(self) -> bool:
        """Whether the value lives in the state; otherwise it is code and stays in the spec."""
        return self.domain is not None


def _field(name: str, annotation: Any, default: Any) -> Field:
    options = typing.get_args(annotation)
    is_union = typing.get_origin(annotation) in (Union, types.UnionType)
    optional = is_union and type(None) in options
    kinds = [o for o in options if o is not type(None)] if is_union else [annotation]
    marks = [m for k in kinds for m in getattr(k, "__metadata__", ())]
    domain = next((m for m in marks if isinstance(m, Domain)), None)
    decay = Decay in kinds
    inside = typing.get_args(annotation)[:1] if typing.get_origin(annotation) is tuple else ()
    elements = next(
        (m for k in inside for m in getattr(k, "__metadata__", ()) if isinstance(m, Domain)), None
    )
    return Field(name, DECAY if decay else domain, decay, optional, "dtype" in marks, default, elements)


FORMATS = ("int8", "uint8", "float8_e4m3", "float8_e5m2", "int4", "uint4")
"""The formats of slots that are no dtypes of numbers: what is kept means something beside its scale only."""

AT_RANDOM = tuple(f"{name}_stochastic" for name in ("bfloat16", "float16", "int8", "uint8", "uint4"))
"""Those that round up or down at random."""


def dtype_name(dtype: DType) -> str | None:
    """The canonical name of a dtype or of a format, or None."""
    if dtype is None:
        return None
    name = dtype if isinstance(dtype, str) else np.dtype(dtype).name
    if name == "float8_e4m3fn":  # what has three bits of digits in JAX, and is nothing without a scale
        return "float8_e4m3"
    return name if name in (*FORMATS, *AT_RANDOM) else jax.dtypes.canonicalize_dtype(dtype).name


def as_number(where: str, value: Any, domain: Domain | None = ANY) -> Any:
    """A hyperparameter as it is kept: a Python number, a tracer, or a schedule.

    A concrete 0-d array becomes a Python number; a bool, a string or an array with axes is an error.
    """
    if is_array(value) or isinstance(value, np.number):
        if value.shape != ():
            raise ValueError(
                f"{where} must be a number, got an array of shape {value.shape}. To try several values at "
                f"once, build the optimizer under jax.vmap."
            )
        if isinstance(value, Tracer):
            return value
        exact = jax.config.jax_enable_x64  # type: ignore[attr-defined]
        kept: Any = np.asarray(value)[()]
        # A whole number is exact; of another one of 32 bits the shortest decimal is what was meant.
        exact = exact or (abs(float(kept)) < 2**32 and float(kept).is_integer())
        kind = GivenForOneUpdate if _is_injected() else GivenAsArray
        number = kind(kept if exact else str(kept))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = value
    elif callable(value) and not isinstance(value, type):
        return value
    else:
        raise TypeError(f"{where} must be a number, a 0-d array or a schedule, got {show(value)}.")
    if domain is not None:
        domain.check(where, plain(number))
    return number


DECLARED: weakref.WeakSet[type[Declared]] = weakref.WeakSet()
"""The classes with declared arguments, as long as they are defined."""


class Declared(Spec):
    """A spec whose arguments are the annotated fields of its class.

    A field annotated `Number`, `NonNegative`, `Positive`, `Fraction`, `Rate` or `Decay`, or as a number of
    steps, `StepNumber`, `NonNegativeSteps`, `PositiveSteps` or `Period` (or one of them `| None`), is a
    hyperparameter; any other annotation is code, kept as given.
    """

    name: ClassVar[str] = ""
    whole: ClassVar[bool] = False
    """Whether, as a transform, it works on whole trees, not leaf by leaf."""
    _fields: ClassVar[dict[str, Field]] = {}

    def __init_subclass__(cls, name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = name or cls.name
        # Annotations may be strings that name what is local to where the class is defined.
        frame: Any = sys._getframe(1)
        while frame.f_code.co_name == "__init_subclass__":
            frame = frame.f_back
        # A class of the same annotations without bases: those of the bases are read already.
        names = {"__annotations__": inspect.get_annotations(cls), "__module__": cls.__module__}
        hints = typing.get_type_hints(type("Own", (), names), localns=frame.f_locals, include_extras=True)
        bases = [base for base in reversed(cls.__bases__) if issubclass(base, Declared)]
        fields = {key: field for base in bases for key, field in base._fields.items()}
        for key in {*fields} & {*vars(cls)} - {*hints}:
            fields[key] = dataclasses.replace(fields[key], default=vars(cls)[key])
        for key, annotation in hints.items():
            if typing.get_origin(annotation) is not ClassVar:
                fields[key] = _field(key, annotation, getattr(cls, key, inspect.Parameter.empty))
        cls._fields = fields
        if cls.name:
            DECLARED.add(cls)

    handed_on: ClassVar[Mapping[str, Argument]] = {}
    """The arguments of a recipe that were handed on to fields, told apart by identity."""

    @classmethod
    def fields(cls) -> dict[str, Field]:
        """The declared fields in order."""
        return cls._fields

    def __init__(self, **values: Any) -> None:
        fields = self.fields()
        for key in values:
            if key not in fields:
                raise TypeError(f"{self.name} has no field {key!r}. It has {', '.join(fields)}.")
        for key, field in fields.items():
            value = values.get(key, field.default)
            if value is inspect.Parameter.empty:
                raise TypeError(f"{self.name} needs {key}.")
            kept = self._keep(field, value)
            if isinstance(kept, Argument):
                self._set(handed_on={**self.handed_on, key: kept})
            self._set(**{key: plain(kept)})
        self.check()

    def check(self) -> None:
        """Raises for a combination of arguments that has no meaning."""

    def _keep(self, field: Field, value: Any) -> Any:
        if field.dtype:
            name = dtype_name(value)
            if not (name in (None, *FORMATS, *AT_RANDOM) or jnp.issubdtype(name, jnp.inexact)):
                raise ValueError(
                    f"{self.name}: {field.name} must be a floating dtype or a format of slots, got "
                    f"{show(value)}. The formats are {', '.join((*FORMATS, *AT_RANDOM))}."
                )
            return name
        if not field.is_number or (value is None and field.optional):
            return value
        return as_number(f"{self.name}: {field.name}", value, field.domain)

    def _values(self) -> dict[str, Any]:
        return {key: self.__dict__[key] for key in self.fields()}

    def _identity(self) -> Any:
        return self._values()

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        name = self.name if self.name in FACTORIES else type(self).__name__
        return call_arguments(name, self._values())

    def _with(self, **values: Any) -> Any:
        """A copy with some fields replaced by arrays, unchecked: what runs inside a traced function."""
        copy = object.__new__(type(self))
        copy._set(**{**self._values(), **values})
        return copy
