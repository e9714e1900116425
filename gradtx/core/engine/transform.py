"""The contract: a transform has `init` and `update`, and parameters move by its updates."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, TypeVar

import jax
import jax.numpy as jnp

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.foreign_state import foreign_state
from gradtx.core.engine.protocol import (
    AnyTransform,
    OptState,
    Params,
    TransformInitFn,
    TransformUpdateExtraArgsFn,
    Updates,
)
from gradtx.core.numbers.states import FOREIGN, TRANSFORM
from gradtx.core.numerics import cast, compute_dtype, is_complex
from gradtx.core.spec.spec import Spec, maker, show

PyTree = Any

T = TypeVar("T")


@dataclasses.dataclass
class Shared:
    """What a wrapper and the transform that it runs tell each other.

    Attributes:
        squares: the sum of |g|² of each gradient, None where it is not known.
        concluded: what the transform's measuring rules concluded from the whole tree, by rule.
    """

    squares: list[Any]
    concluded: list[tuple[Any, dict[str, Any]]] = dataclasses.field(default_factory=list)


class Call(NamedTuple):
    """What one update is asked for: with `apply` the new parameters, and otherwise the updates."""

    grads: PyTree
    state: PyTree
    params: PyTree
    extra: dict[str, Any]
    shared: Shared | None
    apply: bool


class Transform(Spec):
    """A gradient transformation: a pure `(init, update)` pair.

    `state = tx.init(params)`, then `updates, state = tx.update(grads, state, params, **extra)`. It unpacks
    into its two functions: `init, update = tx`.

    Every transform of gradtx is one. `Transform(init, update)`, or `GradientTransformation(init, update)`,
    makes one of two functions `init(params)` and `update(updates, state, params, **extra)`. It hands `update`
    the keyword arguments that this takes, and requires of whoever calls it those without a default.

    Examples:
        >>> import gradtx, jax, jax.numpy as jnp
        >>> halve = gradtx.GradientTransformation(
        ...     init=lambda params: gradtx.EmptyState(),
        ...     update=lambda updates, state, params=None: (jax.tree.map(lambda u: u / 2, updates), state),
        ... )
        >>> tx = gradtx.chain(halve, gradtx.sgd(1.0))
        >>> float(tx.update(jnp.float32(1.0), tx.init(jnp.float32(0.0)))[0])
        -0.5
        >>> isinstance(tx, gradtx.GradientTransformation)
        True

    A class that you derive from it may set attributes of its own, in `__new__`, `__init__` or
    later, as long as the transform has not been used under `jit`.
    """

    is_outermost: ClassVar[bool] = False
    """Whether nothing may be around it."""

    is_users: ClassVar[bool] = False
    """Whether the class is one that a user derived from this one, and not from a rule or a wrapper."""

    if TYPE_CHECKING:  # At runtime the annotations of a spec are its fields.
        init_fn: Callable[..., Any]
        update_fn: Callable[..., Any]
        _repr_html_: ClassVar[Callable[[Any], str]]  # What a notebook shows; gradtx/__init__.py puts it in.

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if Transform in cls.__bases__ and cls.__module__.partition(".")[0] != "gradtx":
            cls.is_users = True

    def __setattr__(self, name: str, value: Any) -> None:
        if not self.is_users:
            super().__setattr__(name, value)
        if hasattr(Transform, name) or name in ("init_fn", "update_fn"):
            raise AttributeError(
                f"{type(self).__name__}: {name!r} is what gradtx.GradientTransformation has under this name "
                f"itself. Give the attribute another name; for other functions call _replace(init=, update=)."
            )
        if "_hash" in self.__dict__:
            raise AttributeError(
                f"{type(self).__name__}: {name!r} cannot be set any more, since the transform has been used: "
                f"what was compiled for it would go on with the old value. Build a new one."
            )
        if isinstance(getattr(type(self), name, None), property):
            object.__setattr__(self, name, value)
        else:
            self._set(**{name: value})

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Takes the two functions, so that a subclass may have a `__new__` of its own, as with Optax."""
        self = super().__new__(cls)
        given = [*args, *kwargs.values()]
        # A class with an `__init__` is given the functions, as a named tuple is, or whatever that takes.
        two = len(given) == 2 and all(map(callable, given)) and kwargs.keys() <= {"init", "update"}
        takes_functions = cls.is_users and cls.update is Transform.update and two
        if (given and cls.__init__ is object.__init__) or takes_functions:
            self._set_functions(*args, **kwargs)
        return self

    def _set_functions(self, init: TransformInitFn, update: TransformUpdateExtraArgsFn) -> None:
        if not (callable(init) and callable(update)):
            raise TypeError(
                f"GradientTransformation takes two functions, init(params) and update(updates, state, "
                f"params); got {show(init)} and {show(update)}."
            )
        self._set(init_fn=init, update_fn=update)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        if not self.foreign:  # a user's class that has methods in place of functions
            return type(self).__name__, (), self.__getstate__()
        return "GradientTransformation", (self.init_fn, self.update_fn), {}

    def _identity(self) -> Any:
        if not self.is_users:
            return super()._identity()
        own = {k: v for k, v in self.__getstate__().items() if not _is_cached(type(self), k)}
        return dict(sorted(own.items()))

    def _functions(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        if "update_fn" not in self.__dict__:
            raise TypeError(
                f"{type(self).__name__} has no functions: give them to super().__new__(cls, init, update) in "
                f"its __new__, or define its methods init(params) and update(updates, state, params)."
            )
        return self.init_fn, self.update_fn

    def _replace(
        self, *, init: TransformInitFn | None = None, update: TransformUpdateExtraArgsFn | None = None
    ) -> Transform:
        """A `GradientTransformation` of its two functions with one of them, or both, replaced."""
        own = self._functions() if self.foreign else (self.init, self.update)
        return Transform(init or own[0], update or own[1])

    @property
    def foreign(self) -> bool:
        """Whether it is made of two functions, which expect the dtypes that a caller sees."""
        return "update_fn" in self.__dict__ and type(self).update is Transform.update

    @property
    def its_own_name(self) -> str:
        """Where its functions are from, such as `optax.clip`; "" where it has a name in the state or none."""
        return maker(self.update_fn) if self.foreign else ""

    @property
    def needs(self) -> tuple[str, ...]:
        """What `update` must be given: `"params"`, or the names of keyword arguments."""
        return needed(self.update_fn) if self.foreign else ()

    def init(self, params: Params) -> OptState:
        """The state for parameters (arrays or `jax.ShapeDtypeStruct`s)."""
        return foreign_state(self._functions()[0], params)

    def update(
        self, updates: Updates, state: OptState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, OptState]:
        """The updates to add to the parameters, and the next state."""
        for name in self.needs:
            if name not in extra:
                raise TypeError(missing(self.its_own_name or "This transform", name))
        return called(self._functions()[1], updates, state, params, extra)

    def apply_gradients(
        self, grads: PyTree, state: PyTree, params: PyTree, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        """The next parameters and state; see `gradtx.apply_gradients`."""
        updates, state = self.update(grads, state, params, **extra)
        return apply_updates(params, updates), state

    def step(
        self,
        grads: PyTree,
        state: PyTree,
        params: PyTree,
        extra: dict[str, Any],
        shared: Shared | None,
        *,
        apply: bool,
    ) -> tuple[PyTree, PyTree]:
        """`apply_gradients`, or `update`; `shared` is for a wrapper around it."""
        return self._step(Call(grads, state, params, extra, shared, apply))

    def _step(self, call: Call) -> tuple[PyTree, PyTree]:
        do = self.apply_gradients if call.apply else self.update
        return do(call.grads, call.state, call.params, **call.extra)

    def structure(self) -> Any:
        """What programs are told apart by: all of it but the numbers that live in the state."""
        return self

    def _visit(self, builder: Any) -> None:
        """Adds this transform to a program: one that the engine does not know works on whole trees."""
        builder.add_tree(TRANSFORM, adapted(self))

    def last_units(self) -> list[str]:
        """The names of what is in it that needs the new parameters, and must see the final update."""
        return []

    def remarks(self, params: Params) -> list[str]:
        """What a description of it for some parameters says of it as a whole."""
        return []

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        return iter((self.init, self.update))


def _is_cached(cls: type, name: str) -> bool:
    return isinstance(getattr(cls, name, None), functools.cached_property)


GradientTransformation = Transform
"""The name that Optax has for it."""


class ByStep(Transform):
    """A transform whose two ways of making an update are one `_step`."""

    def update(
        self, updates: PyTree, state: PyTree, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        """The updates in `promote_types(gradient, parameter)`, and the next state."""
        return self.step(updates, state, params, extra, None, apply=False)

    def apply_gradients(
        self, grads: PyTree, state: PyTree, params: PyTree, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        """The new parameters and state; the update is not narrowed in between."""
        return self.step(grads, state, params, extra, None, apply=True)

    def _step(self, call: Call) -> tuple[PyTree, PyTree]:
        raise NotImplementedError


class Foreign(Transform):
    """Another library's transform, as this library's contract has it."""

    tx: Any

    def __init__(self, tx: Any) -> None:
        self._set(tx=tx)

    @property
    def foreign(self) -> bool:
        """It expects the dtypes that a caller sees."""
        return True

    def __repr__(self) -> str:
        return show(self.tx)

    def _identity(self) -> Any:
        return self.tx

    def structure(self) -> Any:
        return self.tx

    def _visit(self, builder: Any) -> None:
        builder.add_tree(FOREIGN, self)

    @property
    def its_own_name(self) -> str:
        """The function or class that made it, such as `optax.clip`."""
        return maker(self.tx.update)

    @property
    def needs(self) -> tuple[str, ...]:
        """The keyword arguments that its `update` cannot do without."""
        return needed(self.tx.update)

    def init(self, params: PyTree) -> PyTree:
        """Calls its `init`, and places what it gives beside the parameters."""
        return foreign_state(self.tx.init, params)

    def update(
        self, updates: PyTree, state: PyTree, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        """Calls its `update` with what it takes of the parameters and the keyword arguments."""
        return called(self.tx.update, updates, state, params, extra)


def adapted(tx: Any) -> Transform:
    """A transform of any library, or a user's class with methods, as one of this library's contract."""
    if isinstance(tx, Transform):
        return Foreign(tx) if tx.is_users and not tx.foreign else tx
    return Foreign(tx)


def accepted(fn: Callable[..., Any], extra: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments among `extra` that `fn` takes."""
    parameters = inspect.signature(fn).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return extra
    return {k: v for k, v in extra.items() if k in parameters}


def called(
    update: Callable[..., Any], updates: PyTree, state: PyTree, params: PyTree | None, extra: dict[str, Any]
) -> tuple[PyTree, PyTree]:
    """What a user's `update` gives, called with the parameters if it has a place for them."""
    kinds = [p.kind for p in inspect.signature(update).parameters.values()]
    by_place = sum(kind in (kind.POSITIONAL_ONLY, kind.POSITIONAL_OR_KEYWORD) for kind in kinds)
    takes_params = by_place > 2 or any(kind is kind.VAR_POSITIONAL for kind in kinds)
    given = (params,) if takes_params else ()
    return update(updates, state, *given, **accepted(update, extra))


def needed(fn: Callable[..., Any]) -> tuple[str, ...]:
    """The keyword-only arguments that `fn` cannot do without."""
    return tuple(
        p.name
        for p in inspect.signature(fn).parameters.values()
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty
    )


def missing(where: str, name: str) -> str:
    """The error for a keyword argument that a transform cannot do without."""
    return (
        f"{where} needs the keyword argument {name!r}: call update(grads, state, params, {name}=...). "
        f"Optax's own combinators drop it; wrap this transform for them as "
        f"optax.GradientTransformationExtraArgs(*tx)."
    )


def added(param: Any, update: Any) -> Any:
    """`param + update` for one leaf, computed in at least float32 and kept in the parameter's dtype."""
    if update is None or param is None:
        return param
    param, update = lv.as_array(param), lv.as_array(update)
    if param.shape != update.shape:
        raise ValueError(
            f"The update has shape {update.shape}, and the parameter has shape {param.shape}. An update has "
            "the shape of what it is added to."
        )
    if not lv.is_trainable_leaf(param):
        return (param + update.astype(param.dtype)).astype(param.dtype)
    compute = compute_dtype(param.dtype, update.dtype)
    result = cast(param, compute) + cast(update, compute)
    if is_complex(result.dtype) and not is_complex(param.dtype):
        result = jnp.real(result)
    return cast(result, param.dtype)


def apply_updates(params: T, updates: Updates) -> T:
    """`params + updates`: each parameter keeps its dtype, and a `None` update leaves it as it is.

    The sum is taken in at least float32 and rounded once.

    Args:
        params: a tree of arrays.
        updates: the same tree, as `update` gives it.

    Returns:
        The new parameters.

    Raises:
        ValueError: the trees differ, where the first path that differs is named; or an update has another
            shape than its parameter.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> gradtx.apply_updates({"w": jnp.ones(2)}, {"w": jnp.array([0.5, -0.5])})["w"].tolist()
        [1.5, 0.5]
    """
    old, structure = lv.flatten(params)
    new = lv.align(structure, updates, params, "updates", "params")
    made: list[Any] = []
    for i, (p, u) in enumerate(zip(old, new, strict=True)):
        try:
            made.append(added(p, u))
        except Exception as error:
            lv.note_leaf(error, params, i)
            raise
    return structure.unflatten(made)


def apply_gradients(
    tx: AnyTransform, grads: Updates, state: OptState, params: T, **extra: Any
) -> tuple[T, OptState]:
    """Updates and applies in one: the new parameters and the new state.

    The same as `tx.update` followed by `apply_updates`, except that nothing is narrowed in between: with
    bfloat16 parameters the update is added in float32 and rounded once.

    Args:
        tx: a transform of any library.
        grads: the gradients, a tree like `params`; `None` for a leaf that is not trained this step.
        state: the state from `tx.init` or an earlier step.
        params: the parameters.
        **extra: what some transforms need, such as `value=`.

    Returns:
        `(params, state)`.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, params = gradtx.sgd(0.5), {"w": jnp.ones(2)}
        >>> params, state = gradtx.apply_gradients(tx, {"w": jnp.ones(2)}, tx.init(params), params)
        >>> params["w"].tolist()
        [0.5, 0.5]
    """
    return adapted(tx).apply_gradients(grads, state, params, **extra)


def cast_like(new: Any, old: Any) -> Any:
    """`new` in the dtype of `old`, so that a state goes out as it came in."""
    if old is None or not isinstance(new, jax.Array) or new.dtype == jnp.result_type(old):
        return new
    return new.astype(old.dtype)
