"""Optax's injected hyperparameters, for code written with them: here numbers are in the state already."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.engine.transform import Transform
from gradtx.core.numbers.schedule import Schedule
from gradtx.core.numerics import number_dtype
from gradtx.core.spec.arguments import bind_call, factory
from gradtx.core.spec.fields import DType, dtype_name
from gradtx.core.spec.spec import FACTORIES, is_array, show
from gradtx.wrappers.injected import Injected, Rebuilt, RebuiltByStates


def _is_stateful(x: Any) -> bool:
    """Whether an argument is what Optax calls a stateful schedule."""
    return callable(x) and not isinstance(x, type) and hasattr(x, "init") and hasattr(x, "update")


@factory
def inject_hyperparams(
    inner_factory: Callable[..., Any],
    static_args: str | Iterable[str] = (),
    hyperparam_dtype: DType | None = None,
) -> Callable[..., Transform]:
    """Makes a constructor's numbers hyperparameters, as Optax does; gradtx's own constructors do so anyway.

    It is here so that code written for Optax runs. A constructor of gradtx's builds the same without it. Only
    the state differs from Optax's, and with it how numbers are read and set. For
    `state.hyperparams["learning_rate"]` write `gradtx.hyperparams(state)["learning_rate"]`, and to set it
    `state = gradtx.set_hyperparams(state, learning_rate=...)`.

    With a function of your own, or another library's constructor, each argument that is a number or a
    schedule is a hyperparameter under its own name. Each update calls the function with the values of that
    update, as arrays, so that it may do arithmetic on them, and runs the transform that it builds, of any
    library. What it must get as it is, such as a size, is named in `static_args`. A function is a schedule if
    it gives a number for a step; a mask or a label function is passed on.

    An object with `init()`, `update(state, **extra)` and `__call__(state, **extra)`, Optax's stateful
    schedule, may stand for a number: at each update h = schedule(s), then s = update(s), with the keyword
    arguments of the call. The state has s under `states`, and of a constructor of gradtx's the last h among
    the numbers of `inner`.

    Args:
        inner_factory: a function that builds a transform from its arguments.
        static_args: names of arguments that are no hyperparameters, one or several; a constructor of gradtx's
            needs none.
        hyperparam_dtype: None or float32 (float64 with x64), the dtype that numbers have here.

    Returns:
        A function with the signature of `inner_factory`, which returns a transform.

    Raises:
        ValueError: the factory has no argument of a name in `static_args`, or the dtype is another: in
            bfloat16 b2 = 0.999 would be 1.
        TypeError: when called, the factory builds something else than a transform.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.inject_hyperparams(gradtx.adamw)(learning_rate=1e-3, mask="!*bias")
        >>> tx
        adamw(0.001, mask='!*bias')
        >>> state = gradtx.set_hyperparams(tx.init({"w": jnp.ones(2)}), learning_rate=3e-4)
        >>> gradtx.hyperparams(state)["learning_rate"]
        0.0003
        >>> def descend(rate):
        ...     return gradtx.chain(gradtx.scale_by_adam(), gradtx.scale(-rate))
        >>> tx = gradtx.inject_hyperparams(descend)(rate=gradtx.linear_schedule(1.0, 0.0, 10))
        >>> gradtx.hyperparams(tx.init(jnp.ones(2)))["rate"]
        1.0
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
        if is_own(inner_factory):
            return _with_states(inner_factory, args, kwargs)
        arguments = bind_call(inner_factory, args, kwargs)
        for name, parameter in parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                arguments |= arguments.pop(name)
        dynamic = {k: v for k, v in arguments.items() if k not in names}
        schedules = {k: v for k, v in dynamic.items() if _is_stateful(v)}
        numbers = {k: v for k, v in dynamic.items() if k not in schedules and _is_number(v)}
        others = {k: v for k, v in arguments.items() if k not in numbers and k not in schedules}
        if schedules:
            return RebuiltByStates(inner_factory, others, numbers, schedules=schedules)
        return Rebuilt(inner_factory, others, numbers)

    return construct


def is_own(fn: Callable[..., Any]) -> bool:
    """Whether a function is a constructor of gradtx's or a recipe, whose numbers are in the state already."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return FACTORIES.get(getattr(fn, "__name__", "")) is fn


def _is_number(x: Any) -> bool:
    """Whether an argument is a number, or a function of the step that gives one.

    A function of something else, such as a mask, fails when it is given a step, or gives something else.
    """
    if isinstance(x, Schedule):
        return True
    value: Any = x
    if callable(x) and not isinstance(x, type):
        try:
            with jax.ensure_compile_time_eval():
                value = x(jnp.zeros((), jnp.int32))
        except Exception:
            return False
    if isinstance(value, bool) or not (is_array(value) or isinstance(value, int | float | np.number)):
        return False
    return jnp.shape(value) == () and jnp.issubdtype(jnp.result_type(value), jnp.number)


def _with_states(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Transform:
    """What a constructor of gradtx's builds, with the values of stateful schedules set at each update."""
    arguments = {**_positional(fn, args), **kwargs}
    schedules = {k: v for k, v in arguments.items() if _is_stateful(v)}
    if not schedules:
        return fn(*args, **kwargs)
    with jax.ensure_compile_time_eval():
        first = {k: float(s(s.init())) for k, s in schedules.items()}
    inner = fn(**{**arguments, **first})
    return Injected(f"inject_hyperparams({show(fn)})", arguments, inner, schedules)


def _positional(fn: Callable[..., Any], args: tuple[Any, ...]) -> dict[str, Any]:
    return dict(inspect.signature(fn).bind_partial(*args).arguments) if args else {}


@factory
def inject_stateful_hyperparams(
    inner_factory: Callable[..., Any],
    static_args: str | Iterable[str] = (),
    hyperparam_dtype: DType | None = None,
) -> Callable[..., Transform]:
    """The old name of `inject_hyperparams`, which takes stateful schedules too.

    Args:
        inner_factory: a function that builds a transform from its arguments.
        static_args: names of arguments that are no hyperparameters, one or several.
        hyperparam_dtype: None or float32 (float64 with x64), the dtype that numbers have here.

    Returns:
        A function with the signature of `inner_factory`, which returns a transform.

    Raises:
        ValueError: as `inject_hyperparams` does.
        TypeError: when called, the factory builds something else than a transform.

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
