"""Transforms that the engine runs: what has a program."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.layout import check_state, initial_state
from gradtx.core.engine.program import Builder, Program
from gradtx.core.engine.transform import ByStep, Call, PyTree
from gradtx.core.engine.update import State, Update
from gradtx.core.numbers.paths import Path
from gradtx.core.numbers.schedule import number_at, with_number
from gradtx.core.numbers.tidy import tidy
from gradtx.core.numerics import number_dtype
from gradtx.core.spec.argument import GivenForOneUpdate


class Composed(ByStep):
    """A transform that the engine runs: a rule, or a composition of transforms."""

    def _visit(self, builder: Builder) -> None:
        """Adds this transform's steps to a program."""
        raise NotImplementedError

    @property
    def program(self) -> Program:
        """The flattened form, built once."""
        if "_program" not in self.__dict__:
            self._set(_program=Program(self._visit))
        return self.__dict__["_program"]

    def init(self, params: PyTree) -> State:
        """The state: the step, every hyperparameter, and the slots of each leaf that is trained."""
        return initial_state(self.program, params)

    def _step(self, call: Call) -> tuple[PyTree, State]:
        return Update(self.program, call._replace(state=self._in_force(call.state))).run()

    def structure(self) -> Any:
        """What programs are told apart by: all of it but the numbers that live in the state."""
        return self.program, self.program.masks

    def last_units(self) -> list[str]:
        """The names of the units, also in what is wrapped, that must see the final update."""
        return [name for names in self.program.last.values() for name in names]

    def _in_force(self, state: State) -> State:
        """The state with the numbers to use: its own, but a tracer that this transform was given.

        Such a transform is built to make one update, and so is one that Optax's `inject_hyperparams` builds.
        """
        check_state(self.program, state)
        state = lv.as_arrays(state)
        numbers, dtype = state["numbers"], number_dtype()
        for path, value in self.program.arrays.items():
            if isinstance(value, Tracer | GivenForOneUpdate):
                numbers = with_number(numbers, path, jnp.asarray(value).astype(dtype))
            else:
                _check_same(path, value, number_at(numbers, path))
        return state if numbers is state["numbers"] else {**state, "numbers": numbers}


def _check_same(path: Path, given: float, kept: Any) -> None:
    """Raises where a number that was given as an array is not the state's: nobody can tell which is meant."""
    if isinstance(kept, Tracer) or np.all(np.asarray(kept) == np.asarray(given, kept.dtype)):
        return
    name = ".".join(path)
    given, own = (tidy(np.asarray(x, kept.dtype)) for x in (given, kept))
    raise ValueError(
        f"{name} was given to the transform as the array {given}, and is {own} in the state. To go on with "
        f"the state's, give the transform a Python number, which the state's goes before. To go on with the "
        f"transform's, bring it into the state: gradtx.rebase(tx, state) brings all of its numbers, and "
        f"gradtx.set_hyperparams(state, ...) sets one."
    )
