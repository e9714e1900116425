"""Every name of Optax: here with the same meaning, or absent with an error that says what to use."""

from __future__ import annotations

import inspect
import math
import re
import types
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.tree_utils
import pytest

import gradtx
from gradtx._names import LOSSES
from trajectories import x64

SPACES = ["", "contrib", "schedules", "transforms", "tree", "tree_utils"]


def space(library, name):
    return getattr(library, name) if name else library


def public(name):
    """The names in a namespace of Optax."""
    module = space(optax, name)
    imported = {"functools", "typing"}
    return sorted(n for n in dir(module) if not n.startswith("_") and n not in imported)


OPTAX = [(where, name) for where in SPACES for name in public(where)]
COMMON = [(where, name) for where, name in OPTAX if hasattr(space(gradtx, where), name)]
ABSENT = sorted({*OPTAX} - {*COMMON})


@pytest.mark.parametrize("where, name", ABSENT)
def test_what_gradtx_does_not_have_says_what_to_use(where, name):
    with pytest.raises(AttributeError) as error:
        getattr(space(gradtx, where), name)
    theirs = ".".join(["optax", *filter(None, [where]), name])
    assert theirs in str(error.value)


def test_what_gradtx_does_not_have_is_in_the_table_with_its_reason():
    page = (Path(__file__).parents[1] / "docs" / "from-optax.md").read_text()
    section = page.split("## What stays with Optax")[1]
    rows = [
        line.split("|")[1:3] for line in section.splitlines() if line.startswith("| `") or "losses;" in line
    ]
    said = {name for names, why in rows if why.strip() for name in re.findall(r"`(\w+)`", names)}
    absent = {name for _, name in ABSENT if name not in LOSSES and not name.endswith("State")}
    # An older Optax may lack some of them, and an alias of a module stands beside its name.
    assert absent <= said
    assert not {name for name in said if hasattr(gradtx, name)}


@pytest.mark.parametrize("where", SPACES)
def test_a_name_that_no_library_has_is_an_ordinary_error(where):
    with pytest.raises(AttributeError, match="has no attribute 'nothing_of_the_kind'"):
        space(gradtx, where).nothing_of_the_kind  # noqa: B018


def test_a_namespace_has_what_the_package_has_of_it():
    """Schedules and transforms are the package's own objects; nothing of the surface is left out."""
    for where in ("schedules", "transforms"):
        for name in public(where):
            if hasattr(gradtx, name):
                assert getattr(space(gradtx, where), name) is getattr(gradtx, name), (where, name)
        assert {*space(gradtx, where).__all__} <= {*dir(space(gradtx, where))}
    for name in gradtx.tree.__all__:
        assert getattr(gradtx.tree_utils, f"tree_{name}") is getattr(gradtx.tree, name)


OTHER_ARGUMENTS = {
    "lbfgs": {"linesearch"},  # the same line search, as a transform of gradtx
    "scale_by_lion": {"mode", "smooth_beta"},
    "get": {"default"},  # an error, not a silent None
    "tree_get": {"default"},
}
"""Arguments that are not Optax's on purpose; docs/from-optax.md says so."""

NO_FUNCTIONS = {"GradientTransformation", "GradientTransformationExtraArgs", "Schedule", "ScalarOrSchedule"}


def same_default(ours, theirs):
    if ours is theirs or inspect.Parameter.empty in (ours, theirs) or isinstance(theirs, bool | int | float):
        return ours is theirs or (theirs is not inspect.Parameter.empty and ours == theirs)
    if isinstance(theirs, optax.GradientTransformation):
        # It was made by a function of the name that ours prints.
        return repr(ours).partition("(")[0] == theirs.init.__qualname__.partition(".")[0]
    # A dtype has several names, and what a function does by default is not told by its name.
    return ours == theirs or inspect.isfunction(theirs) or np.dtype(ours) == np.dtype(theirs)


@pytest.mark.parametrize("where, name", COMMON)
def test_a_common_function_takes_what_optaxs_takes(where, name):
    """Optax's arguments come first, by their names, in their order and with their defaults."""
    ours, theirs = (getattr(space(library, where), name) for library in (gradtx, optax))
    assert isinstance(ours, types.ModuleType) == isinstance(theirs, types.ModuleType)
    if not callable(theirs) or name in NO_FUNCTIONS | {*ANNOTATIONS}:
        return
    mine, wanted = (inspect.signature(f).parameters for f in (ours, theirs))
    positional = [k for k, p in wanted.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [k for k, p in mine.items() if p.kind is p.POSITIONAL_OR_KEYWORD][: len(positional)] == positional
    named = {k for k, p in wanted.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    for key in named - OTHER_ARGUMENTS.get(name, set()):
        assert same_default(mine[key].default, wanted[key].default), key


ANNOTATIONS = (
    "EmptyState",
    "MaskedNode",
    "OptState",
    "Params",
    "TransformInitFn",
    "TransformUpdateExtraArgsFn",
    "TransformUpdateFn",
    "Updates",
)


class MyState(NamedTuple):
    count: gradtx.Params
    mu: gradtx.Updates
    inner: gradtx.OptState


def test_annotations_have_their_meaning():
    """A transform as it is written for Optax, with a state of its own."""

    def halving(inner: gradtx.GradientTransformation) -> gradtx.GradientTransformationExtraArgs:
        def init(params: gradtx.Params) -> gradtx.OptState:
            return MyState(
                jnp.zeros((), jnp.int32), gradtx.tree_utils.tree_zeros_like(params), inner.init(params)
            )

        def update(
            updates: gradtx.Updates, state: gradtx.OptState, params: gradtx.Params | None = None
        ) -> tuple[gradtx.Updates, gradtx.OptState]:
            updates, after = inner.update(updates, state.inner, params)
            mu = gradtx.tree.update_moment(updates, state.mu, 0.5, 1)
            return mu, MyState(gradtx.safe_int32_increment(state.count), mu, after)

        functions: tuple[gradtx.TransformInitFn, gradtx.TransformUpdateFn] = (init, update)
        return gradtx.GradientTransformationExtraArgs(*functions)

    tx = halving(gradtx.scale(4.0))
    params = {"w": jnp.ones(2)}
    updates, state = tx.update(params, tx.init(params), params)
    assert updates["w"].tolist() == [2.0, 2.0]
    assert int(gradtx.tree.get(state, "MyState").count) == 1


@pytest.mark.parametrize("make", [gradtx.EmptyState, gradtx.MaskedNode])
def test_an_empty_node_is_a_tree_without_leaves(make):
    assert jax.tree.leaves(make()) == []
    assert jax.tree.structure(make()) == jax.tree.structure(make())
    params = {"w": jnp.ones(2), "b": make()}
    tx = gradtx.adam(0.1)
    updates, _ = jax.jit(tx.update)(params, tx.init(params), params)
    assert updates["b"] == make()
    assert gradtx.apply_updates(params, updates)["b"] == make()


@pytest.mark.parametrize("count", [np.int32(5), np.int32(2**31 - 1), np.uint8(255), np.float32(2.0)])
def test_safe_increment_is_optaxs(count):
    ours, theirs = gradtx.safe_increment(count), optax.safe_increment(count)
    assert (ours, ours.dtype) == (theirs, theirs.dtype)
    assert gradtx.safe_int32_increment is gradtx.safe_increment
    with pytest.raises(ValueError, match="a counter is an integer or a float, got bool"):
        gradtx.safe_increment(np.bool_(True))


RNG = np.random.default_rng(0)
X, Y = ({"w": RNG.normal(size=(2, 3)), "b": [RNG.normal(size=()), None]} for _ in range(2))
C = {"w": RNG.normal(size=3) + 1j * RNG.normal(size=3), "b": RNG.normal(size=2)}
N = {"w": RNG.integers(0, 9, size=(2, 2))}
KEY = jax.random.key(7)
POSITIVE = jax.tree.map(np.abs, Y)
CALLS = {
    "add": [(X, Y), (X, Y, X, C | X)],
    "add_scale": [(X, 0.5, Y), ({**X, "b": None}, 2, {**Y, "b": 1.0})],
    "allclose": [(X, X), (X, Y), (X, jax.tree.map(lambda x: x + 1e-6, X)), (X, Y, 10.0, 0.1), ({}, {})],
    "batch_shape": [(X, (2, 3)), (C,)],
    "bias_correction": [(X, 0.9, np.int32(3)), (POSITIVE, np.float32(0.999), np.int32(100))],
    "cast": [(X, "float16"), (X, None)],
    "cast_like": [(X, N | {"b": [np.float16(1), None]})],
    "clip": [(X, -0.5, 0.5), (X, None, 0.1), (X,)],
    "conj": [(C,)],
    "div": [(X, Y)],
    "full_like": [(X, 2), (X, 0.5, "float16")],
    "max": [(X,), ({},), ({"e": np.zeros((0, 2)), "w": np.ones(2)},)],
    "min": [(X,), ({},)],
    "mul": [(X, Y)],
    "norm": [(X,), (C,), (X, 1), (C, "inf"), (X, 2, True), (X, math.inf, True), (N,)],
    "ones_like": [(X,), (X, "int32")],
    "random_like": [(KEY, X), (KEY, C, jax.random.normal), (KEY, X, jax.random.uniform, "float32")],
    "real": [(C,)],
    "scale": [(0.5, X)],
    "size": [(X,), ({},)],
    "split_key_like": [(KEY, X), (KEY, {})],
    "sub": [(X, Y)],
    "sum": [(X,), ({},), (N,)],
    "update_infinity_moment": [(X, POSITIVE, 0.9, 1e-8)],
    "update_moment": [(X, Y, 0.9, 2), ({**X, "b": None}, {**Y, "b": 1.0}, 0.5, 1)],
    "update_moment_per_elem_norm": [(X, Y, 0.9, 2), (C, jax.tree.map(np.abs, C), 0.9, 2), (C, C, 0.9, 3)],
    "unwrap_random_key_data": [({"key": KEY, **X},)],
    "vdot": [(X, Y), (C, C)],
    "where": [(True, X, Y), (np.bool_(False), X, Y)],
    "zeros_like": [(X,), (X, "float16")],
}
"""What the functions of trees are called with; those that read a state or a dtype have tests of their own."""
READERS = {"dtype", "get", "get_all_with_path", "map_params", "set"}


def as_jax(x):
    return jnp.asarray(x) if isinstance(x, np.ndarray | np.generic) else x


@pytest.mark.by_turns(3)
@pytest.mark.parametrize("name", sorted({*gradtx.tree.__all__} - READERS))
def test_a_function_of_trees_gives_what_optaxs_gives(name):
    for arguments in CALLS[name]:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"), x64():
            arguments = jax.tree.map(as_jax, arguments)
            ours, theirs = (getattr(library.tree, name)(*arguments) for library in (gradtx, optax))
        ours, theirs = map(optax.tree.unwrap_random_key_data, (ours, theirs))
        assert jax.tree.structure(ours) == jax.tree.structure(theirs)
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            assert (jnp.shape(a), jnp.result_type(a)) == (jnp.shape(b), jnp.result_type(b))
            np.testing.assert_allclose(a, b, rtol=1e-6 if name == "bias_correction" else 1e-12)


def test_the_functions_of_moments_stand_at_the_top_too():
    for name in ("bias_correction", "update_moment", "update_moment_per_elem_norm", "update_infinity_moment"):
        assert getattr(gradtx, name) is getattr(gradtx.tree, name)
    m = gradtx.bias_correction(jnp.float32(0.271), 0.9, 3)
    np.testing.assert_allclose(m, 1.0, rtol=1e-6)


@pytest.mark.parametrize("handler", [None, "promote", "highest", "lowest"])
@pytest.mark.parametrize(
    "dtypes",
    [[], ["float32"], ["float32"] * 2, ["bfloat16", "float32", "float32"], ["float16", "bfloat16"]],
    ids=str,
)
def test_the_dtype_of_a_tree_is_optaxs(dtypes, handler):
    tree = [jnp.ones(2, dtype) for dtype in dtypes]
    try:
        with jax.numpy_dtype_promotion("standard"):
            expected = optax.tree.dtype(tree, handler)
    except ValueError:
        with pytest.raises(ValueError, match=", ".join(sorted(set(dtypes), key=dtypes.index))):
            gradtx.tree.dtype(tree, handler)
    else:
        assert gradtx.tree.dtype(tree, handler) == expected
    with pytest.raises(ValueError, match="'highest' or 'lowest', got 'typo'"):
        gradtx.tree.dtype(tree, "typo")


def test_random_leaves_are_sharded_as_those_that_they_are_like():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    with jax.set_mesh(mesh):
        leaf = jax.device_put(jnp.zeros((8, 2)), sharding)
        made = gradtx.tree.random_like(jax.random.key(0), {"w": leaf})
        assert jax.typeof(made["w"]).sharding == jax.typeof(leaf).sharding


def test_a_norm_of_another_order_is_an_error():
    with pytest.raises(ValueError, match="ord must be None, 1, 2 or inf, got 3"):
        gradtx.tree.norm(jnp.ones(2), 3)


USES = dict(line.split("\t") for line in (Path(__file__).parent / "optax_uses.tsv").read_text().splitlines())
"""The names of Optax in the code of public repositories, with how often each stands there."""


def resolves(dotted):
    x = gradtx
    for name in dotted.split("."):
        try:
            x = getattr(x, name)
        except AttributeError:
            return False
    return True


def test_the_names_that_people_use_resolve():
    """Of all uses but those of losses, which stay with Optax. Private names count as missing."""
    uses = {name: int(n) for name, n in USES.items() if name.split(".")[0] not in LOSSES}
    share = sum(n for name, n in uses.items() if resolves(name)) / sum(uses.values())
    assert share >= 0.93
