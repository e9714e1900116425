"""Rules: a per-leaf concept as one small class.

The hyperparameters are the fields, the slots are declared, and `apply` states the arithmetic on one array.
Everything else (trees, dtypes, `None`, masks, the step, storage, errors) is the engine's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.engine.composed import Composed
from gradtx.core.engine.leaves import positional
from gradtx.core.engine.placement import Size
from gradtx.core.engine.program import Builder
from gradtx.core.engine.scope import RESERVED, Leaf, Now, Scope, Slots
from gradtx.core.engine.steps import ROWS
from gradtx.core.numbers.states import CLOCK, EVAL, holds_state, is_foreign
from gradtx.core.numerics import number_dtype
from gradtx.core.spec.fields import Declared


@dataclasses.dataclass(frozen=True)
class Slot:
    """What a rule remembers for each leaf, by default zeros like the leaf in at least float32.

    Attributes:
        real: real also for a complex leaf.
        dtype: the field that names the dtype to store it in; or `dtype(rule, dtype)`, the dtype for a leaf of
            the given one.
        init: `init(rule, param)`, the initial value: a number or an array of the slot's shape.
        shape: `shape(rule, shape)`, the slot's shape for a leaf of the given shape, or None for no slot.
        shapes: `shapes(rule, params)`, the same for each leaf, where it depends on the whole tree.
        mean: whether it is an average of what comes in, which follows it and forgets what came before.
        nonnegative: whether it is never below 0, as a mean of squares is.

    `init` and `shape` may take the path of the leaf, as in `"layer/kernel"`, as their third argument.
    """

    real: bool = False
    dtype: str | Callable[..., Any] | None = None
    init: Callable[..., Any] | None = None
    shape: Callable[..., tuple[int, ...] | None] | None = None
    shapes: Callable[[Any, Any], Sequence[tuple[int, ...] | None]] | None = None
    mean: bool = False
    nonnegative: bool = False
    is_of_matrices: ClassVar[bool] = False

    def declared_dtype(self, rule: Any, dtype: Any = None) -> Any:
        """The dtype that the rule says it is stored in, None where it says none."""
        if callable(self.dtype):
            return self.dtype(rule, dtype)
        return getattr(rule, self.dtype) if self.dtype else None

    @property
    def is_like_leaf(self) -> bool:
        """Whether each leaf has one of its own shape."""
        return self.shape is None and self.shapes is None

    def first_value(self, rule: Any, param: Any, path: str) -> Any:
        """The initial value for a parameter."""
        return 0.0 if self.init is None else _told(self.init, rule, param, path)

    def shapes_for(self, rule: Any, params: Any) -> Callable[[int, Any, str], tuple[int, ...] | None]:
        """A function that gives the shape for a leaf of a tree: of its position, itself and its path."""
        known = None if self.shapes is None else self.shapes(rule, params)

        def shape_for(i: int, x: Any, path: str) -> tuple[int, ...] | None:
            if known is not None:
                return known[i]
            shape = jnp.shape(x)
            return shape if self.shape is None else _told(self.shape, rule, Size.of(shape), path)

        return shape_for


def _told(function: Callable[..., Any], rule: Any, x: Any, path: str) -> Any:
    """What a slot's function gives for a leaf, of whose path it is told if it asks."""
    return function(rule, x, path) if positional(function) == 3 else function(rule, x)


@dataclasses.dataclass(frozen=True)
class WholeScalar:
    """A number that a rule remembers once for the whole tree; `init(rule)` gives its first value."""

    init: Callable[[Any], Any] = lambda rule: 0.0
    dtype: str | None = None
    is_key: ClassVar[bool] = False

    def initial(self, rule: Any, params: Any) -> jax.Array:
        """The first value, as it is stored: in the dtype of hyperparameters unless it has another."""
        value, dtype = self.init(rule), self.dtype or number_dtype()
        if isinstance(value, int | float):
            # Not converted by JAX: infinity is no fault here, and `jax.debug_infs` would take it for one.
            return jax.device_put(np.array(value, dtype))
        return jnp.array(value, dtype, copy=True)


@dataclasses.dataclass(frozen=True)
class Key:
    """A random key that a rule keeps; `init(rule)` gives it.

    `leaf.key` is one of its own for each step and leaf. The state holds its raw data, which any checkpointer
    takes.
    """

    init: Callable[[Any], jax.Array]
    is_key: ClassVar[bool] = True

    def initial(self, rule: Any, params: Any) -> jax.Array:
        """The raw data of the key."""
        return jnp.array(jax.random.key_data(self.init(rule)), copy=True)


@dataclasses.dataclass(frozen=True)
class Whole:
    """A tree of small arrays that a wrapper remembers once for the whole tree.

    `init(wrapper, params)` gives its first value, from the parameters that the wrapper works on.
    """

    init: Callable[[Any, Any], Any]
    is_key: ClassVar[bool] = False

    def initial(self, rule: Any, params: Any) -> Any:
        """The first value, strongly typed; abstract arrays may stay as they are."""

        def strong(x: Any) -> Any:
            return x if isinstance(x, jax.ShapeDtypeStruct) else jnp.array(x, jnp.result_type(x))

        return jax.tree.map(strong, self.init(rule, params))


class Slotted(Declared, Composed):
    """A transform with declared fields and slots: a rule or a wrapper."""

    needs: ClassVar[tuple[str, ...]] = ()  # pyright: ignore[reportIncompatibleMethodOverride]
    """What `update` must be given: `"params"`, or the names of keyword arguments."""

    per_example: ClassVar[bool] = False
    """Whether, as the first of a chain, it takes gradients with the examples along axis 0, and gives none."""

    last: ClassVar[bool] = False
    """Whether it remembers `param + update`, as an average of the parameters does, or changes them.

    That is right only if nothing changes the update afterwards, so `init` refuses it anywhere but at the end.
    """

    supports_complex: ClassVar[bool] = True
    """Whether the formula has a meaning for complex leaves."""

    is_of_matrices: ClassVar[bool] = False
    """Whether it works on the matrices that a leaf consists of."""

    knows_shards: ClassVar[bool] = False
    """Whether what it makes of a shard inside `jax.shard_map` is right, where the engine cannot see that.

    An example is a kernel of one's own that works on each element by itself.
    """

    slots: ClassVar[dict[str, Slot]] = {}
    leaf_slots: ClassVar[tuple[str, ...]] = ()
    matrix_slots: ClassVar[tuple[str, ...]] = ()
    scalars: ClassVar[dict[str, WholeScalar | Key | Whole]] = {}

    def __init_subclass__(cls, name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(name=name, **kwargs)
        own = vars(cls)
        cls.slots = {**cls.slots, **{k: v for k, v in own.items() if isinstance(v, Slot)}}
        cls.leaf_slots = tuple(k for k, slot in cls.slots.items() if not slot.is_of_matrices)
        cls.matrix_slots = tuple(k for k, slot in cls.slots.items() if slot.is_of_matrices)
        cls.scalars = {
            **cls.scalars,
            **{k: v for k, v in own.items() if isinstance(v, WholeScalar | Key | Whole)},
        }
        cls._check_names()

    @classmethod
    def _check_names(cls) -> None:
        """Raises where a slot has a name that means something else to those who read a state."""
        if is_foreign(cls.name):
            raise TypeError(
                f"{cls.__name__}: {cls.name!r} is what another library's transform is called in a state. "
                f"Choose another name."
            )
        if (EVAL in cls.slots and not cls.last) or EVAL in cls.scalars:
            raise TypeError(
                f"{cls.__name__}: a slot {EVAL!r} is what gradtx.eval_params returns, an average of the new "
                f"parameters. Set `last = True` where it is one, or give the slot another name."
            )
        if CLOCK in cls.slots or (CLOCK in cls.scalars and not cls.whole):
            raise TypeError(
                f"{cls.__name__}: {CLOCK!r} is the scalar of a wrapper that its schedules run by. Give the "
                f"slot another name."
            )
        if cls.is_of_matrices and ROWS in {*cls.slots, *cls.scalars}:
            raise TypeError(
                f"{cls.__name__}: under {ROWS!r} the state says which matrices are those of which leaf. Give "
                f"the slot another name."
            )
        for name in {*RESERVED} & {*cls.scalars}:
            raise TypeError(
                f"{cls.__name__}: a rule sees something else as {name!r} in `now` or `leaf`. Give the scalar "
                f"another name."
            )
        for name in filter(holds_state, (*cls.slots, *cls.scalars)):
            raise TypeError(
                f"{cls.__name__}: {name!r} is the name of the state of a wrapped transform. Give the slot "
                f"another name."
            )

    def _visit(self, builder: Builder) -> None:
        builder.add_declared(self)


class Rule(Slotted):
    """A per-leaf transform.

    A subclass gives its name, its fields, its slots, and `apply`; the others when it needs them. For each
    update the engine calls, in this order:

    1. `prepare(now)`, once: scalars from the step (`now.step` from 0, `now.t` from 1), from keyword
       arguments (`now.extra`) and from whole-tree scalars (`now.<name>`).
    2. `measure(g, slots, leaf)` for each leaf, if defined: real scalars, which are summed over the tree, and
       over shards along the mesh axes that a field `axis_name` names.
    3. `conclude(totals, now)`, once, if `measure` is defined: more scalars, from the sums.
    4. `apply(g, slots, leaf)` for each leaf: the new update and the new slots.

    `leaf` has `param`, `key`, and each scalar that `prepare` and `conclude` returned, as attributes. A
    returned scalar with the name of a `WholeScalar` is also remembered. Arrays come in the compute dtype.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> class Soften(gradtx.Rule, name="soften"):
        ...     '''u = g / (1 + |g| / bound)'''
        ...
        ...     bound: gradtx.Positive
        ...
        ...     def apply(self, g, slots, leaf):
        ...         return g / (1 + abs(g) / self.bound), slots
        >>> tx = gradtx.chain(Soften(bound=1.0), gradtx.sgd(1.0))
        >>> tx
        chain(Soften(bound=1.0), sgd(1.0))
        >>> tx.update(jnp.ones(2), tx.init(jnp.ones(2)))[0].tolist()
        [-0.5, -0.5]
    """

    gives_real: ClassVar[bool] = False
    """Whether the update is real for a complex leaf, as a squared magnitude is."""

    takes_any_leaf: ClassVar[bool] = False
    """Whether a leaf that has no gradient, such as an integer, is no error but left as it is."""

    measures_norm: ClassVar[bool] = False
    """Whether it measures the norm of the updates in place of `measure`: `conclude` gets `totals.squares`.

    A wrapper that has measured it already hands it on.
    """

    reports: ClassVar[Mapping[str, Callable[[Mapping[str, Any]], jax.Array]]] = {}
    """What `track` shows of it: by name, whether something happened, from the scalars that it concluded."""

    measures: ClassVar[bool] = False
    has_key: ClassVar[bool] = False

    def __init_subclass__(cls, name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(name=name, **kwargs)
        cls.measures = cls.measures_norm or cls.measure is not Rule.measure
        cls.has_key = any(s.is_key for s in cls.scalars.values())

    def prepare(self, now: Now) -> dict[str, Any]:
        """Scalars of this update, computed once."""
        return {}

    def measure(self, g: jax.Array, slots: Slots, leaf: Leaf) -> dict[str, jax.Array]:
        """Real scalars of one leaf, to be summed over the tree."""
        raise NotImplementedError

    def conclude(self, totals: Scope, now: Now) -> dict[str, Any]:
        """Scalars that follow from the sums."""
        return {}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        """The update of one leaf, and its new slots by name."""
        raise NotImplementedError
