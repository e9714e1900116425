"""Users' programs in `tests/typing` run; `.ci/run` checks their types strictly, with pyright and mypy."""

from __future__ import annotations

import ast
import inspect
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
import gradtx.flax
import gradtx.testing
import gradtx.typing

FOLDER = Path(__file__).parent / "typing"
PROGRAMS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "mistakes")


@pytest.mark.wide
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_runs(name):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        runpy.run_path(str(FOLDER / f"{name}.py"))["main"]()


def test_the_programs_have_nothing_that_a_checker_is_told_to_overlook():
    assert len(PROGRAMS) >= 7
    for name in PROGRAMS:
        assert "ignore" not in (FOLDER / f"{name}.py").read_text()


MODULES = [
    gradtx,
    *(gradtx.contrib, gradtx.flax, gradtx.schedules, gradtx.testing, gradtx.transforms),
    *(gradtx.tree, gradtx.tree_utils, gradtx.typing),
]
"""Every public module."""


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_a_public_module_does_not_tell_a_checker_that_every_name_is_there(module):
    """Which one takes a module's `__getattr__` for; `mistakes.py` has a wrong name of each."""
    seen = ast.parse(inspect.getsource(module)).body
    names = {n.id for node in seen if isinstance(node, ast.Assign) for n in ast.walk(node) if is_set(n)}
    assert "__getattr__" not in names and {"__all__", "__dir__"} <= names
    assert f"{module.__name__}." in (FOLDER / "mistakes.py").read_text()


def is_set(node):
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def functions():
    """Every public function, and the public methods of every public class."""
    for name in gradtx.__all__:
        found = getattr(gradtx, name)
        if inspect.isfunction(found):
            yield name, found
        elif inspect.isclass(found):
            for key, value in vars(found).items():
                value = getattr(value, "__func__", getattr(value, "fget", value))
                own = inspect.isfunction(value) and value.__module__.startswith("gradtx")
                if own and value.__name__ == key and not key.startswith("_"):
                    yield f"{name}.{key}", value


ANYTHING = {
    "an arbitrary object that holds a state": ["x"],
    "keyword arguments that go on as they are": ["extra", "style", "values"],
    "a tree in a foreign form, or of arrays as well as of labels": [
        "state_dict",
        "start",
        "heads",
        "initable",
    ],
    "one, or several in a list or a dict": ["optimizers", "schedules"],
    "the user's objects by name, and plain data": ["names", "config", "d"],
    "the name of a format or a dtype, or what says one of each leaf in any form": [
        "formats",
        "slots of precision",
        "params_dtype",
    ],
    "a function whose arguments are the user's": [
        "f",
        "inner_factory",
        "transform_non_params",
        "is_leaf",
        "factor",
        "tx of to_config",
    ],
    "a rule of the user, and what the engine tells it": [
        "rule",
        "param",
        "dtype of Decay.astype",
        "dtype of Slot.declared_dtype",
        "params of Key.initial",
        "params of Slot.shapes_for",
        "params of WholeScalar.initial",
    ],
}
"""Why a parameter of the public functions is `Any` or has it in it; each is a name, or `name of function`."""


def test_every_public_function_says_the_type_of_each_argument_and_of_its_result():
    missing = []
    for name, function in functions():
        signature = inspect.signature(function)
        taken = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
        missing += [f"{name}: {p.name}" for p in taken if p.annotation is p.empty]
        if signature.return_annotation is signature.empty:
            missing.append(f"{name}: its result")
    assert not missing


def test_what_is_any_has_a_reason():
    allowed = {name for names in ANYTHING.values() for name in names}
    used, without = set(), []
    for name, function in functions():
        for key, parameter in inspect.signature(function).parameters.items():
            if "Any" not in str(parameter.annotation).replace("AnyTransform", ""):
                continue
            found = {key, f"{key} of {name}"} & allowed
            used |= found
            if not found:
                without.append(f"{name}: {parameter}")
    assert not without
    assert used == allowed


def test_any_transform_is_what_has_the_two_functions():
    for tx in (gradtx.sgd(0.1), optax.sgd(0.1)):
        assert isinstance(tx, gradtx.typing.AnyTransform)
    assert not isinstance(gradtx.sgd, gradtx.typing.AnyTransform)


@pytest.mark.wide
def test_a_config_may_have_the_raw_data_of_a_key():
    """The annotations of the constructors say what a config may hold."""
    tx = gradtx.add_noise(0.1, 0.55, key=jax.random.key(3))
    config = gradtx.to_config(tx)
    assert gradtx.from_config(config) == tx
    raw = np.asarray(jax.random.key_data(jax.random.key(3))).tolist()
    noisy = {"call": "noisy_sgd", "learning_rate": 0.1}
    of_list, of_key = (gradtx.from_config({**noisy, "key": key}) for key in (raw, 3))
    for tx in (of_list, of_key):
        updates, _ = tx.update(jnp.zeros(2), tx.init(jnp.zeros(2)), jnp.zeros(2))
        assert updates.any()
