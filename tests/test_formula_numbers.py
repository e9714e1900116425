"""The formulas of the whole catalogue, computed with float64 scalars, against the references.

A formula speaks of one element, so all elements of a leaf are equal here; the leaves have sizes of their own,
which sums count. What the formula says of another leaf (`other.mu`) is what that leaf's own formula gives.
"""

import jax
import numpy as np
import pytest

import gradtx
from catalogue import ALIASES, ENTRIES
from gradtx.formulas.expression import symbols
from gradtx.formulas.naming import OTHER
from gradtx.formulas.numeric import Evaluator, is_opaque
from trajectories import x64

SHAPES = {"matrix": (2, 3), "vector": (4,)}
START = {"matrix": 0.7, "vector": -1.2}
ABSTRACT = {name: jax.ShapeDtypeStruct(shape, np.float64) for name, shape in SHAPES.items()}
RNG = np.random.default_rng(0)
# One step is large, so that a guard skips and clipping clips.
GRADS = [{name: size * RNG.normal() for name in SHAPES} for size in (1, 1, 0.2, 6, 1, 1)]
CASES = [
    pytest.param(
        entry,
        variant,
        id=f"{entry.name}-{variant}".removesuffix("-"),
        marks=pytest.mark.full if entry.name in ALIASES else (),
    )
    for entry in ENTRIES.values()
    for variant in ["", *entry.variants]
]


class Leaf:
    """The formula of one leaf, and what the leaf remembers from step to step."""

    def __init__(self, tx, name, extra):
        with x64():
            self.formula = gradtx.formula(tx, ABSTRACT, name)
        self.bodies = {
            **{f"{slot}'": body for slot, body in self.formula.slots.items()},
            **self.formula.definitions,
            "update": self.formula.update,
        }
        self.extra = extra
        self.held = {"theta": START[name]}
        start = Evaluator(self.formula.start.values())(self.held)
        self.held |= dict(zip(self.formula.start, start, strict=True))
        self.reached = self.needed()

    def needed(self):
        """The names that the update depends on, in this step or later."""
        found, queue = set(), ["update"]
        while queue:
            name = queue.pop()
            for part in symbols(self.bodies[name]) if name in self.bodies else ():
                remembered = [f"{part}'"] if part in self.formula.slots else []
                queue += [n for n in (part, *remembered) if n not in found]
                found |= {part, *remembered}
        return found

    def begin(self, gradient, t):
        self.values = {**self.formula.values, **self.held, **self.extra, "g": gradient, "t": t}

    def value(self, name):
        """The value of a name in this step."""
        if name.startswith(OTHER):
            return self.other.value(name.removeprefix(OTHER))
        if name not in self.values:
            body = self.bodies[name]
            (self.values[name],) = Evaluator([body])({part: self.value(part) for part in symbols(body)})
        return self.values[name]

    def end(self):
        """Moves on to the next step; the update of this one."""
        update = self.value("update")
        new = {name.removesuffix("'"): self.value(name) for name in self.reached if name.endswith("'")}
        self.held |= new | {"theta": self.held["theta"] + update}
        return update


def by_formula(tx, gradients, extra):
    """The updates of each leaf that was asked about: the second is, where the first depends on it."""
    leaves = {"matrix": Leaf(tx, "matrix", extra)}
    if any(name.startswith(OTHER) for name in leaves["matrix"].reached):
        leaves["vector"] = Leaf(tx, "vector", extra)
        leaves["matrix"].other, leaves["vector"].other = leaves["vector"], leaves["matrix"]
    for leaf in leaves.values():
        bodies = [leaf.bodies[name] for name in leaf.reached | {"update"} if name in leaf.bodies]
        assert not any(map(is_opaque, bodies)), "a part has no numeric meaning"
    found = []
    for t, gradient in enumerate(gradients, 1):
        for name, leaf in leaves.items():
            leaf.begin(gradient[name], t)
        for leaf in leaves.values():
            for name in sorted(leaf.reached):
                leaf.value(name)
        found.append({name: leaf.end() for name, leaf in leaves.items()})
    return found


def by_reference(entry, variant, gradients):
    reference = entry.build_reference(variant)
    if entry.kind == "schedule":
        return [{name: -reference(t) * g for name, g in grads.items()} for t, grads in enumerate(gradients)]
    params = [np.full(shape, START[name]) for name, shape in SHAPES.items()]
    reference.init(params)
    found = []
    for gradient in gradients:
        updates = reference.update(
            [np.full(s, gradient[name]) for name, s in SHAPES.items()], params, **entry.extra
        )
        params = [p + u for p, u in zip(params, updates, strict=True)]
        found.append({name: np.ravel(u)[0] for name, u in zip(SHAPES, updates, strict=True)})
    return found


@pytest.mark.by_turns(5)
@pytest.mark.parametrize(("entry", "variant"), CASES)
def test_the_formula_is_the_reference(entry, variant):
    tx = entry.transform(variant)
    if entry.name in ("store", "precision"):
        # In how many bits a slot is kept changes no formula; this entry has their numbers, and a reference.
        entry, variant = ENTRIES["precise_params"], ""
    if entry.reference is None:
        # What has no reference is random.
        formula = gradtx.formula(tx, ABSTRACT, "matrix")
        bodies = [formula.update, *formula.slots.values()]
        assert any("noise" in symbols(body) for body in bodies)
        return
    if entry.loops:
        formula = gradtx.formula(tx, ABSTRACT, "matrix")
        assert any(map(is_opaque, [formula.update, *formula.slots.values()]))
        return
    gradients = [{n: abs(g) if entry.positive else g for n, g in grads.items()} for grads in GRADS]
    found, expected = by_formula(tx, gradients, entry.extra), by_reference(entry, variant, gradients)
    for ours, theirs in zip(found, expected, strict=True):
        for name, update in ours.items():
            np.testing.assert_allclose(update, theirs[name], rtol=1e-9, atol=1e-12, err_msg=name)
