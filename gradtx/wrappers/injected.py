"""What `inject_hyperparams` makes: wrappers around a transform whose numbers come from outside of it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax

from gradtx.core.compose.combine import as_part
from gradtx.core.compose.rule import Whole
from gradtx.core.compose.wrapper import Wrapper, in_dtypes_of
from gradtx.core.engine.composed import Composed
from gradtx.core.engine.program import Program
from gradtx.core.engine.rebase import rebased
from gradtx.core.engine.scope import Slots
from gradtx.core.engine.transform import ByStep, Call, PyTree, Transform, adapted
from gradtx.core.engine.wrapped_update import WrappedUpdate
from gradtx.core.numbers.hyperparams import set_hyperparams
from gradtx.core.numbers.paths import lookup, replaced
from gradtx.core.numbers.schedule import bind_numbers
from gradtx.core.numbers.states import INJECTED
from gradtx.core.spec.fields import ANY, Field
from gradtx.core.spec.spec import show


def first_states(wrapper: Any, params: PyTree) -> dict[str, Any]:
    """The states that stateful schedules start with."""
    return {k: s.init() for k, s in wrapper.schedules.items()}


class Injected(Wrapper, name=INJECTED):
    """u = inner(g) with the hyperparameters h = schedule(s);  s = update(s)."""

    inner: Any
    schedules: Any

    states = Whole(first_states)

    def __init__(self, code: str, arguments: dict[str, Any], inner: Any, schedules: dict[str, Any]) -> None:
        super().__init__(inner=inner, schedules=schedules)
        self._set(code=code, arguments=arguments)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        return self.__dict__["code"], (), self.__dict__["arguments"]

    def wrapped(self) -> dict[str, Any]:
        return {"inner": self.inner}

    def run(self, gs: list[jax.Array], slots: Slots, call: WrappedUpdate) -> tuple[list[Any], dict[str, Any]]:
        old = slots.states
        values = {k: call.number(s(old[k], **call.extra)) for k, s in self.schedules.items()}
        result, inner = call.run(self.inner, gs, set_hyperparams(slots.inner, **values))
        new = {k: s.update(old[k], **call.extra) for k, s in self.schedules.items()}
        return result, {"states": in_dtypes_of(new, old), "inner": inner}


class Rebuilt(Wrapper, name=INJECTED):
    """u = factory(h)(g), where h are the numbers of this update."""

    factory: Any
    others: Any
    numbers: Any

    def __init__(self, factory: Any, others: dict[str, Any], numbers: dict[str, Any], **more: Any) -> None:
        for name in numbers:
            if hasattr(type(self), name) or name in type(self)._fields:
                raise ValueError(
                    f"inject_hyperparams: the function's argument {name!r} has a name that gradtx uses "
                    f"itself. Rename it in the function, or name it in static_args if it never changes."
                )
        names = tuple(numbers)
        self._set(numbers=names)
        super().__init__(factory=factory, others=others, numbers=names, **numbers, **more)

    def fields(self) -> dict[str, Field]:  # type: ignore[override]
        """The declared fields, and each number among the factory's arguments."""
        numbers = {name: Field(name, ANY, False, False, False, None) for name in self.__dict__["numbers"]}
        return {**type(self)._fields, **numbers}

    def _with(self, **values: Any) -> Any:
        copy = object.__new__(type(self))
        copy._set(**{**self.__dict__, **values})
        return copy

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        given = self._given()
        order = [name for name in inspect.signature(self.factory).parameters if name in given]
        in_order = {name: given[name] for name in (*order, *given)}
        return f"inject_hyperparams({show(self.factory)})", (), in_order

    def _given(self) -> dict[str, Any]:
        return {**self.others, **{name: self.__dict__[name] for name in self.numbers}}

    def wrapped(self) -> dict[str, Any]:
        return {"inner": Momentary(self._first)}

    @functools.cached_property
    def _first(self) -> Any:
        """The transform of the first update, whose state is that of all."""
        with jax.ensure_compile_time_eval():
            return self._built({name: value_at(self.__dict__[name], 0) for name in self.numbers})

    def _built(self, values: dict[str, Any]) -> Any:
        return built(self.factory, {**self.others, **values})

    def run(self, gs: list[jax.Array], slots: Slots, call: WrappedUpdate) -> tuple[list[Any], dict[str, Any]]:
        values = {name: self.__dict__[name] for name in self.numbers}
        result, inner = call.run(Momentary(self._built(values)), gs, slots.inner)
        return result, {"inner": inner}


class RebuiltByStates(Rebuilt, name=INJECTED):
    """u = factory(h)(g), where some of h are schedule(s);  s = update(s)."""

    schedules: Any

    states = Whole(first_states)

    def _given(self) -> dict[str, Any]:
        return {**super()._given(), **self.schedules}

    def _built(self, values: dict[str, Any]) -> Any:
        first = {name: value_at(s(s.init()), 0) for name, s in self.schedules.items() if name not in values}
        return super()._built({**first, **values})

    def run(self, gs: list[jax.Array], slots: Slots, call: WrappedUpdate) -> tuple[list[Any], dict[str, Any]]:
        old = slots.states
        values = {name: self.__dict__[name] for name in self.numbers}
        values |= {name: call.number(s(old[name], **call.extra)) for name, s in self.schedules.items()}
        result, inner = call.run(Momentary(self._built(values)), gs, slots.inner)
        new = {name: s.update(old[name], **call.extra) for name, s in self.schedules.items()}
        return result, {"states": in_dtypes_of(new, old), "inner": inner}


def value_at(number: Any, step: int) -> Any:
    """A number, or the value of a schedule at a step, as an array."""
    bound = bind_numbers(number)
    return bound(step) if callable(bound) else bound


class Momentary(ByStep):
    """A transform that is built for one update: its numbers are its own, and its state has none."""

    tx: Any

    def __init__(self, tx: Any) -> None:
        self._set(tx=tx)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        return self.tx._call() if isinstance(self.tx, Transform) else ("Momentary", (self.tx,), {})

    @property
    def program(self) -> Program | None:
        """The program of this update, if it is the engine's."""
        return self.tx.program if isinstance(self.tx, Composed) else None

    def init(self, params: PyTree) -> PyTree:
        return without_numbers(self.tx, adapted(self.tx).init(params))

    def _step(self, call: Call) -> tuple[PyTree, PyTree]:
        tx, state = self.tx, call.state
        if isinstance(tx, Composed):
            state = rebased(tx.program, state)
        result, after = adapted(tx)._step(call._replace(state=state))
        return result, without_numbers(tx, after)

    def last_units(self) -> list[str]:
        return adapted(self.tx).last_units()


def without_numbers(tx: Any, state: Any) -> Any:
    """The step and the slots of a state, also of what `tx` wraps.

    Numbers that each update makes anew must not be there to be set, which would do nothing.
    """
    if not isinstance(tx, Composed):
        return state
    slots = state["slots"]
    for path, part in tx.program.wrapped.items():
        slots = replaced(slots, path, without_numbers(part, lookup(slots, path)))
    return {"step": state["step"], "slots": slots}


def built(factory: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """What a factory builds; an error if it is no transform."""
    try:
        tx = factory(**arguments)
    except (TypeError, ValueError) as error:
        error.add_note(
            "inject_hyperparams: the function gets each number as an array, and of a schedule its value. "
            "What it must get as it is, such as a size, is named in static_args."
        )
        raise
    return as_part("inject_hyperparams", tx)
