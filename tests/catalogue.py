"""Every public transform, optimizer and schedule, once: how to build it, and what it supports.

The laws (`test_laws.py`) and the comparisons with the references (`test_formulas.py`) run over all of it;
`test_catalogue.py` fails when a public name is missing. Steps in schedules are fractions, so that no update
falls on a corner, where a derivative does not exist.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import contrib_references
import gradtx
import kin_of_muon_references
import linesearch_references
import matrix_references
import modern_references
import preconditioner_references
import references
import wrapper_references

STORAGE = (
    *("mu_dtype", "nu_dtype", "accumulator_dtype", "dtype_momentum", "param_dtype", "state_dtype", "gram"),
    "projector_dtype",
    *("views", "weight_dimension_numbers", "muon_weight_dimension_numbers"),
)
"""Arguments that no formula depends on: how a slot is stored, the order of operations, what is a matrix."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One public name.

    Attributes:
        name: the public name.
        settings: the arguments that most tests use.
        alternative: the same arguments with every number another, so that the structure is the same.
        variants: other forms, each as changes of `settings`; all have a reference too.
        layouts: forms that differ in how slots are stored, which have no reference of their own.
        make: builds it, where that is not a call of the public name.
        reference: builds the float64 reference from the same arguments; by default the class of that name in
            `references`. None where there is none to compare with, for the reason in `no_reference`.
        kind: transform, optimizer, combinator, wrapper or schedule.
        supports_complex: whether it has a meaning for complex leaves.
        positive: whether it is for gradients >= 0.
        rough: the names of numbers in which nothing is differentiable, as they are in the state.
        extra: the keyword arguments that its `update` needs.
        loops: whether a part of its formula is a loop, a random number or a part of a leaf, which has no
            numeric meaning.
    """

    name: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    alternative: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    layouts: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    make: Callable[..., Any] | None = None
    reference: Callable[..., Any] | str | None = ""
    no_reference: str = ""
    kind: str = "transform"
    supports_complex: bool = True
    positive: bool = False
    rough: tuple[str, ...] = ()
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    loops: bool = False

    def arguments(self, variant: str = "") -> dict[str, Any]:
        """The arguments of a variant or layout, of the settings, or (for `"alternative"`) the other ones."""
        if variant == "alternative":
            return dict(self.alternative)
        changes = {**self.variants, **self.layouts}[variant] if variant else {}
        return {**self.settings, **changes}

    def build(self, variant: str = "") -> Any:
        """The transform; for a schedule, the schedule."""
        return (self.make or getattr(gradtx, self.name))(**self.arguments(variant))

    def transform(self, variant: str = "") -> Any:
        """The transform; for a schedule, gradient descent with it."""
        built = self.build(variant)
        return gradtx.sgd(built) if self.kind == "schedule" else built

    def build_reference(self, variant: str = "") -> Any:
        """The reference of what `build` gives; for a schedule a function of the step."""
        kwargs = {k: as_reference(v) for k, v in self.arguments(variant).items() if k not in STORAGE}
        make = self.reference
        if make == "":
            make = reference_of(self.name)
        assert callable(make), self.no_reference
        return make(**kwargs)


def as_reference(value: Any) -> Any:
    """An argument as the references take it: a schedule as a function from the step to a float.

    A transform is a reference too.
    """
    if isinstance(value, gradtx.Schedule):
        (entry,) = (e for e in SCHEDULES if e.name == value.name)
        _, args, kwargs = value._call()
        return entry.reference(*args, **kwargs)
    if isinstance(value, gradtx.Transform):
        name, args, kwargs = value._call()
        return reference_of(name)(*args, **kwargs)
    return value


def reference_of(name: str) -> Any:
    """The class in `references` of a public name."""
    return getattr(references, "".join(part.capitalize() for part in name.split("_")))


def slower_rate(step: Any, rate: Any) -> Any:
    """A decay of Adafactor's second moment that begins above 0."""
    return 1 - (step + 2.0) ** -rate


def has_axes(path: str, leaf: Any) -> bool:
    """A mask: the leaves that are not scalars."""
    return leaf.ndim > 0


def too_large(updates: Any, gradient_step: Any, params: Any) -> Any:
    """For MultiSteps: whether to skip gradients, and a number that it saw; of numpy arrays too."""
    squares = sum((abs(x) ** 2).sum() for x in jax.tree.leaves(updates))
    return squares > 3.0, {"squares": jnp.asarray(squares, jnp.float32)}


def at_even_steps(step: Any) -> Any:
    """A condition: the first step of every two."""
    return step % 2 == 0


def has_no_axes(path: str, leaf: Any) -> bool:
    """A mask: the scalars."""
    return leaf.ndim == 0


def as_matrices(path: str, leaf: Any) -> Any:
    """Views: the last two axes are a matrix."""
    return gradtx.matrix_view("b" * (leaf.ndim - 2) + "rc") if leaf.ndim > 1 else None


def in_blocks(path: str, leaf: Any) -> Any:
    """Views: of the last two axes the first row is a matrix, and the others are another one."""
    if leaf.ndim < 2 or leaf.shape[-2] < 2:
        return None
    return gradtx.matrix_view("b" * (leaf.ndim - 2) + "rc", row_blocks=(1, leaf.shape[-2] - 1))


def is_matrix(path: str, leaf: Any) -> bool:
    """A mask: the leaves that `as_matrices` gives a view."""
    return leaf.ndim > 1


def one_head(path: str, leaf: Any) -> Any:
    """Heads: of a matrix the first column is the query of one head, and the others are its key."""
    if leaf.ndim < 2 or leaf.shape[-1] < 2:
        return None
    return gradtx.heads({"query": 1, "key": leaf.shape[-1] - 1}, "i" * (leaf.ndim - 1) + "d")


def axes_or_none(path: str, leaf: Any) -> str:
    """Labels by whether a leaf is a scalar."""
    return "axes" if leaf.ndim else "none"


def by_rank(path: str, leaf: Any) -> int:
    """Labels by the number of axes: 0, 1, or 2 for more."""
    return min(leaf.ndim, 2)


def groups_of_ranks(partition: Any, matrices: Any, vectors: Any, scalars: Any, nested: bool) -> Any:
    """Three groups at once, or two of them inside the group of what has axes."""
    if nested:
        return partition(
            {"axes": partition({1: vectors, 2: matrices}, by_rank), "none": scalars}, axes_or_none
        )
    return partition({0: scalars, 1: vectors, 2: matrices}, by_rank)


class OnLeavesWithAxes(references.Chain):
    """References on the leaves that `has_axes` includes; the others pass, or become 0."""

    def __init__(self, *inner: Any, outside: str = "pass") -> None:
        super().__init__(*inner)
        self.outside = outside

    def init(self, params: Any) -> None:
        super().init([p for p in params if p.ndim > 0])

    def update(self, grads: Any, params: Any, **extra: Any) -> Any:
        on = [p.ndim > 0 for p in params]
        chosen = [[x for x, o in zip(tree, on, strict=True) if o] for tree in (grads, params)]
        inner = iter(super().update(*chosen, **extra))
        beside = 1.0 if self.outside == "pass" else 0.0
        return [next(inner) if o else beside * references.wide(g) for g, o in zip(grads, on, strict=True)]


def doubled(update: Any, param: Any) -> Any:
    """A function of one leaf, for `stateless_with_tree_map`."""
    return 2 * update


def doubled_tree(updates: Any, params: Any) -> Any:
    """A function of a tree, for `stateless`."""
    return jax.tree.map(lambda u: 2 * u, updates)


def descending(learning_rate, momentum):
    """A function of one's own, with arithmetic on an argument."""
    return gradtx.chain(gradtx.trace(momentum), gradtx.scale(-learning_rate))


@dataclasses.dataclass(frozen=True)
class Fading:
    """A stateful schedule in Optax's form: 0.1 / (1 + its number of updates)."""

    def init(self) -> Any:
        return {"rate": jnp.asarray(0.1), "updates": jnp.int32(0)}

    def update(self, state: Any, **extra: Any) -> Any:
        return {**state, "updates": state["updates"] + 1}

    def __call__(self, state: Any, **extra: Any) -> Any:
        return state["rate"] / (1 + state["updates"]).astype(state["rate"].dtype)


def _schedules(a: Any, b: Any) -> dict[str, Any]:
    return {"settings": a, "alternative": b, "kind": "schedule"}


SCHEDULES = [
    Entry(
        "constant_schedule",
        **_schedules({"value": 0.1}, {"value": 0.03}),
        reference=references.constant,
    ),
    Entry(
        "linear_schedule",
        **_schedules(
            {"init_value": 0.1, "end_value": 0.01, "transition_steps": 3.4, "transition_begin": 0.7},
            {"init_value": 0.02, "end_value": 0.2, "transition_steps": 7.3, "transition_begin": 1.6},
        ),
        reference=references.linear,
    ),
    Entry(
        "polynomial_schedule",
        **_schedules(
            {"init_value": 0.1, "end_value": 0.01, "power": 2.0, "transition_steps": 3.4},
            {"init_value": 0.2, "end_value": 0.03, "power": 1.5, "transition_steps": 6.2},
        ),
        variants={"begin": {"transition_begin": 1.5}},
        reference=references.polynomial,
    ),
    Entry(
        "cosine_decay_schedule",
        **_schedules(
            {"init_value": 0.1, "decay_steps": 5.5, "alpha": 0.1, "exponent": 1.5},
            {"init_value": 0.2, "decay_steps": 9.5, "alpha": 0.2, "exponent": 2.5},
        ),
        reference=references.cosine_decay,
    ),
    Entry(
        "exponential_decay",
        **_schedules(
            {"init_value": 0.1, "transition_steps": 2.5, "decay_rate": 0.5, "transition_begin": 0.5},
            {"init_value": 0.2, "transition_steps": 3.5, "decay_rate": 0.7, "transition_begin": 0.6},
        ),
        variants={
            "staircase": {"staircase": True},
            "bounded below": {"end_value": 0.06},
            "bounded above": {"decay_rate": 1.5, "end_value": 0.15},
        },
        reference=references.exponential_decay,
        rough=("staircase",),
    ),
    Entry(
        "piecewise_constant_schedule",
        **_schedules(
            {"init_value": 0.1, "boundaries_and_scales": {1.5: 0.5, 2.5: 0.4}},
            {"init_value": 0.2, "boundaries_and_scales": {0.5: 0.3, 3.5: 0.6}},
        ),
        reference=references.piecewise_constant,
    ),
    Entry(
        "warmup_constant_schedule",
        **_schedules(
            {"init_value": 0.01, "peak_value": 0.1, "warmup_steps": 2.5},
            {"init_value": 0.02, "peak_value": 0.2, "warmup_steps": 3.5},
        ),
        reference=references.warmup_constant,
    ),
    Entry(
        "warmup_stable_decay_schedule",
        **_schedules(
            {
                "init_value": 0.01,
                "peak_value": 0.1,
                "warmup_steps": 1.5,
                "decay_begin": 3.5,
                "decay_steps": 5.5,
                "end_value": 0.02,
            },
            {
                "init_value": 0.03,
                "peak_value": 0.2,
                "warmup_steps": 2.5,
                "decay_begin": 4.5,
                "decay_steps": 8.5,
                "end_value": 0.01,
            },
        ),
        variants={
            "root": {"shape": "1-sqrt"},
            "cosine": {"shape": "cosine"},
            "power": {"shape": "power", "power": 1.5},
        },
        reference=modern_references.warmup_stable_decay,
        rough=("is_sqrt", "is_cosine"),
    ),
    Entry(
        "half_life_schedule",
        **_schedules(
            {"init_value": 0.3, "end_value": 0.9, "transition_steps": 3.4, "transition_begin": 0.3},
            {"init_value": 0.5, "end_value": 0.8, "transition_steps": 5.3, "transition_begin": 0.6},
        ),
        reference=modern_references.half_life,
    ),
    Entry(
        "inverse_sqrt_schedule",
        **_schedules({"peak_value": 0.1, "warmup_steps": 2.5}, {"peak_value": 0.2, "warmup_steps": 1.5}),
        reference=modern_references.inverse_sqrt,
    ),
    Entry(
        "warmup_linear_decay_schedule",
        **_schedules(
            {
                "init_value": 0.01,
                "peak_value": 0.1,
                "warmup_steps": 1.5,
                "decay_steps": 5.5,
                "end_value": 0.02,
            },
            {
                "init_value": 0.03,
                "peak_value": 0.2,
                "warmup_steps": 2.5,
                "decay_steps": 8.5,
                "end_value": 0.01,
            },
        ),
        reference=references.warmup_linear_decay,
    ),
    Entry(
        "warmup_cosine_decay_schedule",
        **_schedules(
            {
                "init_value": 0.01,
                "peak_value": 0.1,
                "warmup_steps": 1.5,
                "decay_steps": 5.5,
                "end_value": 0.02,
                "exponent": 1.5,
            },
            {
                "init_value": 0.03,
                "peak_value": 0.2,
                "warmup_steps": 2.5,
                "decay_steps": 8.5,
                "end_value": 0.01,
                "exponent": 2.5,
            },
        ),
        reference=references.warmup_cosine_decay,
    ),
    Entry(
        "piecewise_interpolate_schedule",
        **_schedules(
            {
                "interpolate_type": "linear",
                "init_value": 0.1,
                "boundaries_and_scales": {1.5: 2.0, 4.5: 0.1},
            },
            {
                "interpolate_type": "linear",
                "init_value": 0.2,
                "boundaries_and_scales": {2.5: 0.5, 5.5: 0.4},
            },
        ),
        variants={"cosine": {"interpolate_type": "cosine"}},
        reference=references.piecewise_interpolate,
        rough=("is_cosine",),
    ),
    Entry(
        "linear_onecycle_schedule",
        **_schedules(
            {
                "transition_steps": 9.5,
                "peak_value": 0.2,
                "pct_start": 0.35,
                "pct_final": 0.7,
                "div_factor": 4.0,
                "final_div_factor": 8.0,
            },
            {
                "transition_steps": 14.5,
                "peak_value": 0.1,
                "pct_start": 0.25,
                "pct_final": 0.8,
                "div_factor": 2.0,
                "final_div_factor": 3.0,
            },
        ),
        reference=references.linear_onecycle,
        rough=("pct_start", "pct_final", "transition_steps"),
    ),
    Entry(
        "cosine_onecycle_schedule",
        **_schedules(
            {
                "transition_steps": 9.5,
                "peak_value": 0.2,
                "pct_start": 0.35,
                "div_factor": 4.0,
                "final_div_factor": 8.0,
            },
            {
                "transition_steps": 14.5,
                "peak_value": 0.1,
                "pct_start": 0.25,
                "div_factor": 2.0,
                "final_div_factor": 3.0,
            },
        ),
        reference=references.cosine_onecycle,
        rough=("pct_start", "transition_steps"),
    ),
    Entry(
        "warmup_exponential_decay_schedule",
        **_schedules(
            {
                "init_value": 0.01,
                "peak_value": 0.1,
                "warmup_steps": 1.5,
                "transition_steps": 2.5,
                "decay_rate": 0.5,
                "transition_begin": 0.3,
            },
            {
                "init_value": 0.02,
                "peak_value": 0.2,
                "warmup_steps": 2.5,
                "transition_steps": 3.5,
                "decay_rate": 0.7,
                "transition_begin": 0.6,
            },
        ),
        variants={"staircase": {"staircase": True}, "bounded below": {"end_value": 0.06}},
        reference=references.warmup_exponential_decay,
        rough=("staircase",),
    ),
    Entry(
        "sgdr_schedule",
        **_schedules(
            {
                "cosine_kwargs": [
                    {"init_value": 0.01, "peak_value": 0.1, "warmup_steps": 0.7, "decay_steps": 2.5},
                    {"init_value": 0.01, "peak_value": 0.05, "warmup_steps": 0.4, "decay_steps": 3.5},
                ]
            },
            {
                "cosine_kwargs": [
                    {"init_value": 0.02, "peak_value": 0.2, "warmup_steps": 1.2, "decay_steps": 3.5},
                    {"init_value": 0.03, "peak_value": 0.1, "warmup_steps": 0.6, "decay_steps": 4.5},
                ]
            },
        ),
        reference=references.sgdr,
    ),
    Entry(
        "join_schedules",
        **_schedules(
            {
                "schedules": [
                    gradtx.linear_schedule(0.01, 0.1, 1.7, 0.1),
                    gradtx.cosine_decay_schedule(0.1, 3.5, 0.1, 1.5),
                ],
                "boundaries": [1.5],
            },
            {
                "schedules": [
                    gradtx.linear_schedule(0.02, 0.2, 2.3, 0.2),
                    gradtx.cosine_decay_schedule(0.2, 4.5, 0.2, 2.5),
                ],
                "boundaries": [2.5],
            },
        ),
        reference=lambda schedules, boundaries: references.join(
            [as_reference(s) for s in schedules], boundaries
        ),
    ),
]

FALLING = gradtx.linear_schedule(0.1, 0.01, 3.4, 0.3)
FALLING_ELSE = gradtx.linear_schedule(0.2, 0.03, 5.3, 0.6)


def bowl(params: Any) -> Any:
    """The sum of the squares of all elements, of arrays of any kind."""
    return sum((abs(x) ** 2).sum() for x in jax.tree.leaves(params))


def examples(updates: Any, params: Any) -> Any:
    """The gradients of three examples, of which the given one is the sum of two."""
    return jax.tree.map(lambda g: jnp.stack([2 * g, -g, jnp.zeros_like(g)]), updates)


def searching(search: Any) -> Any:
    """A reference of a line search that is given the gradient of `bowl`, and that of the chain."""
    update = search.update

    def with_gradients(grads: Any, params: Any, **extra: Any) -> Any:
        own = [g.conj() for g in map(references.wide, grads)]
        return update(grads, params, grad=own, grad_fn=lambda at: [2 * x.conj() for x in at], **extra)

    search.update = with_gradients
    return search


SEARCHED = {"value_fn": jax.tree_util.Partial(bowl)}


def quartic(params: Any) -> Any:
    """A loss whose second derivative by an element is its square."""
    return sum((x**4).sum() for x in jax.tree.leaves(params)) / 12


def curvature(grads: Any, params: Any, t: int = 0) -> Any:
    """The second derivatives of `quartic`."""
    return [references.wide(p) ** 2 for p in params]


CURVED = {"obj_fn": jax.tree_util.Partial(quartic)}


def by_axes(path: str, leaf: Any) -> float:
    """A factor of each leaf."""
    return 2.0 if leaf.ndim > 1 else -0.5


def adam_mini_reference(reference: Any) -> Any:
    """The reference of Adam-mini with the blocks that the catalogue gives."""

    def build(blocks: Any = None, **kwargs: Any) -> Any:
        whole = blocks is not None and blocks["*"] is None
        return reference(axes=lambda shape: () if whole or not shape else (len(shape) - 1,), **kwargs)

    return build


TRANSFORMS = [
    Entry("identity"),
    Entry("set_to_zero"),
    Entry("negate", reference=lambda: references.Scale(-1.0)),
    Entry("sign"),
    Entry("square"),
    Entry("sqrt", positive=True),
    Entry("offset", {"value": 0.3}, {"value": -0.7}),
    Entry("debias", {"decay": 0.9}, {"decay": 0.6}),
    Entry("apply_every", {"k": 3}, {"k": 2}, reference=wrapper_references.ApplyEvery, rough=("k",)),
    Entry("scale", {"step_size": -0.1}, {"step_size": 0.4}, {"schedule": {"step_size": FALLING}}),
    Entry("scale_by_schedule", {"step_size_fn": FALLING}, {"step_size_fn": FALLING_ELSE}),
    Entry(
        "scale_by_learning_rate",
        {"learning_rate": 0.1},
        {"learning_rate": 0.03},
        {"schedule": {"learning_rate": FALLING}, "not flipped": {"flip_sign": False}},
    ),
    Entry("clip", {"max_delta": 0.5}, {"max_delta": 0.2}, supports_complex=False),
    Entry("clip_by_global_norm", {"max_norm": 1.0}, {"max_norm": 0.3}, {"wide": {"max_norm": 100.0}}),
    Entry("clip_by_block_rms", {"threshold": 0.5}, {"threshold": 0.2}),
    Entry("add_decayed_weights", {"weight_decay": 0.1}, {"weight_decay": 0.03}),
    Entry(
        "ema",
        {"decay": 0.9},
        {"decay": 0.5},
        {"plain": {"debias": False}},
        layouts={"bfloat16 slot": {"accumulator_dtype": "bfloat16"}},
    ),
    Entry(
        "trace",
        {"decay": 0.9, "dampening": 0.2},
        {"decay": 0.5, "dampening": 0.4},
        {"nesterov": {"nesterov": True}, "first undamped": {"dampen_first": False}},
        layouts={"bfloat16 slot": {"accumulator_dtype": "bfloat16"}},
    ),
    Entry(
        "scale_by_rss",
        {"initial_accumulator_value": 0.1, "eps": 1e-3},
        {"initial_accumulator_value": 0.4, "eps": 1e-2},
        {"outside": {"eps_in_sqrt": False, "initial_accumulator_value": 0.0}},
    ),
    Entry(
        "scale_by_rms",
        {"decay": 0.9, "eps": 1e-3, "initial_scale": 0.2},
        {"decay": 0.5, "eps": 1e-2, "initial_scale": 0.4},
        {
            "outside": {"eps_in_sqrt": False},
            "bias_correction": {"bias_correction": True, "initial_scale": 0.0},
            "first_gradient": {"first_gradient": True},
        },
    ),
    Entry(
        "scale_by_stddev",
        {"decay": 0.9, "eps": 1e-3, "initial_scale": 1.0},
        {"decay": 0.5, "eps": 1e-2, "initial_scale": 2.0},
        {
            "outside": {"eps_in_sqrt": False},
            "bias_correction": {"bias_correction": True, "initial_scale": 0.0},
            "first_gradient": {"first_gradient": True},
        },
    ),
    Entry("scale_by_adadelta", {"rho": 0.9, "eps": 1e-3}, {"rho": 0.6, "eps": 1e-2}),
    Entry(
        "scale_by_adam",
        {"b1": 0.9, "b2": 0.99, "eps": 1e-3, "eps_root": 1e-4},
        {"b1": 0.7, "b2": 0.9, "eps": 1e-2, "eps_root": 1e-3},
        {
            "nesterov": {"nesterov": True},
            "no bias_correction": {"bias_correction": False},
            "eps_scaled": {"eps_scaled": True},
            "decay by schedule": {"b1": gradtx.linear_schedule(0.5, 0.9, 3.4)},
        },
        layouts={"16-bit slots": {"mu_dtype": "bfloat16", "nu_dtype": "float16"}},
    ),
    Entry(
        "scale_by_belief",
        {"b1": 0.9, "b2": 0.99, "eps": 1e-3, "eps_root": 1e-4},
        {"b1": 0.7, "b2": 0.9, "eps": 1e-2, "eps_root": 1e-3},
        {"nesterov": {"nesterov": True}},
        layouts={"16-bit slots": {"mu_dtype": "bfloat16", "nu_dtype": "float16"}},
    ),
    Entry(
        "scale_by_yogi",
        {"b1": 0.9, "b2": 0.99, "eps": 1e-3, "eps_root": 1e-4, "initial_accumulator_value": 1e-2},
        {"b1": 0.7, "b2": 0.9, "eps": 1e-2, "eps_root": 1e-3, "initial_accumulator_value": 1e-1},
    ),
    Entry(
        "scale_by_amsgrad",
        {"b1": 0.9, "b2": 0.99, "eps": 1e-3, "eps_root": 1e-4},
        {"b1": 0.7, "b2": 0.9, "eps": 1e-2, "eps_root": 1e-3},
        {"uncorrected": {"bias_correction_mu": False, "bias_correction_nu": False}},
        layouts={"bfloat16 slot": {"mu_dtype": "bfloat16"}},
    ),
    Entry("scale_by_adamax", {"b1": 0.9, "b2": 0.99, "eps": 1e-3}, {"b1": 0.7, "b2": 0.9, "eps": 1e-2}),
    Entry(
        "scale_by_adan",
        {"b1": 0.98, "b2": 0.92, "b3": 0.99, "eps": 1e-3, "eps_root": 1e-4},
        {"b1": 0.8, "b2": 0.7, "b3": 0.9, "eps": 1e-2, "eps_root": 1e-3},
    ),
    Entry(
        "scale_by_radam",
        {"b1": 0.9, "b2": 0.99, "eps": 1e-3, "eps_root": 1e-4, "threshold": 4.5},
        {"b1": 0.7, "b2": 0.9, "eps": 1e-2, "eps_root": 1e-3, "threshold": 4.2},
        {"nesterov": {"nesterov": True}, "never": {"b2": 0.5}, "torch's eps": {"eps_scaled": True}},
        rough=("threshold",),
    ),
    Entry(
        "scale_by_novograd",
        {"b1": 0.9, "b2": 0.25, "eps": 1e-3, "eps_root": 1e-4, "weight_decay": 0.1},
        {"b1": 0.7, "b2": 0.9, "eps": 1e-2, "eps_root": 1e-3, "weight_decay": 0.03},
        layouts={"bfloat16 slot": {"mu_dtype": "bfloat16"}},
    ),
    Entry(
        "scale_by_rprop",
        {
            "learning_rate": 0.1,
            "eta_minus": 0.5,
            "eta_plus": 1.2,
            "min_step_size": 1e-3,
            "max_step_size": 0.5,
        },
        {
            "learning_rate": 0.2,
            "eta_minus": 0.4,
            "eta_plus": 1.5,
            "min_step_size": 1e-2,
            "max_step_size": 0.7,
        },
        supports_complex=False,
    ),
    Entry(
        "scale_by_sm3",
        {"b1": 0.9, "b2": 0.99, "eps": 1e-3},
        {"b1": 0.7, "b2": 0.9, "eps": 1e-2},
        {"sum": {"b2": 1.0}},
        supports_complex=False,
    ),
    Entry(
        "scale_by_trust_ratio",
        {"min_norm": 0.1, "trust_coefficient": 0.5, "eps": 1e-2},
        {"min_norm": 0.2, "trust_coefficient": 0.3, "eps": 1e-1},
        {"plain": {"min_norm": 0.0, "eps": 0.0}},
    ),
    Entry("scale_by_param_block_norm", {"min_scale": 1e-2}, {"min_scale": 10.0}),
    Entry(
        "scale_by_fromage",
        {"learning_rate": 0.1, "min_norm": 1e-2},
        {"learning_rate": 0.03, "min_norm": 1e-1},
        {"schedule": {"learning_rate": FALLING}},
    ),
    Entry("scale_by_optimistic_gradient", {"alpha": 1.0, "beta": 0.5}, {"alpha": 0.7, "beta": 1.5}),
    Entry("scale_by_sign", reference=references.Sign),
    Entry("centralize"),
    Entry(
        "normalize_by_block_rms",
        {"eps": 1e-3},
        {"eps": 1e-2},
        reference=matrix_references.NormalizeByBlockRms,
    ),
    Entry("normalize", reference=lambda: references.NormalizeByUpdateNorm(1.0, 0.0)),
    Entry(
        "normalize_by_update_norm",
        {"scale_factor": 2.0, "eps": 1e-2},
        {"scale_factor": 0.5, "eps": 1e-1},
    ),
    Entry("keep_params_nonnegative", supports_complex=False),
    Entry("zero_nans"),
    Entry(
        "scale_by_ademamix",
        {"b1": 0.9, "b2": 0.99, "b3": 0.999, "alpha": 5.0, "eps": 1e-3, "eps_root": 1e-4},
        {"b1": 0.7, "b2": 0.9, "b3": 0.95, "alpha": 2.0, "eps": 1e-2, "eps_root": 1e-3},
        {
            "rising": {
                "b3": gradtx.linear_schedule(0.5, 0.99, 3.4),
                "alpha": gradtx.linear_schedule(0.1, 5.0, 3.4),
            }
        },
        layouts={"bfloat16 slots": {"mu_dtype": "bfloat16"}},
    ),
    Entry(
        "scale_by_lion",
        {"b1": 0.9, "b2": 0.99},
        {"b1": 0.6, "b2": 0.7},
        {"smooth": {"mode": "smooth", "smooth_beta": 0.7}, "refined": {"mode": "refined"}},
        reference=modern_references.ScaleByLionMode,
        layouts={"bfloat16 slot": {"mu_dtype": "bfloat16"}},
    ),
    Entry(
        "scale_by_factored_rms",
        {"decay_rate": 0.8, "step_offset": 0, "min_dim_size_to_factor": 2, "epsilon": 1e-3},
        {"decay_rate": 0.6, "step_offset": -2, "min_dim_size_to_factor": 2, "epsilon": 1e-2},
        {
            "whole": {"factored": False},
            "a rate of one's own": {"decay_rate_fn": slower_rate, "step_offset": -1},
        },
        rough=("step_offset",),
    ),
    Entry("scale_by_param_block_rms", {"min_scale": 1e-3}, {"min_scale": 10.0}),
    Entry(
        "scale_by_acprop",
        {"b1": 0.9, "b2": 0.99, "eps": 1e-3, "eps_root": 1e-4},
        {"b1": 0.7, "b2": 0.9, "eps": 1e-2, "eps_root": 1e-3},
    ),
    Entry(
        "scale_by_adopt",
        {"b1": 0.9, "b2": 0.99, "eps": 1e-3, "clip_value_fn": 1.5},
        {"b1": 0.7, "b2": 0.9, "eps": 1e-2, "clip_value_fn": 0.5},
        {"nesterov": {"nesterov": True}},
        layouts={"bfloat16 slot": {"mu_dtype": "bfloat16"}},
    ),
    Entry(
        "scale_by_simplified_ademamix",
        {"b1": 0.9, "b2": 0.95, "alpha": 2.0, "eps": 1e-3},
        {"b1": 0.7, "b2": 0.9, "alpha": 5.0, "eps": 1e-2},
        {
            "inside": {"eps": 0.0, "eps_root": 1e-3},
            "schedule": {"alpha": gradtx.linear_schedule(0.1, 5.0, 3.4)},
        },
    ),
    Entry(
        "scale_by_madgrad",
        {"learning_rate": 0.05, "momentum": 0.9, "eps": 1e-3},
        {"learning_rate": 0.02, "momentum": 0.6, "eps": 1e-2},
    ),
    Entry(
        "scale_by_cocob",
        {"alpha": 10.0, "eps": 1e-2},
        {"alpha": 20.0, "eps": 1e-1},
    ),
    Entry(
        "scale_by_dog",
        {"init_step": "heuristic", "init_value": 1e-2, "eps": 1e-3},
        {"init_step": "heuristic", "init_value": 3e-2, "eps": 1e-2},
        {"distance": {"init_step": "distance"}, "first rate": {"init_step": "learning_rate"}},
        reference=lambda init_step, init_value, eps: references.Chain(
            references.Dog(1.0, (init_step, init_value), eps), references.Scale(-1.0)
        ),
    ),
    Entry(
        "scale_by_dowg",
        {"init_estim_sq_dist": 1e-2, "eps": 1e-3},
        {"init_estim_sq_dist": 3e-2, "eps": 1e-2},
        {"by eps": {"init_estim_sq_dist": None}},
        reference=lambda init_estim_sq_dist, eps: references.Chain(
            references.Dowg(1.0, init_estim_sq_dist, eps), references.Scale(-1.0)
        ),
    ),
    Entry(
        "scale_by_dadapt_adam",
        {"learning_rate": 1.0, "b1": 0.9, "b2": 0.99, "eps": 1e-3, "estim_lr0": 1e-2, "weight_decay": 0.1},
        {"learning_rate": 0.5, "b1": 0.7, "b2": 0.9, "eps": 1e-2, "estim_lr0": 3e-2, "weight_decay": 0.2},
        reference=lambda b1, b2, **rest: references.DadaptAdamw(betas=(b1, b2), **rest),
    ),
    Entry(
        "scale_by_polyak",
        {"f_min": 0.3, "max_learning_rate": 0.2, "eps": 0.1},
        {"f_min": 0.1, "max_learning_rate": 0.3, "eps": 0.2},
        {"without cap": {"variant": "sps+", "max_learning_rate": math.inf}},
        extra={"value": 1.5},
    ),
    Entry(
        "scale_by_prodigy",
        {"learning_rate": 1.0, "b1": 0.9, "b2": 0.99, "eps": 1e-3, "estim_lr0": 1e-2, "weight_decay": 0.1},
        {"learning_rate": 0.5, "b1": 0.7, "b2": 0.9, "eps": 1e-2, "estim_lr0": 3e-2, "weight_decay": 0.2},
        {"b3 and warmup": {"b3": 0.8, "safeguard_warmup": True, "estim_lr_coef": 2.0}},
        reference=lambda b1, b2, b3=None, **rest: references.Prodigy(betas=(b1, b2), beta3=b3, **rest),
    ),
    Entry(
        "qk_clip",
        {"tau": 0.12, "alpha": 0.3},
        {"tau": 0.14, "alpha": 0.6},
        {
            "scheduled": {"tau": gradtx.linear_schedule(0.16, 0.11, 7.3)},
            "by the key": {"sharing": "key"},
        },
        make=lambda **kwargs: gradtx.qk_clip(one_head, **kwargs),
        reference=modern_references.QkClipOfOneHead,
        extra={"max_logits": 0.15},
        loops=True,
    ),
    Entry(
        "add_cautious_decayed_weights",
        {"weight_decay": 0.1},
        {"weight_decay": 0.3},
        reference=modern_references.AddCautiousDecayedWeights,
    ),
    Entry(
        "cautious",
        {"b1": 0.9, "b2": 0.99, "eps": 1e-3},
        {"b1": 0.7, "b2": 0.9, "eps": 1e-2},
        make=lambda **kwargs: gradtx.cautious(gradtx.scale_by_adam(**kwargs)),
        reference=lambda **kwargs: modern_references.Cautious(
            references.ScaleByAdam(**kwargs), descent=False
        ),
    ),
    Entry(
        "grams",
        {"b1": 0.9, "b2": 0.99, "eps": 1e-3},
        {"b1": 0.7, "b2": 0.9, "eps": 1e-2},
        make=lambda **kwargs: gradtx.grams(gradtx.scale_by_adam(**kwargs)),
        reference=lambda **kwargs: modern_references.Grams(references.ScaleByAdam(**kwargs), descent=False),
    ),
    Entry(
        "scale_by_adam_atan2",
        {"b1": 0.9, "b2": 0.99, "a": 1.2, "b": 0.8},
        {"b1": 0.7, "b2": 0.9, "a": 0.9, "b": 1.1},
        reference=modern_references.ScaleByAdamAtan2,
    ),
    Entry(
        "scale_by_hyperball",
        {"learning_rate": 0.1},
        {"learning_rate": 0.03},
        reference=lambda learning_rate: modern_references.Hyperball(references.Identity(), learning_rate),
    ),
    Entry(
        "scale_by_laprop",
        {"b1": 0.9, "b2": 0.99, "eps": 1e-3},
        {"b1": 0.7, "b2": 0.9, "eps": 1e-2},
        reference=modern_references.ScaleByLaprop,
    ),
    Entry(
        "reduce_variance",
        {"b1": 0.9, "gamma": 0.05},
        {"b1": 0.7, "gamma": 0.1},
        reference=modern_references.ReduceVariance,
    ),
    Entry(
        "scale_by_stable_adam",
        {"b1": 0.9, "b2": 0.99, "eps": 1e-3, "threshold": 0.7, "weight_decay": 0.1},
        {"b1": 0.7, "b2": 0.9, "eps": 1e-2, "threshold": 0.9, "weight_decay": 0.2},
        reference=lambda threshold, **rest: references.Chain(
            modern_references.StableAdamw(1.0, clip_threshold=threshold, **rest), references.Scale(-1.0)
        ),
    ),
    Entry(
        "scale_by_came",
        {"b1": 0.9, "b2": 0.99, "b3": 0.95, "eps1": 1e-3, "eps2": 1e-3, "clip_threshold": 0.7},
        {"b1": 0.7, "b2": 0.9, "b3": 0.8, "eps1": 1e-2, "eps2": 1e-2, "clip_threshold": 0.9},
        {"some": {"min_dim_size_to_factor": 3}, "unclipped": {"clip_threshold": math.inf}},
        layouts={"bfloat16 slot": {"mu_dtype": "bfloat16"}},
        reference=modern_references.ScaleByCame,
    ),
    Entry(
        "scale_by_adam_mini",
        {"b1": 0.9, "b2": 0.99, "eps": 1e-3},
        {"b1": 0.7, "b2": 0.9, "eps": 1e-2},
        {"one block": {"blocks": {"*": None}}},
        layouts={"bfloat16 slot": {"mu_dtype": "bfloat16"}},
        reference=adam_mini_reference(modern_references.ScaleByAdamMini),
    ),
    Entry(
        "scale_by_sophia",
        {"b1": 0.9, "b2": 0.95, "eps": 1e-3, "gamma": 0.7, "clip_threshold": 1.5, "update_interval": 3},
        {"b1": 0.7, "b2": 0.9, "eps": 1e-2, "gamma": 0.5, "clip_threshold": 0.9, "update_interval": 2},
        {
            "the paper's": {"estimate_first": True, "bias_correction": False},
            "unclipped": {"clip_threshold": None, "eps": 0.3},
        },
        layouts={"bfloat16 slot": {"mu_dtype": "bfloat16"}},
        supports_complex=False,
        reference=lambda **kwargs: contrib_references.ScaleBySophia(hessian=curvature, **kwargs),
        extra=CURVED,
        loops=True,
        rough=("update_interval",),
    ),
    Entry(
        "hutchinson_estimator_diag_hessian",
        {"step_size": 0.01},
        {"step_size": 0.02},
        make=lambda step_size: gradtx.chain(
            gradtx.hutchinson_estimator_diag_hessian(), gradtx.scale(step_size), gradtx.clip(0.1)
        ),
        supports_complex=False,
        reference=lambda step_size: references.Chain(
            contrib_references.Estimate(curvature), references.Scale(step_size), references.Clip(0.1)
        ),
        extra=CURVED,
        loops=True,
    ),
    Entry(
        "radial_brake",
        {"outward_scale": 0.4, "inward_scale": 0.9},
        {"outward_scale": 0.7, "inward_scale": 1.2},
        reference=modern_references.RadialBrake,
    ),
    Entry(
        "row_floor",
        {"min_ratio": 0.5},
        {"min_ratio": 2.0},
        {"elements": {"axis": ()}},
        reference=modern_references.RowFloor,
    ),
    Entry(
        "scale_by_leaf",
        make=lambda: gradtx.scale_by_leaf(by_axes),
        reference=lambda: modern_references.ScaleByLeaf(lambda x: by_axes("", x)),
    ),
    Entry(
        "adaptive_grad_clip",
        {"clipping": 0.1, "eps": 1e-2},
        {"clipping": 0.2, "eps": 3e-2},
        {"elements": {"axis": ()}},
        reference=contrib_references.AdaptiveGradClip,
    ),
    Entry(
        "reduce_on_plateau",
        {
            "factor": 0.5,
            "patience": 3,
            "rtol": 1e-3,
            "atol": 0.1,
            "cooldown": 2,
            "accumulation_size": 2,
            "min_scale": 0.01,
        },
        {
            "factor": 0.7,
            "patience": 2,
            "rtol": 1e-2,
            "atol": 0.2,
            "cooldown": 1,
            "accumulation_size": 1,
            "min_scale": 0.02,
        },
        reference=lambda **kwargs: contrib_references.ReduceOnPlateau(reduce_at="patience", **kwargs),
        extra={"value": 1.5},
        rough=("patience", "rtol", "atol", "cooldown", "accumulation_size"),
    ),
    Entry(
        "scale_by_distance_over_gradients",
        {"reps_rel": 1e-2, "eps": 1e-3, "global_scale": 0.1},
        {"reps_rel": 3e-2, "eps": 1e-2, "global_scale": 0.2},
        layouts={"wide": {"param_dtype": None}},
        reference=contrib_references.ScaleByDistanceOverGradients,
    ),
    Entry(
        "scale_by_lbfgs",
        {"memory_size": 3},
        {"memory_size": 3},
        {"unscaled": {"scale_init_precond": False}},
        make=lambda **kwargs: gradtx.chain(gradtx.scale_by_lbfgs(**kwargs), gradtx.normalize()),
        reference=lambda **kwargs: references.Chain(
            linesearch_references.ScaleByLbfgs(**kwargs), references.NormalizeByUpdateNorm(1.0, 0.0)
        ),
        loops=True,
    ),
    Entry(
        "scale_by_backtracking_linesearch",
        {
            "max_backtracking_steps": 2,
            "slope_rtol": 1e-3,
            "decrease_factor": 0.5,
            "increase_factor": 4.0,
            "max_learning_rate": 1.0,
            "atol": 0.1,
            "rtol": 0.1,
        },
        {
            "max_backtracking_steps": 1,
            "slope_rtol": 1e-2,
            "decrease_factor": 0.25,
            "increase_factor": 8.0,
            "max_learning_rate": 0.5,
            "atol": 0.2,
            "rtol": 0.2,
        },
        {"stored": {"store_grad": True}},
        reference=lambda **kwargs: searching(linesearch_references.ScaleByBacktrackingLinesearch(**kwargs)),
        # Nowhere is the loss so small, whatever leaves it is of.
        extra={"value": -1e3, **SEARCHED},
        rough=(
            *("max_backtracking_steps", "slope_rtol", "decrease_factor", "increase_factor"),
            *("max_learning_rate", "atol", "rtol"),
        ),
        loops=True,
    ),
    Entry(
        "scale_by_zoom_linesearch",
        {
            "max_linesearch_steps": 3,
            "max_learning_rate": 1.5,
            "tol": 0.1,
            "increase_factor": 2.0,
            "slope_rtol": 1e-3,
            "curv_rtol": 1e6,
            "approx_dec_rtol": 1e-6,
            "stepsize_precision": 1e-5,
        },
        {
            "max_linesearch_steps": 2,
            "max_learning_rate": 0.5,
            "tol": 0.2,
            "increase_factor": 4.0,
            "slope_rtol": 1e-2,
            "curv_rtol": 1e7,
            "approx_dec_rtol": 1e-5,
            "stepsize_precision": 1e-4,
        },
        {"by decrease alone": {"approx_dec_rtol": None, "initial_guess_strategy": "one"}},
        reference=lambda **kwargs: searching(linesearch_references.ScaleByZoomLinesearch(**kwargs)),
        extra={"value": 1e12, **SEARCHED},
        rough=(
            *("max_linesearch_steps", "max_learning_rate", "tol", "increase_factor", "slope_rtol"),
            *("curv_rtol", "approx_dec_rtol", "stepsize_precision"),
        ),
        loops=True,
    ),
    Entry(
        "add_noise",
        {"eta": 0.01, "gamma": 0.55, "key": 3},
        {"eta": 0.05, "gamma": 0.7, "key": 3},
        reference=None,
        no_reference="random: its statistics have a test of their own",
    ),
]

OPTIMIZERS = [
    Entry(
        "sgd",
        {"learning_rate": 0.1, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.1},
        {"learning_rate": 0.03, "momentum": 0.5, "dampening": 0.4, "weight_decay": 0.2},
        {
            "decoupled": {"weight_decay": 0.1, "decay_coupling": "rate"},
            "plain": {"momentum": None, "dampening": 0.0, "weight_decay": None},
            "nesterov": {"nesterov": True},
            "first undamped": {"dampen_first": False},
            "schedule": {"learning_rate": FALLING},
        },
        layouts={"bfloat16 slot": {"accumulator_dtype": "bfloat16"}},
    ),
    Entry(
        "adagrad",
        {"learning_rate": 0.1, "initial_accumulator_value": 0.1, "eps": 1e-3, "weight_decay": 0.1},
        {"learning_rate": 0.03, "initial_accumulator_value": 0.3, "eps": 1e-2, "weight_decay": 0.2},
        {
            "decoupled": {"weight_decay": 0.1, "decay_coupling": "rate"},
            "outside": {"eps_in_sqrt": False, "initial_accumulator_value": 0.0},
        },
    ),
    Entry(
        "rmsprop",
        {"learning_rate": 0.05, "decay": 0.9, "eps": 1e-3, "momentum": 0.8, "weight_decay": 0.1},
        {"learning_rate": 0.02, "decay": 0.6, "eps": 1e-2, "momentum": 0.5, "weight_decay": 0.2},
        {
            "plain": {"momentum": None, "weight_decay": None},
            "outside": {"eps_in_sqrt": False},
            "centered": {"centered": True, "initial_scale": 1.0},
            "nesterov": {"nesterov": True},
            "bias_correction": {"bias_correction": True},
            "first_gradient": {"first_gradient": True},
            "schedule": {"learning_rate": FALLING},
        },
    ),
    Entry(
        "adadelta",
        {"learning_rate": 1.0, "rho": 0.9, "eps": 1e-3, "weight_decay": 0.1},
        {"learning_rate": 0.5, "rho": 0.6, "eps": 1e-2, "weight_decay": 0.2},
        {"no rate": {"learning_rate": None}},
    ),
    Entry(
        "adam",
        {"learning_rate": 0.05, "b1": 0.9, "b2": 0.99, "eps": 1e-3},
        {"learning_rate": 0.02, "b1": 0.7, "b2": 0.9, "eps": 1e-2},
        {
            "coupled decay": {"weight_decay": 0.1},
            "inside": {"eps": 0.0, "eps_root": 1e-3},
            "no bias_correction": {"bias_correction": False},
            "eps_scaled": {"eps_scaled": True},
            "nesterov": {"nesterov": True},
            "schedule": {"learning_rate": FALLING},
        },
        layouts={"16-bit slots": {"mu_dtype": "bfloat16", "nu_dtype": "float16"}},
    ),
    Entry(
        "adamw",
        {"learning_rate": 0.05, "b1": 0.9, "b2": 0.99, "eps": 1e-3, "weight_decay": 0.1},
        {"learning_rate": 0.02, "b1": 0.7, "b2": 0.9, "eps": 1e-2, "weight_decay": 0.3},
        {
            "inside": {"eps": 0.0, "eps_root": 1e-3},
            "no bias_correction": {"bias_correction": False},
            "eps_scaled": {"eps_scaled": True},
            "nesterov": {"nesterov": True},
            "by the rate, scheduled": {"schedule": FALLING},
            "by the schedule": {"decay_coupling": "schedule", "schedule": FALLING},
            "by nothing": {"decay_coupling": "none", "schedule": FALLING},
            "rate by schedule": {"learning_rate": FALLING},
        },
        layouts={"16-bit slots": {"mu_dtype": "bfloat16", "nu_dtype": "float16"}},
    ),
    Entry(
        "nadam",
        {"learning_rate": 0.05, "b1": 0.9, "b2": 0.99, "eps": 1e-3},
        {"learning_rate": 0.02, "b1": 0.7, "b2": 0.9, "eps": 1e-2},
        reference=lambda **kwargs: references.Adam(nesterov=True, **kwargs),
    ),
    Entry(
        "nadamw",
        {"learning_rate": 0.05, "b1": 0.9, "b2": 0.99, "eps": 1e-3, "weight_decay": 0.1},
        {"learning_rate": 0.02, "b1": 0.7, "b2": 0.9, "eps": 1e-2, "weight_decay": 0.3},
        reference=lambda **kwargs: references.Adamw(nesterov=True, **kwargs),
    ),
    Entry(
        "ademamix",
        {"learning_rate": 0.05, "b1": 0.9, "b2": 0.99, "b3": 0.999, "eps": 1e-3, "weight_decay": 0.1},
        {"learning_rate": 0.02, "b1": 0.7, "b2": 0.9, "b3": 0.95, "eps": 1e-2, "weight_decay": 0.3},
        {
            "coupled": {"decay_coupling": "gradient"},
            "inside": {"eps": 0.0, "eps_root": 1e-3},
            "schedule": {"alpha": gradtx.linear_schedule(0.1, 5.0, 3.4)},
        },
        layouts={"bfloat16 slots": {"mu_dtype": "bfloat16"}},
    ),
    Entry(
        "adabelief",
        {"learning_rate": 0.05, "b1": 0.9, "b2": 0.99, "eps": 1e-3, "eps_root": 1e-4},
        {"learning_rate": 0.02, "b1": 0.7, "b2": 0.9, "eps": 1e-2, "eps_root": 1e-3},
        {
            "coupled decay": {"weight_decay": 0.1},
            "by the rate": {"weight_decay": 0.1, "decay_coupling": "rate"},
            "by the schedule": {"weight_decay": 0.1, "decay_coupling": "schedule"},
            "by nothing": {"weight_decay": 0.1, "decay_coupling": "none", "nesterov": True},
        },
        layouts={"16-bit slots": {"mu_dtype": "bfloat16", "nu_dtype": "float16"}},
    ),
    Entry(
        "adamax",
        {"learning_rate": 0.05, "b1": 0.9, "b2": 0.99, "eps": 1e-3},
        {"learning_rate": 0.02, "b1": 0.7, "b2": 0.9, "eps": 1e-2},
        {"coupled decay": {"weight_decay": 0.1}},
    ),
    Entry(
        "adamaxw",
        {"learning_rate": 0.05, "b1": 0.9, "b2": 0.99, "eps": 1e-3, "weight_decay": 0.1},
        {"learning_rate": 0.02, "b1": 0.7, "b2": 0.9, "eps": 1e-2, "weight_decay": 0.3},
    ),
    Entry(
        "adan",
        {"learning_rate": 0.05, "b1": 0.98, "b2": 0.92, "b3": 0.99, "eps": 1e-3, "weight_decay": 0.1},
        {"learning_rate": 0.02, "b1": 0.8, "b2": 0.7, "b3": 0.9, "eps": 1e-2, "weight_decay": 0.3},
    ),
    Entry(
        "amsgrad",
        {"learning_rate": 0.05, "b1": 0.9, "b2": 0.99, "eps": 1e-3},
        {"learning_rate": 0.02, "b1": 0.7, "b2": 0.9, "eps": 1e-2},
        {"coupled decay": {"weight_decay": 0.1}},
        layouts={"bfloat16 slot": {"mu_dtype": "bfloat16"}},
    ),
    Entry(
        "yogi",
        {"learning_rate": 0.05, "b1": 0.9, "b2": 0.99, "eps": 1e-3},
        {"learning_rate": 0.02, "b1": 0.7, "b2": 0.9, "eps": 1e-2},
        {"coupled decay": {"weight_decay": 0.1}},
    ),
    Entry(
        "radam",
        {"learning_rate": 0.05, "b1": 0.9, "b2": 0.99, "eps": 1e-3, "threshold": 4.5},
        {"learning_rate": 0.02, "b1": 0.7, "b2": 0.9, "eps": 1e-2, "threshold": 4.2},
        {"coupled decay": {"weight_decay": 0.1}, "nesterov": {"nesterov": True}},
        rough=("threshold",),
    ),
    Entry(
        "sm3",
        {"learning_rate": 0.05, "momentum": 0.9},
        {"learning_rate": 0.02, "momentum": 0.6},
        {"coupled decay": {"weight_decay": 0.1}},
        supports_complex=False,
        rough=("b2",),  # at 1 the average is a sum
    ),
    Entry(
        "rprop",
        {
            "learning_rate": 0.1,
            "eta_minus": 0.5,
            "eta_plus": 1.2,
            "min_step_size": 1e-3,
            "max_step_size": 0.5,
        },
        {
            "learning_rate": 0.2,
            "eta_minus": 0.4,
            "eta_plus": 1.5,
            "min_step_size": 1e-2,
            "max_step_size": 0.7,
        },
        {"coupled decay": {"weight_decay": 0.1}},
        supports_complex=False,
    ),
    Entry(
        "lars",
        {"learning_rate": 0.1, "weight_decay": 0.1, "trust_coefficient": 0.5, "eps": 1e-2, "momentum": 0.9},
        {"learning_rate": 0.3, "weight_decay": 0.2, "trust_coefficient": 0.2, "eps": 1e-1, "momentum": 0.5},
        {"nesterov": {"nesterov": True}},
    ),
    Entry(
        "lamb",
        {"learning_rate": 0.05, "b1": 0.9, "b2": 0.99, "eps": 1e-3, "weight_decay": 0.1},
        {"learning_rate": 0.02, "b1": 0.7, "b2": 0.9, "eps": 1e-2, "weight_decay": 0.3},
    ),
    Entry(
        "fromage",
        {"learning_rate": 0.1, "min_norm": 1e-2},
        {"learning_rate": 0.03, "min_norm": 1e-1},
        {"schedule": {"learning_rate": FALLING}},
    ),
    Entry(
        "novograd",
        {"learning_rate": 0.05, "b1": 0.9, "b2": 0.25, "eps": 1e-3, "weight_decay": 0.1},
        {"learning_rate": 0.02, "b1": 0.7, "b2": 0.9, "eps": 1e-2, "weight_decay": 0.3},
    ),
    Entry(
        "sign_sgd",
        {"learning_rate": 0.05},
        {"learning_rate": 0.02},
        {"decayed": {"weight_decay": 0.1}},
    ),
    Entry(
        "signum",
        {"learning_rate": 0.05, "beta": 0.9},
        {"learning_rate": 0.02, "beta": 0.6},
        {"decayed": {"weight_decay": 0.1}},
        layouts={"bfloat16 slot": {"accumulator_dtype": "bfloat16"}},
    ),
    Entry(
        "optimistic_gradient_descent",
        {"learning_rate": 0.05, "alpha": 1.0, "beta": 0.5},
        {"learning_rate": 0.02, "alpha": 0.7, "beta": 1.5},
        {"coupled decay": {"weight_decay": 0.1}},
    ),
    Entry(
        "optimistic_adam_v2",
        {"learning_rate": 0.05, "alpha": 1.0, "beta": 0.5, "b1": 0.9, "b2": 0.99, "eps": 1e-3},
        {"learning_rate": 0.02, "alpha": 0.7, "beta": 1.5, "b1": 0.7, "b2": 0.9, "eps": 1e-2},
        {"decayed": {"weight_decay": 0.1}},
        layouts={"bfloat16 slot": {"mu_dtype": "bfloat16"}},
    ),
    Entry(
        "lion",
        {"learning_rate": 0.05, "b1": 0.9, "b2": 0.99, "weight_decay": 0.1},
        {"learning_rate": 0.02, "b1": 0.6, "b2": 0.7, "weight_decay": 0.3},
        {"by nothing": {"decay_coupling": "none"}},
        layouts={"bfloat16 slot": {"mu_dtype": "bfloat16"}},
    ),
    Entry(
        "adafactor",
        {"learning_rate": 0.1, "min_dim_size_to_factor": 2, "decay_rate": 0.8, "eps": 1e-3},
        {"learning_rate": 0.05, "min_dim_size_to_factor": 2, "decay_rate": 0.6, "eps": 1e-2},
        {
            "momentum": {"momentum": 0.9},
            "whole, decayed": {"factored": False, "weight_decay_rate": 0.1},
            "absolute": {"multiply_by_parameter_scale": False, "clipping_threshold": None},
        },
        layouts={"bfloat16 slot": {"momentum": 0.9, "dtype_momentum": "bfloat16"}},
        rough=("decay_offset",),
    ),
    Entry(
        "prodigy",
        {"learning_rate": 1.0, "betas": (0.9, 0.99), "eps": 1e-3, "estim_lr0": 1e-2, "weight_decay": 0.1},
        {"learning_rate": 0.5, "betas": (0.7, 0.9), "eps": 1e-2, "estim_lr0": 3e-2, "weight_decay": 0.2},
        {"beta3 and warmup": {"beta3": 0.8, "safeguard_warmup": True, "estim_lr_coef": 2.0}},
    ),
    Entry(
        "acprop",
        {"learning_rate": 0.05, "b1": 0.9, "b2": 0.99, "eps": 1e-3, "eps_root": 1e-4, "weight_decay": 0.1},
        {"learning_rate": 0.02, "b1": 0.7, "b2": 0.9, "eps": 1e-2, "eps_root": 1e-3, "weight_decay": 0.3},
    ),
    Entry(
        "adopt",
        {"learning_rate": 0.05, "b1": 0.9, "b2": 0.99, "eps": 1e-3},
        {"learning_rate": 0.02, "b1": 0.7, "b2": 0.9, "eps": 1e-2},
        {"nesterov": {"nesterov": True}, "unclipped": {"use_clipping": False}},
        layouts={"bfloat16 slot": {"mu_dtype": "bfloat16"}},
    ),
    Entry(
        "simplified_ademamix",
        {"learning_rate": 0.01, "b1": 0.9, "b2": 0.95, "alpha": 2.0, "eps": 1e-3, "weight_decay": 0.1},
        {"learning_rate": 0.02, "b1": 0.7, "b2": 0.9, "alpha": 5.0, "eps": 1e-2, "weight_decay": 0.3},
    ),
    Entry(
        "madgrad",
        {"learning_rate": 0.05, "momentum": 0.9, "eps": 1e-3},
        {"learning_rate": 0.02, "momentum": 0.6, "eps": 1e-2},
        {"coupled decay": {"weight_decay": 0.1}, "schedule": {"learning_rate": FALLING}},
    ),
    Entry(
        "cocob",
        {"alpha": 10.0, "eps": 1e-2},
        {"alpha": 20.0, "eps": 1e-1},
        {"coupled decay": {"weight_decay": 0.1}},
    ),
    Entry(
        "dog",
        {"learning_rate": 0.5, "init_step": ("heuristic", 1e-2), "eps": 1e-3},
        {"learning_rate": 1.0, "init_step": ("heuristic", 3e-2), "eps": 1e-2},
        {
            "distance": {"init_step": ("distance", 0.1)},
            "first rate": {"init_step": ("learning_rate", 0.1), "weight_decay": 0.1},
        },
    ),
    Entry(
        "dowg",
        {"learning_rate": 0.5, "init_estim_sq_dist": 1e-2, "eps": 1e-3},
        {"learning_rate": 1.0, "init_estim_sq_dist": 3e-2, "eps": 1e-2},
        {"by eps": {"init_estim_sq_dist": None, "weight_decay": 0.1}},
    ),
    Entry(
        "dadapt_adamw",
        {"learning_rate": 1.0, "betas": (0.9, 0.99), "eps": 1e-3, "estim_lr0": 1e-2, "weight_decay": 0.1},
        {"learning_rate": 0.5, "betas": (0.7, 0.9), "eps": 1e-2, "estim_lr0": 3e-2, "weight_decay": 0.2},
    ),
    Entry(
        "lbfgs",
        {"learning_rate": 1.5, "memory_size": 3, "bound": 0.5},
        {"learning_rate": 1.0, "memory_size": 3, "bound": 0.7},
        {"searched": {"steps": 3}},
        # On gradients that know nothing of the parameters the steps grow without a bound.
        make=lambda bound, steps=0, **rest: gradtx.lbfgs(
            linesearch=gradtx.chain(
                gradtx.scale_by_zoom_linesearch(steps, curv_rtol=1e6) if steps else gradtx.identity(),
                gradtx.clip_by_global_norm(bound),
            ),
            **rest,
        ),
        reference=lambda learning_rate, bound, steps=0, **rest: references.Chain(
            linesearch_references.ScaleByLbfgs(**rest),
            references.ScaleByLearningRate(learning_rate),
            searching(linesearch_references.ScaleByZoomLinesearch(steps, curv_rtol=1e6))
            if steps
            else references.Identity(),
            references.ClipByGlobalNorm(bound),
        ),
        extra={"value": 1e12, **SEARCHED},
        loops=True,
    ),
    Entry(
        "adam_atan2",
        {"learning_rate": 0.1, "b1": 0.9, "b2": 0.99, "a": 1.2, "b": 0.8, "weight_decay": 0.1},
        {"learning_rate": 0.03, "b1": 0.7, "b2": 0.9, "a": 0.9, "b": 1.1, "weight_decay": 0.2},
        reference=lambda learning_rate, weight_decay, **rest: references.Chain(
            modern_references.ScaleByAdamAtan2(**rest),
            references.AddDecayedWeights(weight_decay),
            references.ScaleByLearningRate(learning_rate),
        ),
    ),
    Entry(
        "came",
        {
            "learning_rate": 0.1,
            "b1": 0.9,
            "b2": 0.99,
            "b3": 0.95,
            "eps1": 1e-3,
            "eps2": 1e-3,
            "weight_decay": 0.1,
        },
        {
            "learning_rate": 0.03,
            "b1": 0.7,
            "b2": 0.9,
            "b3": 0.8,
            "eps1": 1e-2,
            "eps2": 1e-2,
            "weight_decay": 0.2,
        },
        reference=modern_references.Came,
    ),
    Entry(
        "adam_mini",
        {"learning_rate": 0.1, "b1": 0.9, "b2": 0.99, "eps": 1e-3, "weight_decay": 0.1},
        {"learning_rate": 0.03, "b1": 0.7, "b2": 0.9, "eps": 1e-2, "weight_decay": 0.2},
        {"one block": {"blocks": {"*": None}}},
        reference=adam_mini_reference(modern_references.AdamMini),
    ),
    Entry(
        "sophia",
        {"learning_rate": 0.1, "b1": 0.9, "b2": 0.95, "eps": 1e-3, "gamma": 0.7, "update_interval": 3},
        {"learning_rate": 0.03, "b1": 0.7, "b2": 0.9, "eps": 1e-2, "gamma": 0.5, "update_interval": 2},
        supports_complex=False,
        reference=lambda **kwargs: contrib_references.Sophia(hessian=curvature, **kwargs),
        extra=CURVED,
        loops=True,
        rough=("update_interval",),
    ),
    Entry(
        "laprop",
        {"learning_rate": 0.1, "b1": 0.9, "b2": 0.99, "eps": 1e-3, "weight_decay": 0.1},
        {"learning_rate": 0.03, "b1": 0.7, "b2": 0.9, "eps": 1e-2, "weight_decay": 0.2},
        {"cautious decay": {"decay_coupling": "cautious"}},
        reference=lambda learning_rate, weight_decay, decay_coupling="rate", **rest: references.Chain(
            modern_references.ScaleByLaprop(**rest),
            references.AddDecayedWeights(weight_decay)
            if decay_coupling == "rate"
            else modern_references.AddCautiousDecayedWeights(weight_decay),
            references.ScaleByLearningRate(learning_rate),
        ),
    ),
    Entry(
        "mars",
        {"learning_rate": 0.1, "b1": 0.9, "b2": 0.99, "eps": 1e-3, "gamma": 0.05, "weight_decay": 0.1},
        {"learning_rate": 0.03, "b1": 0.7, "b2": 0.9, "eps": 1e-2, "gamma": 0.1, "weight_decay": 0.2},
        reference=lambda learning_rate, weight_decay, **rest: references.Chain(
            modern_references.ScaleByMars(**rest),
            references.AddDecayedWeights(weight_decay),
            references.ScaleByLearningRate(learning_rate),
        ),
    ),
    Entry(
        "stable_adamw",
        {"learning_rate": 0.1, "b1": 0.9, "b2": 0.99, "eps": 1e-3, "threshold": 0.7, "weight_decay": 0.1},
        {"learning_rate": 0.03, "b1": 0.7, "b2": 0.9, "eps": 1e-2, "threshold": 0.9, "weight_decay": 0.2},
        reference=lambda threshold, **rest: modern_references.StableAdamw(clip_threshold=threshold, **rest),
    ),
    Entry(
        "schedule_free_sgd",
        {"learning_rate": 0.1, "b1": 0.8, "weight_decay": 0.1, "weight_lr_power": 1.5},
        {"learning_rate": 0.03, "b1": 0.6, "weight_decay": 0.2, "weight_lr_power": 1.0},
        {"warmup": {"warmup_steps": 9.5}},
        reference=contrib_references.ScheduleFreeSgd,
    ),
    Entry(
        "schedule_free_adamw",
        {
            "learning_rate": 0.1,
            "b1": 0.8,
            "b2": 0.99,
            "eps": 1e-3,
            "weight_decay": 0.1,
            "weight_lr_power": 1.5,
        },
        {
            "learning_rate": 0.03,
            "b1": 0.6,
            "b2": 0.9,
            "eps": 1e-2,
            "weight_decay": 0.2,
            "weight_lr_power": 1.0,
        },
        {"warmup": {"warmup_steps": 9.5}},
        reference=contrib_references.ScheduleFreeAdamw,
    ),
    Entry(
        "dpsgd",
        {"learning_rate": 0.1, "l2_norm_clip": 1.0, "noise_multiplier": 0.5, "seed": 3, "momentum": 0.9},
        {"learning_rate": 0.03, "l2_norm_clip": 2.0, "noise_multiplier": 0.7, "seed": 3, "momentum": 0.6},
        make=lambda seed=3, **kwargs: gradtx.chain(
            gradtx.stateless(examples), gradtx.dpsgd(seed=seed, **kwargs)
        ),
        reference=None,
        no_reference="random: without noise it has a test of its own",
    ),
    Entry(
        "polyak_sgd",
        {"max_learning_rate": 0.2, "scaling": 0.5, "f_min": 0.3, "eps": 0.1},
        {"max_learning_rate": 0.3, "scaling": 0.7, "f_min": 0.1, "eps": 0.2},
        {"without cap": {"variant": "sps+", "max_learning_rate": math.inf}},
        extra={"value": 1.5},
    ),
    Entry(
        "momo",
        {"learning_rate": 0.2, "beta": 0.9, "lower_bound": 0.1, "weight_decay": 0.1},
        {"learning_rate": 0.3, "beta": 0.7, "lower_bound": 0.2, "weight_decay": 0.2},
        {"adapted": {"adapt_lower_bound": True, "learning_rate": 0.05}},
        extra={"value": 1.5},
    ),
    Entry(
        "momo_adam",
        {"learning_rate": 0.05, "b1": 0.9, "b2": 0.99, "eps": 1e-3, "lower_bound": 0.1, "weight_decay": 0.1},
        {"learning_rate": 0.02, "b1": 0.7, "b2": 0.9, "eps": 1e-2, "lower_bound": 0.2, "weight_decay": 0.2},
        {"adapted": {"adapt_lower_bound": True}},
        extra={"value": 1.5},
    ),
    Entry(
        "noisy_sgd",
        {"learning_rate": 0.1, "eta": 0.01, "gamma": 0.55, "key": 3},
        {"learning_rate": 0.03, "eta": 0.05, "gamma": 0.7, "key": 3},
        reference=None,
        no_reference="random: its statistics have a test of their own",
    ),
]
OPTIMIZERS = [dataclasses.replace(e, kind="optimizer") for e in OPTIMIZERS]

COMBINATORS = [
    Entry(
        "chain",
        {"max_norm": 1.0, "learning_rate": 0.1, "momentum": 0.9},
        {"max_norm": 0.5, "learning_rate": 0.03, "momentum": 0.4},
        make=lambda max_norm, **rest: gradtx.chain(
            gradtx.clip_by_global_norm(max_norm), gradtx.chain(gradtx.sgd(**rest)), gradtx.scale(0.5)
        ),
        reference=lambda max_norm, **rest: references.Chain(
            references.ClipByGlobalNorm(max_norm), references.Sgd(**rest), references.Scale(0.5)
        ),
    ),
    Entry(
        "named_chain",
        {"decay": 0.9, "step_size": -0.1},
        {"decay": 0.6, "step_size": 0.3},
        make=lambda decay, step_size: gradtx.named_chain(
            ("average", gradtx.ema(decay)), ("step", gradtx.scale(step_size))
        ),
        reference=lambda decay, step_size: references.Chain(
            references.Ema(decay), references.Scale(step_size)
        ),
    ),
    Entry(
        "masked",
        {"decay": 0.9, "nesterov": True},
        {"decay": 0.5, "nesterov": True},
        {"zero": {"outside": "zero"}},
        make=lambda outside="pass", **rest: gradtx.masked(gradtx.trace(**rest), has_axes, outside=outside),
        reference=lambda outside="pass", **rest: OnLeavesWithAxes(references.Trace(**rest), outside=outside),
    ),
    Entry(
        "ratio",
        {"b1": 0.9, "b2": 0.99, "eps": 1e-3},
        {"b1": 0.6, "b2": 0.9, "eps": 1e-2},
        make=lambda b1, b2, eps: gradtx.ratio(
            gradtx.chain(gradtx.ema(b1, debias=False), gradtx.debias(b1)),
            gradtx.chain(gradtx.square(), gradtx.ema(b2), gradtx.sqrt(), gradtx.offset(eps)),
        ),
        reference=references.ScaleByAdam,
    ),
    Entry(
        "add",
        {"decay": 0.9, "step_size": -0.3},
        {"decay": 0.5, "step_size": 0.2},
        make=lambda decay, step_size: gradtx.add(
            gradtx.trace(decay), gradtx.chain(gradtx.sign(), gradtx.scale(step_size)), gradtx.identity()
        ),
        reference=lambda decay, step_size: references.Sum(
            references.Trace(decay),
            references.Chain(references.Sign(), references.Scale(step_size)),
            references.Identity(),
        ),
    ),
]
COMBINATORS = [dataclasses.replace(e, kind="combinator") for e in COMBINATORS]

WRAPPERS = [
    Entry(
        "accumulate",
        {"learning_rate": 0.1, "momentum": 0.9, "every": 2},
        {"learning_rate": 0.03, "momentum": 0.4, "every": 1},
        {"scheduled": {"every": gradtx.piecewise_constant_schedule(1, {2: 3})}},
        make=lambda every, **rest: gradtx.accumulate(gradtx.sgd(**rest), every),
        reference=lambda every, **rest: wrapper_references.Accumulate(references.Sgd(**rest), every),
        rough=("every",),
    ),
    Entry(
        "differentially_private_aggregate",
        {"l2_norm_clip": 1.0, "noise_multiplier": 0.5, "key": 3},
        {"l2_norm_clip": 2.0, "noise_multiplier": 0.7, "key": 3},
        make=lambda **kwargs: gradtx.chain(
            gradtx.stateless(examples), gradtx.differentially_private_aggregate(**kwargs)
        ),
        reference=None,
        no_reference="random: without noise it has a test of its own",
    ),
    Entry(
        "store",
        {"learning_rate": 0.1, "b2": 0.99},
        {"learning_rate": 0.03, "b2": 0.9},
        {"at random": {"mean_squares": "bfloat16_stochastic"}},
        make=lambda means="int8", mean_squares="uint8", **rest: gradtx.store(
            gradtx.adam(**rest), min_size=0, means=means, mean_squares=mean_squares
        ),
        reference=None,
        no_reference="what it keeps is rounded: each format has a reference of its own",
    ),
    Entry(
        "precise_params",
        {"learning_rate": 0.1, "b2": 0.99},
        {"learning_rate": 0.03, "b2": 0.9},
        {"a copy": {"how": "master"}},
        make=lambda how="kahan", **rest: gradtx.precise_params(gradtx.adam(**rest), how),
        reference=lambda how="kahan", **rest: references.Adam(**rest),
    ),
    Entry(
        "precision",
        {"learning_rate": 0.1, "b2": 0.99},
        {"learning_rate": 0.03, "b2": 0.9},
        make=lambda **rest: gradtx.precision(gradtx.adam(**rest), "8bit", min_size=0),
        reference=None,
        no_reference="what it keeps is rounded: each format has a reference of its own",
    ),
    Entry(
        "mechanize",
        {"weight_decay": 0.1, "eps": 1e-3, "s_init": 1e-2},
        {"weight_decay": 0.2, "eps": 1e-2, "s_init": 3e-2},
        {"three tuners": {"num_betas": 3}},
        make=lambda **kwargs: gradtx.mechanize(gradtx.sgd(0.1), **kwargs),
        reference=lambda **kwargs: contrib_references.Mechanize(
            references.Sgd(0.1), keep_delta=True, **kwargs
        ),
    ),
    Entry(
        "sam",
        {"learning_rate": 0.1, "rho": 0.05},
        {"learning_rate": 0.03, "rho": 0.1},
        {"three calls": {"sync_period": 3, "reset_state": False}},
        make=lambda learning_rate, rho, **rest: gradtx.sam(
            gradtx.sgd(learning_rate, 0.9), gradtx.chain(gradtx.normalize(), gradtx.sgd(rho)), **rest
        ),
        reference=lambda learning_rate, rho, **rest: contrib_references.Sam(
            references.Sgd(learning_rate, momentum=0.9),
            references.Chain(references.NormalizeByUpdateNorm(1.0, 0.0), references.Sgd(rho)),
            **rest,
        ),
    ),
    Entry(
        "schedule_free",
        {"learning_rate": 0.1, "b1": 0.8, "weight_lr_power": 1.5},
        {"learning_rate": 0.03, "b1": 0.6, "weight_lr_power": 1.0},
        {"warmup": {"warmup_steps": 9.5}},
        make=lambda learning_rate, **rest: gradtx.schedule_free(
            gradtx.sgd(learning_rate, weight_decay=0.1), learning_rate, **rest
        ),
        reference=lambda **kwargs: contrib_references.ScheduleFreeSgd(weight_decay=0.1, **kwargs),
    ),
    Entry(
        "ema_nesterov",
        {"learning_rate": 0.1, "momentum": 0.9, "beta": 0.5, "gamma": 0.8},
        {"learning_rate": 0.03, "momentum": 0.4, "beta": 0.3, "gamma": 0.6},
        {"scheduled": {"beta": FALLING}},
        make=lambda beta, gamma, **rest: gradtx.ema_nesterov(gradtx.sgd(**rest), beta, gamma),
        # The reference's k-th beta is that of the k-th gradient, which the update before has left.
        reference=lambda beta, gamma, **rest: modern_references.EmaNesterov(
            references.Sgd(**rest), (lambda k: beta(max(k - 1, 0))) if callable(beta) else beta, gamma
        ),
    ),
    Entry(
        "split_real_and_imaginary",
        {"learning_rate": 0.1, "b1": 0.9, "b2": 0.99, "eps": 1e-3},
        {"learning_rate": 0.03, "b1": 0.7, "b2": 0.9, "eps": 1e-2},
        make=lambda **kwargs: gradtx.split_real_and_imaginary(gradtx.adam(**kwargs)),
        reference=lambda **kwargs: contrib_references.SplitRealAndImaginary(references.Adam(**kwargs)),
    ),
    Entry(
        "MultiSteps",
        {"learning_rate": 0.1, "momentum": 0.9, "every": 2},
        {"learning_rate": 0.03, "momentum": 0.4, "every": 1},
        {"sum": {"use_grad_mean": False}, "skips": {"should_skip_update_fn": too_large}},
        make=lambda every, learning_rate, momentum, **rest: gradtx.MultiSteps(
            gradtx.sgd(learning_rate, momentum), every, **rest
        ),
        reference=lambda every, learning_rate, momentum, **rest: wrapper_references.Accumulate(
            references.Sgd(learning_rate, momentum=momentum), every, **rest
        ),
        rough=("every",),
    ),
    Entry(
        "track",
        {"max_norm": 1.0, "learning_rate": 0.1, "momentum": 0.9, "every": 2},
        {"max_norm": 0.5, "learning_rate": 0.03, "momentum": 0.4, "every": 1},
        {"groups": {"groups": {"with axes": has_axes}}},
        make=lambda max_norm, every, groups=None, **rest: gradtx.track(
            gradtx.chain(gradtx.clip_by_global_norm(max_norm), gradtx.sgd(**rest)), every=every, groups=groups
        ),
        reference=lambda max_norm, every, groups=None, **rest: references.Chain(
            references.ClipByGlobalNorm(max_norm), references.Sgd(**rest)
        ),
        rough=("every",),
    ),
    Entry(
        "guard",
        {"learning_rate": 0.1, "deviations": 2.0, "decay": 0.7, "warmup": 2.5, "patience": 3},
        {"learning_rate": 0.03, "deviations": 3.0, "decay": 0.6, "warmup": 1.5, "patience": 1},
        {"unwatched": {"deviations": None}, "updates": {"updates": True}},
        make=lambda learning_rate, **rest: gradtx.guard(
            gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(learning_rate, 0.9)), **rest
        ),
        reference=lambda learning_rate, **rest: wrapper_references.Guard(
            references.Chain(references.ClipByGlobalNorm(1.0), references.Sgd(learning_rate, momentum=0.9)),
            **rest,
        ),
    ),
    Entry(
        "apply_if_finite",
        {"learning_rate": 0.1, "momentum": 0.9, "max_consecutive_errors": 2},
        {"learning_rate": 0.03, "momentum": 0.4, "max_consecutive_errors": 1},
        make=lambda max_consecutive_errors, **rest: gradtx.apply_if_finite(
            gradtx.sgd(**rest), max_consecutive_errors
        ),
        reference=lambda max_consecutive_errors, **rest: wrapper_references.ApplyIfFinite(
            references.Sgd(**rest), max_consecutive_errors
        ),
    ),
    Entry(
        "conditionally_transform",
        {"decay": 0.9},
        {"decay": 0.4},
        make=lambda **rest: gradtx.conditionally_transform(gradtx.trace(**rest), at_even_steps),
        reference=lambda **rest: wrapper_references.Conditional(
            references.Trace(**rest), at_even_steps, passes=True
        ),
    ),
    Entry(
        "conditionally_mask",
        {"learning_rate": 0.1, "momentum": 0.9},
        {"learning_rate": 0.03, "momentum": 0.4},
        make=lambda **rest: gradtx.conditionally_mask(gradtx.sgd(**rest), at_even_steps),
        reference=lambda **rest: wrapper_references.Conditional(
            references.Sgd(**rest), at_even_steps, passes=False
        ),
    ),
    Entry(
        "partition",
        {"learning_rate": 0.1, "momentum": 0.9, "max_norm": 0.5, "step_size": -0.3},
        {"learning_rate": 0.03, "momentum": 0.4, "max_norm": 1.5, "step_size": -0.2},
        {"nested": {"nested": True}},
        make=lambda learning_rate, momentum, max_norm, step_size, nested=False: groups_of_ranks(
            gradtx.partition,
            gradtx.sgd(learning_rate, momentum),
            gradtx.chain(gradtx.clip_by_global_norm(max_norm), gradtx.scale(step_size)),
            gradtx.set_to_zero(),
            nested,
        ),
        reference=lambda learning_rate, momentum, max_norm, step_size, nested=False: groups_of_ranks(
            wrapper_references.Partition,
            references.Sgd(learning_rate, momentum),
            references.Chain(references.ClipByGlobalNorm(max_norm), references.Scale(step_size)),
            references.SetToZero(),
            nested,
        ),
    ),
    Entry(
        "multi_transform",
        {"decay": 0.9},
        {"decay": 0.4},
        make=lambda decay: gradtx.multi_transform(
            {"axes": gradtx.trace(decay), "none": gradtx.set_to_zero()}, axes_or_none
        ),
        reference=lambda decay: wrapper_references.Partition(
            {"axes": references.Trace(decay), "none": references.SetToZero()}, axes_or_none
        ),
    ),
    Entry(
        "freeze",
        make=lambda: gradtx.freeze(has_axes),
        reference=lambda: OnLeavesWithAxes(references.SetToZero()),
    ),
    Entry(
        "selective_transform",
        {"decay": 0.9},
        {"decay": 0.4},
        make=lambda decay: gradtx.selective_transform(gradtx.trace(decay), freeze_mask=has_no_axes),
        reference=lambda decay: OnLeavesWithAxes(references.Trace(decay), outside="zero"),
    ),
    Entry(
        "scale_by_group",
        {"axes": -0.3, "none": 2.0},
        {"axes": 0.1, "none": 0.5},
        {"scheduled": {"axes": gradtx.linear_schedule(0.1, 1.0, 3.4)}},
        make=lambda **factors: gradtx.scale_by_group(factors, axes_or_none),
        reference=lambda **factors: wrapper_references.Partition(
            {label: references.ScaleBySchedule(f) for label, f in factors.items()}, axes_or_none
        ),
    ),
    Entry(
        "ema_params",
        {"learning_rate": 0.1, "momentum": 0.9, "decay": 0.9},
        {"learning_rate": 0.03, "momentum": 0.4, "decay": 0.6},
        {"warmed up": {"decay": gradtx.linear_schedule(0.0, 0.9, 3.4)}},
        layouts={"float32 slot": {"accumulator_dtype": "float32"}},
        make=lambda decay, accumulator_dtype=None, **rest: gradtx.ema_params(
            gradtx.sgd(**rest), decay, accumulator_dtype=accumulator_dtype
        ),
        reference=lambda decay, **rest: wrapper_references.EmaParams(references.Sgd(**rest), decay),
    ),
    Entry(
        "polyak_average",
        {"learning_rate": 0.1, "momentum": 0.9, "start": 1},
        {"learning_rate": 0.03, "momentum": 0.4, "start": 0},
        layouts={"float32 slot": {"accumulator_dtype": "float32"}},
        make=lambda start, accumulator_dtype=None, **rest: gradtx.polyak_average(
            gradtx.sgd(**rest), start, accumulator_dtype=accumulator_dtype
        ),
        reference=lambda start, **rest: wrapper_references.PolyakAverage(references.Sgd(**rest), start),
    ),
    Entry(
        "lookahead",
        {"learning_rate": 0.1, "momentum": 0.9, "sync_period": 2, "slow_step_size": 0.5},
        {"learning_rate": 0.03, "momentum": 0.4, "sync_period": 1, "slow_step_size": 0.7},
        {
            "restarted": {"reset_state": True},
            "scheduled": {
                "sync_period": gradtx.piecewise_constant_schedule(2, {2: 2}),
                "slow_step_size": gradtx.linear_schedule(0.9, 0.1, 3.4),
            },
        },
        make=lambda sync_period, slow_step_size, reset_state=False, **rest: gradtx.lookahead(
            gradtx.sgd(**rest), sync_period, slow_step_size, reset_state
        ),
        reference=lambda sync_period, slow_step_size, reset_state=False, **rest: wrapper_references.Lookahead(
            references.Sgd(**rest), sync_period, slow_step_size, reset_state
        ),
        rough=("sync_period",),
    ),
    Entry(
        "flatten",
        {"learning_rate": 0.1, "b1": 0.9, "b2": 0.99, "eps": 1e-3, "weight_decay": 0.1},
        {"learning_rate": 0.03, "b1": 0.6, "b2": 0.9, "eps": 1e-2, "weight_decay": 0.2},
        make=lambda **kwargs: gradtx.flatten(
            gradtx.chain(gradtx.clip_by_global_norm(2.0), gradtx.adamw(**kwargs))
        ),
        reference=lambda **kwargs: references.Chain(
            references.ClipByGlobalNorm(2.0), references.Adamw(**kwargs)
        ),
    ),
    Entry(
        "by_matrix",
        {"learning_rate": 0.1, "decay_rate": 0.8, "epsilon": 1e-3},
        {"learning_rate": 0.03, "decay_rate": 0.6, "epsilon": 1e-2},
        {"a batch": {"batch": True}, "scheduled": {"learning_rate": FALLING}},
        make=lambda learning_rate, batch=False, **rest: gradtx.by_matrix(
            gradtx.chain(
                gradtx.scale_by_factored_rms(min_dim_size_to_factor=2, **rest),
                gradtx.scale_by_hyperball(learning_rate),
            ),
            as_matrices if batch else in_blocks,
        ),
        reference=lambda learning_rate, batch=False, **rest: wrapper_references.ByMatrix(
            modern_references.Hyperball(
                references.ScaleByFactoredRms(min_dim_size_to_factor=2, **rest), learning_rate
            ),
            batch,
        ),
        loops=True,
    ),
    Entry(
        "scale_by_galore",
        {"rank": 2, "update_proj_gap": 3, "scale": 0.5},
        {"rank": 2, "update_proj_gap": 2, "scale": 0.3},
        {
            "one direction": {"rank": 1, "base_optimizer": gradtx.trace(0.9)},
            "std": {"rank": 1, "proj_type": "std"},
            "reverse_std": {"rank": 1, "proj_type": "reverse_std"},
            "right": {"proj_type": "right"},
            "left": {"proj_type": "left", "rank": 9},
            # The first gradient is diagonal there, but for rounding, which a small eps would magnify.
            "full": {"proj_type": "full", "base_optimizer": gradtx.scale_by_adam(eps=1e-2)},
            "scheduled": {
                "update_proj_gap": gradtx.piecewise_constant_schedule(2, {5: 2}),
                "scale": FALLING,
            },
            "uncorrected": {"base_optimizer": gradtx.scale_by_adam(eps=1e-3, eps_scaled=True)},
        },
        {"bfloat16 slot": {"projector_dtype": "bfloat16"}},
        # Not all of this is in Optax, whose state of a form is asked for otherwise.
        make=lambda **kwargs: gradtx.scale_by_galore(**kwargs),
        reference=wrapper_references.ScaleByGalore,
        rough=("update_proj_gap",),
        loops=True,
    ),
    Entry(
        "inject_hyperparams",
        {"learning_rate": 0.1, "momentum": 0.9},
        {"learning_rate": 0.03, "momentum": 0.4},
        make=gradtx.inject_hyperparams(descending),
        reference=references.Sgd,
    ),
    Entry(
        "inject_stateful_hyperparams",
        {"momentum": 0.9},
        {"momentum": 0.4},
        make=lambda **kwargs: gradtx.inject_stateful_hyperparams(gradtx.sgd)(
            learning_rate=Fading(), **kwargs
        ),
        reference=lambda **kwargs: references.Sgd(lambda step: 0.1 / (1 + step), **kwargs),
    ),
    Entry(
        "measure_with_ema",
        {"decay": 0.9},
        {"decay": 0.4},
        {"biased": {"debias": False}},
        {"stored": {"accumulator_dtype": "float32"}},
        make=lambda **kwargs: gradtx.measure_with_ema(gradtx.global_norm, **kwargs),
        reference=lambda **kwargs: references.Identity(),
    ),
    Entry(
        "monitor",
        {"decay": 0.9, "momentum": 0.8},
        {"decay": 0.4, "momentum": 0.3},
        make=lambda decay, momentum: gradtx.monitor(
            {
                "norm": gradtx.global_norm,
                "average": gradtx.measure_with_ema(gradtx.global_norm, decay),
                "velocity": gradtx.trace(momentum),
            }
        ),
        reference=lambda **kwargs: references.Identity(),
    ),
    Entry(
        "snapshot",
        {"measure_name": "norm", "measure": gradtx.global_norm},
        {"measure_name": "norm", "measure": gradtx.global_norm},
        reference=lambda **kwargs: references.Identity(),
    ),
    Entry(
        "stateless",
        {"f": doubled_tree},
        {"f": doubled_tree},
        reference=lambda f: references.Scale(2.0),
    ),
    Entry(
        "stateless_with_tree_map",
        {"f": doubled},
        {"f": doubled},
        reference=lambda f: references.Scale(2.0),
    ),
    Entry(
        "with_extra_args_support",
        {"learning_rate": 0.1, "momentum": 0.9},
        {"learning_rate": 0.03, "momentum": 0.4},
        make=lambda **kwargs: gradtx.with_extra_args_support(gradtx.sgd(**kwargs)),
        reference=references.Sgd,
    ),
]
WRAPPERS = [dataclasses.replace(e, kind="wrapper") for e in WRAPPERS]

MATRIX_RULES = [
    Entry(
        "orthogonalize",
        {"eps": 1e-3},
        {"eps": 1e-2},
        {
            "named": {"ns_coeffs": "polar_express", "scaling": "moonlight"},
            "aol": {"preconditioning": "aol", "consistent_rms": 0.2},
            "converging": {"ns_coeffs": (2.0, -1.5, 0.5), "ns_steps": 9, "scaling": "dion", "gram": True},
        },
        make=lambda **kwargs: gradtx.masked(gradtx.orthogonalize(views=as_matrices, **kwargs), is_matrix),
        reference=matrix_references.Orthogonalize,
        loops=True,
    ),
    Entry(
        "scale_by_muon",
        {"beta": 0.9, "eps": 1e-3},
        {"beta": 0.7, "eps": 1e-2},
        {
            "adaptive": {"adaptive": True, "nesterov": False},
            "uncorrected": {"bias_correction": False, "scaling": "jordan", "preconditioning": "schatten"},
        },
        {"gram": {"gram": True}, "16-bit": {"mu_dtype": "bfloat16"}},
        make=lambda **kwargs: gradtx.masked(
            gradtx.scale_by_muon(weight_dimension_numbers=as_matrices, **kwargs), is_matrix
        ),
        reference=matrix_references.ScaleByMuon,
        loops=True,
    ),
    Entry(
        "scale_by_normuon",
        {"beta": 0.9, "b2": 0.8, "eps": 1e-3, "bias_correction": True},
        {"beta": 0.7, "b2": 0.6, "eps": 1e-2, "bias_correction": True},
        {"by momentum": {"nesterov": False, "ns_coeffs": "dion", "bias_correction": False}},
        make=lambda **kwargs: gradtx.masked(gradtx.scale_by_normuon(views=as_matrices, **kwargs), is_matrix),
        reference=matrix_references.ScaleByNormuon,
        loops=True,
    ),
    Entry(
        "scale_by_soap",
        {"b1": 0.9, "b2": 0.8, "shampoo_beta": 0.7, "eps": 1e-3, "precondition_frequency": 3},
        {"b1": 0.7, "b2": 0.7, "shampoo_beta": 0.6, "eps": 1e-2, "precondition_frequency": 2},
        {"uncorrected": {"bias_correction": False}},
        make=lambda **kwargs: gradtx.masked(gradtx.scale_by_soap(views=as_matrices, **kwargs), is_matrix),
        rough=("one_minus_shampoo_beta", "precondition_frequency"),
        reference=matrix_references.ScaleBySoap,
        loops=True,
    ),
    Entry(
        "normuon",
        {"learning_rate": 0.1, "weight_decay": 0.1, "beta": 0.9, "b2": 0.8, "eps": 1e-3, "adam_eps": 1e-3},
        {"learning_rate": 0.03, "weight_decay": 0.2, "beta": 0.7, "b2": 0.6, "eps": 1e-2, "adam_eps": 1e-2},
        make=lambda **kwargs: gradtx.normuon(views=as_matrices, **kwargs),
        reference=matrix_references.Normuon,
        kind="optimizer",
        loops=True,
    ),
    Entry(
        "soap",
        {
            "learning_rate": 0.1,
            "weight_decay": 0.1,
            "b1": 0.9,
            "b2": 0.8,
            "eps": 1e-3,
            "precondition_frequency": 3,
        },
        {
            "learning_rate": 0.03,
            "weight_decay": 0.2,
            "b1": 0.7,
            "b2": 0.6,
            "eps": 1e-2,
            "precondition_frequency": 2,
        },
        make=lambda **kwargs: gradtx.soap(views=as_matrices, **kwargs),
        rough=("one_minus_shampoo_beta", "precondition_frequency"),
        reference=matrix_references.Soap,
        kind="optimizer",
        loops=True,
    ),
    Entry(
        "galore",
        {"learning_rate": 0.1, "rank": 2, "update_proj_gap": 3, "scale": 0.5, "weight_decay": 0.1},
        {"learning_rate": 0.03, "rank": 2, "update_proj_gap": 2, "scale": 0.3, "weight_decay": 0.2},
        reference=wrapper_references.Galore,
        kind="optimizer",
        rough=("update_proj_gap",),
        loops=True,
    ),
    Entry(
        "muon",
        {"learning_rate": 0.1, "eps": 1e-3, "weight_decay": 0.1, "beta": 0.9, "adam_b1": 0.8, "adam_b2": 0.9},
        {
            "learning_rate": 0.03,
            "eps": 1e-2,
            "weight_decay": 0.2,
            "beta": 0.7,
            "adam_b1": 0.7,
            "adam_b2": 0.8,
        },
        {
            "moonlight": {"convention": "moonlight", "adam_learning_rate": 0.05, "adam_weight_decay": 0.1},
            "dion": {"convention": "dion", "ns_coeffs": "dion", "nesterov": False},
        },
        make=lambda **kwargs: gradtx.muon(muon_weight_dimension_numbers=as_matrices, **kwargs),
        reference=matrix_references.Muon,
        kind="optimizer",
        loops=True,
    ),
    Entry(
        "scale_by_matrix_size",
        {"size": "fan_in"},
        {"size": "fan_in"},
        {"both sides": {"size": "mean_side"}},
        make=lambda **kwargs: gradtx.masked(
            gradtx.scale_by_matrix_size(views=as_matrices, **kwargs), is_matrix
        ),
        reference=matrix_references.ScaleByMatrixSize,
    ),
    Entry(
        "scale_by_adamuon",
        {"beta": 0.9, "eps": 1e-3, "nu_eps": 1e-3},
        {"beta": 0.7, "eps": 1e-2, "nu_eps": 1e-2},
        {"by momentum": {"nesterov": False, "ns_coeffs": "dion"}},
        make=lambda **kwargs: gradtx.masked(gradtx.scale_by_adamuon(views=as_matrices, **kwargs), is_matrix),
        reference=matrix_references.ScaleByAdamuon,
        loops=True,
    ),
    Entry(
        "scale_by_dion2",
        {"fraction": 0.5, "ef_decay": 0.9, "eps": 1e-3},
        {"fraction": 0.5, "ef_decay": 0.6, "eps": 1e-2},
        {"one": {"fraction": 0.1, "scaling": "moonlight", "ns_coeffs": "dion"}},
        make=lambda **kwargs: gradtx.masked(gradtx.scale_by_dion2(views=as_matrices, **kwargs), is_matrix),
        reference=matrix_references.ScaleByDion2,
        loops=True,
    ),
    Entry(
        "scale_by_shampoo",
        {
            "b1": 0.9,
            "b2": 0.8,
            "eps": 1e-3,
            "precondition_frequency": 2,
            "graft_beta": 0.8,
            "graft_eps": 1e-3,
        },
        {
            "b1": 0.7,
            "b2": 0.6,
            "eps": 1e-2,
            "precondition_frequency": 1,
            "graft_beta": 0.7,
            "graft_eps": 1e-2,
        },
        {
            "sums in blocks": {
                "b2": None,
                "block_size": 3,
                "grafting": None,
                "start_preconditioning_step": 5,
            },
            "newton": {"root": "newton", "grafting": "rmsprop", "exponent": 0.5},
            "as SGD": {"grafting": "sgd", "bias_correction": False},
            "as AdaGrad": {"grafting": "adagrad", "exponent": 0.3},
        },
        make=lambda **kwargs: gradtx.masked(gradtx.scale_by_shampoo(views=as_matrices, **kwargs), is_matrix),
        reference=preconditioner_references.ScaleByShampoo,
        rough=("precondition_frequency",),
        loops=True,
    ),
    Entry(
        "scale_by_dion",
        {"rank_fraction": 0.5, "beta": 0.9, "eps": 1e-3},
        {"rank_fraction": 0.5, "beta": 0.7, "eps": 1e-2},
        {"full": {"rank_fraction": 1.0, "rank_multiple_of": 2, "power_iters": 2}},
        make=lambda **kwargs: gradtx.masked(gradtx.scale_by_dion(views=as_matrices, **kwargs), is_matrix),
        reference=None,
        no_reference="random: with a Q that is not, it follows one in test_matrices, and its authors' code",
        loops=True,
    ),
    Entry(
        "scale_by_contra_muon",
        {"beta": 0.9, "contra": 0.3, "eps": 1e-3},
        {"beta": 0.7, "contra": 0.5, "eps": 1e-2},
        {"by momentum": {"nesterov": False, "ns_coeffs": "dion", "scaling": "moonlight"}},
        make=lambda **kwargs: gradtx.masked(
            gradtx.scale_by_contra_muon(views=as_matrices, **kwargs), is_matrix
        ),
        reference=kin_of_muon_references.ScaleByContraMuon,
        loops=True,
    ),
    Entry(
        "scale_by_aurora",
        {"beta": 0.9, "balancing_power": 0.4, "eps": 1e-3},
        {"beta": 0.7, "balancing_power": 0.3, "eps": 1e-2},
        {"by momentum": {"nesterov": False, "ns_coeffs": "dion", "balancing_steps": 3}},
        make=lambda **kwargs: gradtx.masked(gradtx.scale_by_aurora(views=as_matrices, **kwargs), is_matrix),
        reference=kin_of_muon_references.ScaleByAurora,
        loops=True,
    ),
    Entry(
        "scale_by_soap_muon",
        {
            "beta": 0.9,
            "b2": 0.8,
            "shampoo_beta": 0.7,
            "eps": 1e-6,
            "nu_eps": 1e-3,
            "precondition_frequency": 3,
        },
        {
            "beta": 0.7,
            "b2": 0.7,
            "shampoo_beta": 0.6,
            "eps": 1e-5,
            "nu_eps": 1e-2,
            "precondition_frequency": 2,
        },
        {"by momentum": {"nesterov": False, "preconditioning": "frobenius", "scaling": "moonlight"}},
        make=lambda **kwargs: gradtx.masked(
            gradtx.scale_by_soap_muon(views=as_matrices, **kwargs), is_matrix
        ),
        reference=kin_of_muon_references.ScaleBySoapMuon,
        rough=("one_minus_shampoo_beta", "precondition_frequency"),
        loops=True,
    ),
    Entry(
        "scale_by_muown",
        {"learning_rate": 0.1, "beta": 0.9, "gain_eps": 1e-3, "eps": 1e-3, "weight_decay": 0.1},
        {"learning_rate": 0.03, "beta": 0.7, "gain_eps": 1e-2, "eps": 1e-2, "weight_decay": 0.2},
        {"without decay": {"weight_decay": 0.0, "nesterov": False, "ns_coeffs": "dion"}},
        make=lambda **kwargs: gradtx.masked(gradtx.scale_by_muown(views=as_matrices, **kwargs), is_matrix),
        reference=kin_of_muon_references.ScaleByMuown,
        loops=True,
    ),
    Entry(
        "dion",
        {"learning_rate": 0.1, "rank_fraction": 0.5, "weight_decay": 0.1, "beta": 0.9, "adam_eps": 1e-3},
        {"learning_rate": 0.03, "rank_fraction": 0.5, "weight_decay": 0.2, "beta": 0.7, "adam_eps": 1e-2},
        make=lambda **kwargs: gradtx.dion(views=as_matrices, **kwargs),
        reference=None,
        no_reference="random: with a Q that is not, it follows one in test_matrices, and its authors' code",
        kind="optimizer",
        loops=True,
    ),
    Entry(
        "contra_muon",
        {
            "learning_rate": 0.1,
            "weight_decay": 0.1,
            "beta": 0.9,
            "contra": 0.3,
            "eps": 1e-3,
            "adam_eps": 1e-3,
        },
        {
            "learning_rate": 0.03,
            "weight_decay": 0.2,
            "beta": 0.7,
            "contra": 0.5,
            "eps": 1e-2,
            "adam_eps": 1e-2,
        },
        make=lambda **kwargs: gradtx.contra_muon(views=as_matrices, **kwargs),
        reference=kin_of_muon_references.ContraMuon,
        kind="optimizer",
        loops=True,
    ),
    Entry(
        "aurora",
        {"learning_rate": 0.1, "weight_decay": 0.1, "beta": 0.9, "eps": 1e-3, "adam_eps": 1e-3},
        {"learning_rate": 0.03, "weight_decay": 0.2, "beta": 0.7, "eps": 1e-2, "adam_eps": 1e-2},
        make=lambda **kwargs: gradtx.aurora(views=as_matrices, **kwargs),
        reference=kin_of_muon_references.Aurora,
        kind="optimizer",
        loops=True,
    ),
    Entry(
        "soap_muon",
        {
            "learning_rate": 0.1,
            "weight_decay": 0.1,
            "beta": 0.9,
            "b2": 0.8,
            "nu_eps": 1e-3,
            "adam_eps": 1e-3,
            "precondition_frequency": 3,
        },
        {
            "learning_rate": 0.03,
            "weight_decay": 0.2,
            "beta": 0.7,
            "b2": 0.6,
            "nu_eps": 1e-2,
            "adam_eps": 1e-2,
            "precondition_frequency": 2,
        },
        make=lambda **kwargs: gradtx.soap_muon(views=as_matrices, **kwargs),
        reference=kin_of_muon_references.SoapMuon,
        rough=("one_minus_shampoo_beta", "precondition_frequency"),
        kind="optimizer",
        loops=True,
    ),
    Entry(
        "muown",
        {
            "learning_rate": 0.1,
            "beta": 0.9,
            "gain_eps": 1e-3,
            "eps": 1e-3,
            "adam_eps": 1e-3,
            "weight_decay": 0.1,
        },
        {
            "learning_rate": 0.03,
            "beta": 0.7,
            "gain_eps": 1e-2,
            "eps": 1e-2,
            "adam_eps": 1e-2,
            "weight_decay": 0.2,
        },
        make=lambda **kwargs: gradtx.muown(views=as_matrices, **kwargs),
        reference=kin_of_muon_references.Muown,
        kind="optimizer",
        loops=True,
    ),
    Entry(
        "scale_by_kron",
        {
            "b1": 0.9,
            "preconditioner_update_probability": 0.5,
            "preconditioner_lr": 0.1,
            "preconditioner_init_scale": 0.5,
        },
        {
            "b1": 0.7,
            "preconditioner_update_probability": 1.0,
            "preconditioner_lr": 0.2,
            "preconditioner_init_scale": 2.0,
        },
        {"diagonal": {"memory_save_mode": "all_diag"}},
        {"16-bit": {"mu_dtype": "bfloat16"}},
        make=lambda **kwargs: gradtx.masked(gradtx.scale_by_kron(views=as_matrices, **kwargs), is_matrix),
        reference=None,
        no_reference="random: with the noise of its authors it follows their code, in test_matrices",
        rough=("preconditioner_update_probability",),
        loops=True,
    ),
    Entry(
        "scale_by_kl_soap",
        {
            "b1": 0.9,
            "b2": 0.8,
            "shampoo_beta": 0.7,
            "eps": 1e-3,
            "precondition_frequency": 3,
            "init_factor": 0.2,
        },
        {
            "b1": 0.7,
            "b2": 0.7,
            "shampoo_beta": 0.6,
            "eps": 1e-2,
            "precondition_frequency": 2,
            "init_factor": 0.4,
        },
        make=lambda **kwargs: gradtx.masked(gradtx.scale_by_kl_soap(views=as_matrices, **kwargs), is_matrix),
        reference=preconditioner_references.ScaleByKlSoap,
        rough=("one_minus_shampoo_beta", "precondition_frequency"),
        loops=True,
    ),
    Entry(
        "scale_by_splus",
        {"b1": 0.9, "b2": 0.8, "eps": 1e-6, "inverse_every": 2},
        {"b1": 0.7, "b2": 0.6, "eps": 1e-5, "inverse_every": 3},
        make=lambda **kwargs: gradtx.masked(gradtx.scale_by_splus(views=as_matrices, **kwargs), is_matrix),
        reference=preconditioner_references.ScaleBySplus,
        rough=("one_minus_b2", "eps", "inverse_every"),
        loops=True,
    ),
    Entry(
        "adamuon",
        {
            "learning_rate": 0.1,
            "weight_decay": 0.1,
            "beta": 0.9,
            "eps": 1e-3,
            "nu_eps": 1e-3,
            "adam_eps": 1e-3,
        },
        {
            "learning_rate": 0.03,
            "weight_decay": 0.2,
            "beta": 0.7,
            "eps": 1e-2,
            "nu_eps": 1e-2,
            "adam_eps": 1e-2,
        },
        make=lambda **kwargs: gradtx.adamuon(views=as_matrices, **kwargs),
        reference=matrix_references.Adamuon,
        kind="optimizer",
        loops=True,
    ),
    Entry(
        "dion2",
        {"learning_rate": 0.1, "weight_decay": 0.1, "fraction": 0.5, "ef_decay": 0.9, "adam_eps": 1e-3},
        {"learning_rate": 0.03, "weight_decay": 0.2, "fraction": 0.5, "ef_decay": 0.6, "adam_eps": 1e-2},
        make=lambda **kwargs: gradtx.dion2(views=as_matrices, **kwargs),
        reference=matrix_references.Dion2,
        kind="optimizer",
        loops=True,
    ),
    Entry(
        "scion",
        {"learning_rate": 0.1, "b1": 0.9, "radius": 2.0, "rest_radius": 0.5, "eps": 1e-3},
        {"learning_rate": 0.03, "b1": 0.7, "radius": 3.0, "rest_radius": 1.0, "eps": 1e-2},
        {"unconstrained": {"weight_decay": 0.0}},
        make=lambda **kwargs: gradtx.scion(views=as_matrices, **kwargs),
        reference=matrix_references.Scion,
        kind="optimizer",
        loops=True,
    ),
    Entry(
        "shampoo",
        {
            "learning_rate": 0.1,
            "weight_decay": 0.1,
            "b1": 0.9,
            "b2": 0.8,
            "eps": 1e-3,
            "precondition_frequency": 2,
            "graft_eps": 1e-3,
            "adam_eps": 1e-3,
        },
        {
            "learning_rate": 0.03,
            "weight_decay": 0.2,
            "b1": 0.7,
            "b2": 0.6,
            "eps": 1e-2,
            "precondition_frequency": 1,
            "graft_eps": 1e-2,
            "adam_eps": 1e-2,
        },
        make=lambda **kwargs: gradtx.shampoo(views=as_matrices, **kwargs),
        reference=preconditioner_references.Shampoo,
        kind="optimizer",
        rough=("precondition_frequency",),
        loops=True,
    ),
    Entry(
        "kron",
        {
            "learning_rate": 0.1,
            "weight_decay": 0.1,
            "b1": 0.9,
            "preconditioner_update_probability": 0.5,
            "adam_eps": 1e-3,
        },
        {
            "learning_rate": 0.03,
            "weight_decay": 0.2,
            "b1": 0.7,
            "preconditioner_update_probability": 1.0,
            "adam_eps": 1e-2,
        },
        make=lambda **kwargs: gradtx.kron(views=as_matrices, **kwargs),
        reference=None,
        no_reference="random: with the noise of its authors it follows their code, in test_matrices",
        kind="optimizer",
        rough=("preconditioner_update_probability",),
        loops=True,
    ),
    Entry(
        "kl_soap",
        {
            "learning_rate": 0.1,
            "weight_decay": 0.1,
            "b1": 0.9,
            "b2": 0.8,
            "eps": 1e-3,
            "precondition_frequency": 3,
        },
        {
            "learning_rate": 0.03,
            "weight_decay": 0.2,
            "b1": 0.7,
            "b2": 0.6,
            "eps": 1e-2,
            "precondition_frequency": 2,
        },
        make=lambda **kwargs: gradtx.kl_soap(views=as_matrices, **kwargs),
        reference=preconditioner_references.KlSoap,
        rough=("one_minus_shampoo_beta", "precondition_frequency"),
        kind="optimizer",
        loops=True,
    ),
    Entry(
        "splus",
        {"learning_rate": 0.1, "weight_decay": 0.1, "b1": 0.9, "b2": 0.8, "eps": 1e-6, "inverse_every": 2},
        {"learning_rate": 0.03, "weight_decay": 0.2, "b1": 0.7, "b2": 0.6, "eps": 1e-5, "inverse_every": 3},
        make=lambda **kwargs: gradtx.splus(views=as_matrices, **kwargs),
        reference=preconditioner_references.Splus,
        rough=("one_minus_b2", "eps", "inverse_every"),
        kind="optimizer",
        loops=True,
    ),
]
"""Rules of matrices, which what is no matrix passes by."""

ALIASES = {
    "MultiSteps",
    "apply_if_finite",
    "conditionally_mask",
    "freeze",
    "multi_transform",
    "nadam",
    "nadamw",
    "negate",
    "scale_by_schedule",
    "scale_by_sign",
    "selective_transform",
    "stateless_with_tree_map",
    "with_extra_args_support",
}
"""Entries whose code is another one's, which meets the other dtypes and trees for both in a plain run."""

ENTRIES = {e.name: e for e in [*TRANSFORMS, *OPTIMIZERS, *COMBINATORS, *WRAPPERS, *MATRIX_RULES, *SCHEDULES]}


def forms(*, layouts: bool = False, brief: bool = False) -> list[Any]:
    """Every entry in each of its forms, as the parameters `entry` and `variant` of a test.

    A brief test has only the settings of what is no alias in a plain run.
    """
    return [
        pytest.param(entry, variant, id=f"{entry.name}-{variant}".removesuffix("-"), marks=marks)
        for entry in ENTRIES.values()
        for variant in ["", *entry.variants, *(entry.layouts if layouts else ())]
        for marks in [pytest.mark.full if brief and (variant or entry.name in ALIASES) else ()]
    ]
