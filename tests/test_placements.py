"""Every entry of the catalogue wherever its parameters lie: the numbers of one device, and nothing moves."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import gradtx
from catalogue import ENTRIES
from depths import depths, divides_by_numbers
from gradtx.core.engine.transform import accepted
from gradtx.testing.compare import both_leaves, close, identical, same_layout
from rotation import one_of

DEVICES = np.array(jax.devices()[:8])
# Of the last two, a few elements and a single one, no device gets a part.
SHAPES = {"bias": (32,), "kernel": (16, 32), "layers": (2, 32, 8), "odd": (3,), "scale": ()}
PLACEMENTS = {
    "replicated": ({"data": 8}, {}),
    "FSDP": ({"data": 8}, {"bias": ("data",), "kernel": ("data", None), "layers": (None, "data", None)}),
    "tensor": (
        {"model": 8},
        {"bias": ("model",), "kernel": (None, "model"), "layers": (None, None, "model")},
    ),
    "2-D": (
        {"data": 4, "model": 2},
        {"bias": ("model",), "kernel": ("data", "model"), "layers": ("model", "data", None)},
    ),
    "ZeRO-1": ({"data": 8}, {}),
}
"""The axes of a mesh with their sizes, and along which of them each axis of a leaf is sharded."""

STEPS, ONE = 20, 11
"""How many steps are taken, and after how many of them one is compared alone: the twelfth, at which all does
something that does so in each second or third step.
"""

EPS = float(jnp.finfo("float32").eps)
FAR = 1e-5
"""How far parameters may be apart in the end, for what they are and for each update that they got."""

BOUNDS = {
    "momo_adam": (4.0, "its rate is an inner product, which is much smaller than what it is the sum of"),
}
"""Of some updates, by how much further they may be apart than the depth of their sums says, and why."""

CASES = list(itertools.product(ENTRIES, PLACEMENTS, (AxisType.Auto, AxisType.Explicit)))
# These have failed: the first was sharded anew, of the second a stack was not where it was said to be, and
# the average of the third was replicated.
FAILED = {
    ("flatten", "2-D", AxisType.Auto),
    ("normuon", "replicated", AxisType.Explicit),
    ("scion", "FSDP", AxisType.Auto),
}
IN_CI = [
    pytest.param(*case.values, marks=() if case.values[0] in FAILED else case.marks)
    for case in one_of(151, CASES)
]


def filled(seed, least, signed):
    """A tree without an element near 0."""
    rng = np.random.default_rng(seed)
    signs = (-1.0, 1.0) if signed else (1.0,)
    return {
        name: jnp.asarray((least + rng.random(shape)) * rng.choice(signs, shape), jnp.float32)
        for name, shape in SHAPES.items()
    }


PARAMS = filled(0, 0.5, False)


def stepping(tx, extra):
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params, **accepted(tx.update, extra))
        return gradtx.apply_updates(params, updates), state, updates

    return jax.jit(step)


class Alone:
    """The steps of an entry on one device.

    Attributes:
        grads: the gradients of each step.
        before: the parameters and the state before the one step that is compared alone.
        after: those and the updates after it.
        params: the parameters in the end.
        moved: by how much the updates have moved each element of them, there and back.
        depths: how deep the sums are of which the parameters, the state and the updates are made.
        divides: whether a step divides arrays by single numbers.
    """

    def __init__(self, entry):
        tx = entry.transform()
        step, self.params, state = stepping(tx, entry.extra), PARAMS, tx.init(PARAMS)
        self.grads = [filled(1 + i, 0.2, not entry.positive) for i in range(STEPS)]
        given = self.params, state, self.grads[0]
        traced = step.trace(*given).jaxpr
        self.divides = divides_by_numbers(traced)
        self.moved = dict.fromkeys(PARAMS, 0.0)
        for i, grads in enumerate(self.grads):
            before = self.params, state
            self.params, state, updates = step(*before, grads)
            if i == ONE:
                self.before, self.after = before, (self.params, state, updates)
            self.moved = {k: x + abs(np.float64(updates[k])) for k, x in self.moved.items()}
        self.depths = jax.tree.unflatten(jax.tree.structure(self.after), depths(traced, *given))


@functools.lru_cache(maxsize=2)
def alone(name):
    """The same for all cases of an entry, which stand together."""
    return Alone(ENTRIES[name])


def shardings(tree):
    return jax.tree.map(lambda x: x.sharding, tree)


def stay(now, before, when):
    """Nothing has moved."""
    for path, new, old in both_leaves(now, before):
        assert new == old, f"{path} {when}: {old} became {new}"


def placing(placement, kind):
    """A mesh, and the function that puts a tree like the parameters there, as a compiled step gives it."""
    sizes, specs = PLACEMENTS[placement]
    mesh = Mesh(DEVICES.reshape(*sizes.values()), tuple(sizes), axis_types=(kind,) * len(sizes))

    def sharding(name, x):
        parts = [*specs.get(name, [None] * x.ndim)]
        while kind == AxisType.Auto and parts and parts[-1] is None:
            parts.pop()
        return NamedSharding(mesh, PartitionSpec(*parts))

    return mesh, lambda tree: {k: jax.device_put(x, sharding(k, x)) for k, x in tree.items()}


def same_step(made, one, factor, record, optimized):
    """One update from one state: what no sum is in is the same bit for bit, the others up to their depth.

    Optimized code takes several elements at a time where there are enough of them. Then other products are
    joined with the sums after them, and rounded once, and a function such as atan2 is another approximation:
    the updates may be as far apart as those with a sum of two numbers.
    """
    (_, state, updates), (_, own_state, own_updates) = made, one.after
    _, of_state, of_updates = one.depths
    largest = max(float(np.max(np.abs(x))) for x in own_updates.values())
    for (path, x, y), depth in zip(both_leaves(updates, own_updates), of_updates.values(), strict=True):
        depth = max(depth, 1.0) if optimized else depth
        if depth == 0 and not one.divides:
            identical(x, y, f"the update of {path}")
        elif depth == 0:
            close(x, y, f"the update of {path}", ulp=2)
        else:
            far = float(np.max(np.abs(np.float64(x) - np.float64(y))))
            bound = 4 * EPS * depth * factor * largest
            record(f"of the bound of {path}", far / bound if bound else 0.0)
            assert far <= bound, f"the update of {path}: {far:.3g} apart, and the bound is {bound:.3g}"
    # An average of parameters sees the update in a loop of its own, where XLA may join the product that the
    # update is and the sum after it, and rounds once then and not twice. What is remembered of sums is
    # compared by the steps that it leads to.
    for (path, x, y), depth in zip(both_leaves(state, own_state), jax.tree.leaves(of_state), strict=True):
        if depth == 0:
            close(x, y, f"the state {path}", ulp=2, of_leaf=True)


@pytest.mark.by_turns(6)
@pytest.mark.parametrize("case", IN_CI, ids=lambda case: f"{case[0]}-{case[1]}-{case[2].name}")
def test_a_step_is_the_same_wherever_the_parameters_lie(case, record_property, pytestconfig):
    name, placement, kind = case
    entry, one = ENTRIES[name], alone(name)
    mesh, put = placing(placement, kind)
    tx = entry.transform()
    if placement == "ZeRO-1":
        tx = gradtx.shard_state(tx, mesh, "data", min_size=0)
    params = put(PARAMS)
    state = start = tx.init(params)
    if placement != "ZeRO-1":
        assert gradtx.state_sharding(tx, params) == shardings(state)
    before, step = shardings((params, state)), stepping(tx, entry.extra)
    for i, grads in enumerate(one.grads):
        params, state, _ = step(params, state, put(grads))
        stay(shardings((params, state)), before, f"after step {i}")
    same_layout(state, start, "state")
    old_params, old_state = one.before
    old_state = jax.tree.map(lambda x, s: jax.device_put(x, s.sharding), old_state, start)
    optimized = pytestconfig.getoption("--optimized")
    factor, _ = BOUNDS.get(name, (1.0, ""))
    same_step(step(put(old_params), old_state, put(one.grads[ONE])), one, factor, record_property, optimized)
    assert step._cache_size() == 1
    for k, p in one.params.items():
        far = np.abs(np.float64(params[k]) - np.float64(p)) / (np.abs(np.float64(p)) + one.moved[k])
        record_property(f"{k} in the end", float(np.max(far)))
        assert (far <= FAR).all(), (
            f"{k} after {STEPS} steps: {np.max(far):.3g} of what it is and what moved it"
        )


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("form", ["update", "apply_gradients"])
def test_vectors_of_all_leaves_leave_each_leaf_where_it_is(form):
    """Those of one shape too, and in a loop, as that of a step which may be skipped."""
    mesh, _ = placing("2-D", AxisType.Auto)
    specs = {"rows": ("data",), "columns": ("model",), "both": (("data", "model"),), "whole": ()}
    params = {
        k: jax.device_put(jnp.ones(32), NamedSharding(mesh, PartitionSpec(*spec)))
        for k, spec in specs.items()
    }
    tx = gradtx.guard(gradtx.flatten(gradtx.adam(0.1)))

    @jax.jit
    def step(params, state, grads):
        if form == "apply_gradients":
            return gradtx.apply_gradients(tx, grads, state, params)
        updates, state = tx.update(grads, state, params)
        return gradtx.apply_updates(params, updates), state

    now = params, tx.init(params)
    before = shardings(now)
    for _ in range(2):
        now = step(*now, params)
        stay(shardings(now), before, "after a step")
    assert step._cache_size() == 1


def test_each_placement_and_each_kind_of_entry_is_in_a_plain_run():
    brief = [case.values[0] for case in IN_CI if not case.marks]
    assert {case[1:] for case in brief} == {case[1:] for case in CASES}
    assert {ENTRIES[name].kind for name, *_ in brief} == {entry.kind for entry in ENTRIES.values()}
