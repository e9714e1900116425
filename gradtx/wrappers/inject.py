"""Optax's injected hyperparameters, for code written with them: here numbers are in the state already."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import jax

from gradtx.core.compose.rule import Whole
from gradtx.core.compose.wrapper import Wrapper, in_dtypes_of
from gradtx.core.engine.composed import Composed
from gradtx.core.engine.transform import Transform
from gradtx.core.engine.wrapped_update import Call
from gradtx.core.numbers.hyperparams import set_hyperparams
from gradtx.core.numerics import number_dtype
from gradtx.core.spec.arguments import bind_call, factory
from gradtx.core.spec.fields import DType, dtype_name
from gradtx.core.spec.spec import show


class Injected(Wrapper, name="inject_hyperparams"):
    """u = inner(g) with the hyperparameters h = schedule(s);  s = update(s)."""

    inner: Any
    schedules: Any

    states = Whole(lambda wrapper, params: {k: s.init() for k, s in wrapper.schedules.items()})

    def __init__(self, code: str, arguments: dict[str, Any], inner: Any, schedules: dict[str, Any]) -> None:
        super().__init__(inner=inner, schedules=schedules)
        self._set(code=code, arguments=arguments)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        return self.__dict__["code"], (), self.__dict__["arguments"]

    def wrapped(self) -> dict[str, Any]:
        return {"inner": self.inner}

    def run(self, gs: list[jax.Array], slots: Any, call: Call) -> tuple[list[Any], dict[str, Any]]:
        old = slots.states
        values = {k: call.number(s(old[k], **call.extra)) for k, s in self.schedules.items()}
        result, inner = call.run(self.inner, gs, set_hyperparams(slots.inner, **values))
        new = {k: s.update(old[k], **call.extra) for k, s in self.schedules.items()}
        return result, {"states": in_dtypes_of(new, old), "inner": inner}


def _is_stateful(x: Any) -> bool:
    """Whether an argument is what Optax calls a stateful schedule."""
    return callable(x) and not isinstance(x, type) and hasattr(x, "init") and hasattr(x, "update")


@factory
def inject_hyperparams(
    inner_factory: Callable[..., Any],
    static_args: str | Iterable[str] = (),
    hyperparam_dtype: DType | None = None,
) -> Callable[..., Transform]:
    """The factory itself: the hyperparameters of every transform are in its state without it.

    It is here so that code written for Optax builds what it says. Only the state differs, and with it how
    the numbers are read and set. For `state.hyperparams["learning_rate"]` write
    `gradtx.hyperparams(state)["learning_rate"]`, and to set it
    `state = gradtx.set_hyperparams(state, learning_rate=...)`.

    A function is taken for a schedule only where a number is wanted, so that a mask is always a mask. If the
    factory is your own function, it gets numbers and schedules as they are, once, and the state has them
    under the names of the transforms that it builds.

    An object with `init()`, `update(state, **extra)` and `__call__(state, **extra)`, Optax's stateful
    schedule, may stand for a number: at each update h = schedule(s), then s = update(s), with the keyword
    arguments of the call. The state has s under `states` and the last h among the numbers of `inner`.

    Args:
        inner_factory: a constructor of gradtx's, or a function that composes its transforms.
        static_args: names of arguments that are no schedules, one or several; here it needs none.
        hyperparam_dtype: None or float32 (float64 with x64), the dtype that numbers have here.

    Returns:
        A function with the signature of `inner_factory`, which returns a transform.

    Raises:
        ValueError: the factory has no argument of a name in `static_args`, or the dtype is another: in
            bfloat16 b2 = 0.999 would be 1.
        TypeError: when called, the factory builds another library's transform.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.inject_hyperparams(gradtx.adamw)(learning_rate=1e-3, mask="!*bias")
        >>> tx
        adamw(0.001, mask='!*bias')
        >>> state = gradtx.set_hyperparams(tx.init({"w": jnp.ones(2)}), learning_rate=3e-4)
        >>> gradtx.hyperparams(state)["learning_rate"]
        0.0003
    """
    names = (static_args,) if isinstance(static_args, str) else tuple(static_args)
    parameters = inspect.signature(inner_factory).parameters
    for name in names:
        if name not in parameters:
            raise ValueError(
                f"inject_hyperparams: static_args has {name!r}, which {show(inner_factory)} does not take. "
                f"It takes {', '.join(parameters) or 'no arguments'}."
            )
    if hyperparam_dtype is not None and dtype_name(hyperparam_dtype) != number_dtype().name:
        raise ValueError(
            f"inject_hyperparams: hyperparam_dtype={dtype_name(hyperparam_dtype)!r} would round numbers; "
            f"gradtx keeps them in {number_dtype().name}, whatever the parameters are in. Leave it out."
        )

    @functools.wraps(inner_factory)
    def construct(*args: Any, **kwargs: Any) -> Transform:
        arguments = {**_positional(inner_factory, args), **kwargs}
        schedules = {k: v for k, v in arguments.items() if _is_stateful(v)}
        if not schedules:
            return _built(inner_factory, args, kwargs)
        with jax.ensure_compile_time_eval():
            first = {k: float(s(s.init())) for k, s in schedules.items()}
        inner = _built(inner_factory, (), {**arguments, **first})
        return Injected(f"inject_hyperparams({show(inner_factory)})", arguments, inner, schedules)

    return construct


def _positional(fn: Callable[..., Any], args: tuple[Any, ...]) -> dict[str, Any]:
    return dict(inspect.signature(fn).bind_partial(*args).arguments) if args else {}


def _built(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Transform:
    try:
        tx = fn(*args, **kwargs)
    except TypeError as error:
        bind_call(fn, args, kwargs)
        error.add_note(
            "inject_hyperparams: the function gets schedules as they are, not their values. Do no arithmetic "
            "on its arguments; scale_by_learning_rate flips the sign."
        )
        raise
    if not isinstance(tx, Composed):
        raise TypeError(
            f"inject_hyperparams: {show(fn)} builds a {type(tx).__name__}, whose numbers are in its code. "
            f"Use gradtx's transform of that name, or optax.inject_hyperparams: what that makes works inside "
            f"gradtx.chain."
        )
    return tx


@factory
def inject_stateful_hyperparams(
    inner_factory: Callable[..., Any],
    static_args: str | Iterable[str] = (),
    hyperparam_dtype: DType | None = None,
) -> Callable[..., Transform]:
    """The old name of `inject_hyperparams`, which takes stateful schedules too.

    Args:
        inner_factory: a constructor of gradtx's, or a function that composes its transforms.
        static_args: names of arguments that are no schedules.
        hyperparam_dtype: None or float32 (float64 with x64).

    Returns:
        A function with the signature of `inner_factory`, which returns a transform.

    Raises:
        ValueError: as `inject_hyperparams` does.
        TypeError: when called, the factory builds another library's transform.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> class HalvesOnRequest:
        ...     def init(self):
        ...         return {"rate": jnp.float32(0.5)}
        ...
        ...     def update(self, state, *, halve, **extra):
        ...         return {"rate": jnp.where(halve, state["rate"] / 2, state["rate"])}
        ...
        ...     def __call__(self, state, **extra):
        ...         return state["rate"]
        >>> tx = gradtx.inject_stateful_hyperparams(gradtx.sgd)(learning_rate=HalvesOnRequest())
        >>> params, state = jnp.ones(1), tx.init(jnp.ones(1))
        >>> for halve in (True, False):
        ...     updates, state = tx.update(params, state, params, halve=halve)
        ...     print(updates)
        [-0.5]
        [-0.25]
    """
    return inject_hyperparams(inner_factory, static_args, hyperparam_dtype)
