"""Numbers as they were given: from arrays, for one update, or as the argument of a recipe."""

from __future__ import annotations

import math
from typing import Any


class GivenAsArray(float):
    """A number that was given as a concrete 0-d array; it is a Python float in every other respect."""


class GivenForOneUpdate(GivenAsArray):
    """A number that Optax's `inject_hyperparams` gives to a transform that it builds for one update."""


class NoArithmetic(TypeError):
    """The error for arithmetic on an argument of a recipe."""


class Argument(float):
    """A number given to a recipe, which hands it on as it is; arithmetic on it is an error.

    As a float it is NaN, since the functions of `math` ask no method of it: what they make of it is no
    number, and is refused.
    """

    where: str
    number: float

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise NoArithmetic(no_arithmetic(self.where))

    def __repr__(self) -> str:
        return repr(self.number)

    def __format__(self, spec: str) -> str:
        return format(self.number, spec)

    def __eq__(self, other: object) -> bool:
        if other is self or not hasattr(other, "__float__"):
            return other is self
        return self._refuse()

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = float.__hash__

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __divmod__ = __rdivmod__ = _refuse
    __pow__ = __rpow__ = __neg__ = __pos__ = __abs__ = __round__ = __float__ = __int__ = _refuse
    __trunc__ = __floor__ = __ceil__ = is_integer = as_integer_ratio = hex = conjugate = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __array_ufunc__ = __jax_array__ = _refuse


class _ArgumentAsArray(Argument, GivenAsArray):
    pass


class _ArgumentForOneUpdate(Argument, GivenForOneUpdate):
    pass


_ARGUMENTS = {GivenAsArray: _ArgumentAsArray, GivenForOneUpdate: _ArgumentForOneUpdate}


def argument(where: str, number: float) -> Argument:
    """A number as an argument of a recipe, an object of its own."""
    try:
        number = plain(number) if isinstance(number, float) else float(number)
    except OverflowError:  # an integer that no float can hold, which every domain refuses
        number = math.inf if number > 0 else -math.inf
    result = _ARGUMENTS.get(type(number), Argument)(math.nan)
    result.where, result.number = where, number
    return result


def plain(number: Any) -> Any:
    """A number that may be an argument of a recipe, as it was given to that."""
    return number.number if isinstance(number, Argument) else number


def complement(decay: Any) -> Any:
    """`1 - decay` of a number, given as it was given."""
    return type(decay)(1 - decay) if isinstance(decay, GivenAsArray) else 1 - decay


def no_arithmetic(where: str) -> str:
    """What is said of arithmetic on an argument of a recipe."""
    return (
        f"{where} must be passed on as it is: the state keeps the number that was given, under this name, so "
        f"that a recipe computes nothing from it. Write what is computed as a transform, as in "
        f"chain(..., scale(0.5)) for a factor, or compute it before the recipe is called."
    )
