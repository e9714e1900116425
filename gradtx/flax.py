"""Flax: a `TrainState` and an NNX `Optimizer` that update and apply in one, and views that a model keeps.

Flax's own classes take gradtx's transforms as they are. These differ in three ways: they call
`gradtx.apply_gradients`; transforms that differ in numbers alone share one compiled step; and a new `tx`
brings its numbers along (`TrainState.replace(tx=...)`). The numbers in force are those of the state: read
them with `gradtx.hyperparams(train_state)`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, struct
from flax.core import meta
from flax.core.spmd import composite_rules, get_logical_axis_rules
from flax.linen.fp8_ops import OVERWRITE_WITH_GRADIENT
from flax.linen.spmd import logical_to_mesh_axes
from flax.training import train_state
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec, Sharding

from gradtx._names import listing
from gradtx.core.engine.composed import Composed
from gradtx.core.engine.leaves import path_parts
from gradtx.core.engine.placement import sharding_of
from gradtx.core.engine.rebase import rebase
from gradtx.core.engine.structure import Structure
from gradtx.core.engine.transform import apply_gradients
from gradtx.core.engine.views import MatrixView
from gradtx.core.numbers.states import is_state
from gradtx.core.spec.spec import show
from gradtx.micro_batches import check_count, combined
from gradtx.state_sharding import state_sharding

__all__ = [
    "Optimizer",
    "TrainState",
    "Viewed",
    "accumulate_gradients",
    "shardings_of",
    "views",
    "with_matrix_view",
]

__dir__ = listing(globals())

_pure: Any = getattr(nnx, "as_pure", None) or getattr(nnx, "pure")  # noqa: B009 - by Flax's version


class TrainState(train_state.TrainState):
    """Flax's `TrainState`, for gradtx.

    Examples:
        >>> import gradtx, gradtx.flax, jax.numpy as jnp
        >>> state = gradtx.flax.TrainState.create(
        ...     apply_fn=None, params={"w": jnp.ones(2)}, tx=gradtx.sgd(0.5)
        ... )
        >>> state = state.apply_gradients(grads={"w": jnp.ones(2)})
        >>> state.params["w"].tolist()
        [0.5, 0.5]
        >>> gradtx.hyperparams(state.replace(tx=gradtx.sgd(0.1)))
        {'learning_rate': 0.1}
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.replace = _replace

    @classmethod
    def create(cls, *, apply_fn: Any, params: Any, tx: Any, **kwargs: Any) -> Any:
        """A new instance at step 0, with the state of `tx` for `params`."""
        structure: Any = Structure.of(tx)
        opt_state = structure.init(_trained(params))
        # Placed as the optimizer's own step is, so that the first call compiles for all later ones.
        step = jnp.copy(opt_state["step"]) if is_state(opt_state) else jnp.zeros((), jnp.int32)
        return cls(step=step, apply_fn=apply_fn, params=params, tx=structure, opt_state=opt_state, **kwargs)

    def apply_gradients(self, *, grads: Any, **kwargs: Any) -> Any:
        """The next state.

        Args:
            grads: gradients, a tree like `params`.
            **kwargs: fields to replace, as in Flax; other names go to the transform, such as `value=loss`.

        Returns:
            A new instance, with step, params and opt_state updated.
        """
        names = {f.name for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        fields = {k: v for k, v in kwargs.items() if k in names}
        extra = {k: v for k, v in kwargs.items() if k not in names}
        params, opt_state = apply_gradients(
            self.tx, _trained(grads), self.opt_state, _trained(self.params), **extra
        )
        if isinstance(grads, Mapping) and OVERWRITE_WITH_GRADIENT in grads:
            overwritten = grads[OVERWRITE_WITH_GRADIENT]
            params = {"params": params, OVERWRITE_WITH_GRADIENT: overwritten}
        return self.replace(step=self.step + 1, params=params, opt_state=opt_state, **fields)


def _trained(tree: Any) -> Any:
    """The part that the optimizer trains: fp8 scales are overwritten with their gradients instead."""
    return tree["params"] if isinstance(tree, Mapping) and OVERWRITE_WITH_GRADIENT in tree else tree


def _replace(self: Any, **updates: Any) -> Any:
    """A copy with fields replaced. A new `tx` keeps the slots and the step, and brings its numbers."""
    tx = Structure.of(updates.get("tx"))
    if tx is not None:
        updates["tx"] = tx
        if "opt_state" not in updates and isinstance(tx, Composed):
            updates["opt_state"], _ = rebase(tx, self.opt_state)
    return dataclasses.replace(self, **updates)


TrainState.replace = _replace  # type: ignore[method-assign]  # after Flax's decorator has set its own


class Optimizer(nnx.Optimizer):
    """Flax NNX's `Optimizer`, for gradtx.

    Examples:
        >>> import gradtx, gradtx.flax, jax.numpy as jnp
        >>> from flax import nnx
        >>> model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
        >>> optimizer = gradtx.flax.Optimizer(model, gradtx.adam(1e-3), wrt=nnx.Param)
        >>> grads = nnx.grad(lambda m: m(jnp.ones((1, 2))).sum())(model)
        >>> optimizer.update(model, grads)
        >>> gradtx.step_count(optimizer)
        1
    """

    def __init__(self, model: Any, tx: Any, *, wrt: Any) -> None:
        structure: Any = Structure.of(tx)  # Flax's annotation names Optax's class
        named: Any = _Named(structure)
        super().__init__(model, named, wrt=wrt)
        self.tx = structure

    def update(self, model: Any, grads: Any, /, **extra: Any) -> None:  # type: ignore[override]
        """Moves the model's parameters and the optimizer's state, in place.

        Args:
            model: the model.
            grads: gradients with respect to the variables that `wrt` selects.
            **extra: what the transform needs, such as `value=loss`.
        """
        params, opt_state = apply_gradients(
            self.tx,
            _pure(nnx.state(grads, self.wrt)),
            _pure(self.opt_state),
            _pure(nnx.state(model, self.wrt)),
            **_pure(extra),
        )
        nnx.update(model, params)
        nnx.update(self.opt_state, nnx.state(opt_state))
        self.step[...] += 1


def accumulate_gradients(grad_fn: Callable[..., Any], n: int) -> Callable[..., Any]:
    """`gradtx.accumulate_gradients` for a function of an NNX model, such as `nnx.value_and_grad(loss)`.

    What the model keeps (batch statistics, counts of random streams) goes from each micro-batch to the next.

    Args:
        grad_fn: a function of (model, *batches, **others).
        n: the number of micro-batches, which divides the leading axis of every array in `batches`.

    Returns:
        A function of the same arguments and results; it updates the model's state in place.

    Examples:
        >>> import gradtx.flax, jax.numpy as jnp
        >>> from flax import nnx
        >>> model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
        >>> grad_fn = nnx.value_and_grad(lambda m, x: jnp.mean(m(x) ** 2))
        >>> loss, grads = gradtx.flax.accumulate_gradients(grad_fn, 4)(model, jnp.ones((8, 2)))
        >>> grads["kernel"].shape
        (2, 1)
    """
    check_count(n)

    @functools.wraps(grad_fn)
    def over_micro_batches(model: Any, *batches: Any, **others: Any) -> Any:
        graph, state = nnx.split(model)

        def one(kept: Any, micro: Any) -> Any:
            local = nnx.merge(graph, kept)
            result = grad_fn(local, *micro, **others)
            return nnx.state(local), result

        state, result = combined(one, state, batches, n)
        nnx.update(model, state)
        return result

    return over_micro_batches


VIEW = "matrix_view"
"""The name of the metadata that says how a parameter is a matrix."""

NAMES = ("out_sharding", "sharding", "sharding_names", "names")
"""What the names of axes are called: in the metadata of NNX's variables, by Flax's version, and in boxes."""


class Viewed(struct.PyTreeNode, meta.AxisMetadata[Any]):  # type: ignore[misc]
    """A parameter of Linen in a box that says how it is a matrix; `with_matrix_view` makes it.

    An axis that `nn.scan` or `nn.vmap` adds is a batch in the view. Another box may be inside.
    """

    value: Any
    view: MatrixView | None = struct.field(pytree_node=False)

    def unbox(self) -> Any:
        """What is in the box."""
        return self.value

    def replace_boxed(self, val: Any) -> Viewed:
        """The box with something else in it."""
        return self.replace(value=val)

    def add_axis(self, index: int, params: dict[Any, Any]) -> Viewed:
        """The box of layers that are stacked along an axis."""
        return self.replace(
            value=meta.add_axis(self.value, index, params), view=_with_batch(self.view, index, 1)
        )

    def remove_axis(self, index: int, params: dict[Any, Any]) -> Viewed:
        """The box of one of them."""
        return self.replace(
            value=meta.remove_axis(self.value, index, params), view=_without_axis(self.view, index)
        )

    def get_partition_spec(self) -> Any:
        """How it is sharded, which a box inside says."""
        return meta.get_partition_spec(self.value)

    def get_sharding(self, mesh: Any) -> Any:
        """The same on a mesh."""
        return meta.get_sharding(self.value, mesh)

    def to_nnx_metadata(self) -> dict[str, Any]:
        """The same as the metadata of a variable of NNX."""
        inside = self.value.to_nnx_metadata() if hasattr(self.value, "to_nnx_metadata") else {}
        return {"value": self.value, **inside, VIEW: self.view}


def _with_batch(view: Any, index: int, number: int) -> Any:
    """The view of a leaf with more axes at a place, which are a batch."""
    if not isinstance(view, MatrixView):
        return view
    at = index if index >= 0 else index + len(view.axes) + 1
    return view._with(axes=f"{view.axes[:at]}{'b' * number}{view.axes[at:]}")


def _without_axis(view: Any, index: int) -> Any:
    if not isinstance(view, MatrixView):
        return view
    at = index if index >= 0 else index + len(view.axes)
    return view._with(axes=view.axes[:at] + view.axes[at + 1 :])


def with_matrix_view(init: Callable[..., Any], view: MatrixView | None) -> Callable[..., Any]:
    """An initializer of Linen whose parameters say how they are matrices, in a box.

    `views` reads it. Around `nn.with_partitioning` both are kept. In NNX a view is metadata of the parameter:
    `nnx.Param(value, matrix_view=...)`, or `nnx.with_metadata(init, matrix_view=...)`.

    Args:
        init: the initializer.
        view: a `gradtx.matrix_view` of one layer, or None for what is no matrix.

    Returns:
        The initializer, which gives a `Viewed`.

    Examples:
        >>> import gradtx, gradtx.flax, jax, jax.numpy as jnp
        >>> from flax import linen as nn
        >>> view = gradtx.matrix_view("rc", column_blocks=3)
        >>> init = gradtx.flax.with_matrix_view(nn.initializers.lecun_normal(), view)
        >>> variables = nn.Dense(12, kernel_init=init).init(jax.random.key(0), jnp.ones((1, 4)))
        >>> gradtx.flax.views(variables["params"])
        {'kernel': matrix_view('rc', column_blocks=3)}
        >>> params = nn.unbox(variables["params"])
    """

    @functools.wraps(init)
    def boxed(*args: Any, **kwargs: Any) -> Viewed:
        return Viewed(init(*args, **kwargs), view)

    return boxed


def views(
    params: Any,
    *,
    of_names: Callable[[str, tuple[Any, ...]], MatrixView | None] | None = None,
    layers: int | None = None,
) -> dict[str, MatrixView | None]:
    """What the parameters of a model say of themselves as matrices, for the optimizers that take `views`.

    A parameter says it by the metadata `matrix_view` of NNX, or by the box of `with_matrix_view`; of the
    others the optimizer reads what it can from names and shapes.

    Args:
        params: a model of NNX, of which its `nnx.Param` are meant; or what the optimizer gets, an `nnx.State`
            or a tree of Linen before `nn.unbox`; abstract ones will do.
        of_names: a function of the path and of the names of the axes, as `nn.with_partitioning` and its like
            give them, for parameters that have names and no view; it gives a view, or None to say nothing.
        layers: the axis along which layers are stacked in a parameter that has more axes than its view, as
            `nnx.vmap` and `nnx.scan` stack them, usually 0. Boxes of Linen know of theirs.

    Returns:
        A dict from paths to views, to be given as `views=` or as `muon_weight_dimension_numbers=`.

    Raises:
        TypeError: what a parameter has as `matrix_view` is no view.
        ValueError: a parameter has more axes than its view, and `layers` is not given.

    Examples:
        >>> import gradtx, gradtx.flax, jax.numpy as jnp
        >>> from flax import nnx
        >>> class Model(nnx.Module):
        ...     def __init__(self):
        ...         view = gradtx.matrix_view("rc", column_blocks=3)
        ...         self.qkv = nnx.Param(jnp.ones((4, 12)), matrix_view=view)
        ...         self.scale = nnx.Param(jnp.ones(4))
        >>> model = Model()
        >>> gradtx.flax.views(model)
        {'qkv': matrix_view('rc', column_blocks=3)}
        >>> tx = gradtx.soap(3e-3, views=gradtx.flax.views(model))
    """
    tree = nnx.state(params, nnx.Param) if isinstance(params, nnx.Module) else params
    found: dict[str, MatrixView | None] = {}
    for keys, leaf in jax.tree_util.tree_flatten_with_path(tree, is_leaf=_says_something)[0]:
        path, said = "/".join(path_parts(keys)), _metadata(leaf)
        names = next((said[name] for name in NAMES if said.get(name)), None)
        if VIEW in said:
            view = said[VIEW]
            if not (view is None or isinstance(view, MatrixView)):
                raise TypeError(
                    f"views: the leaf {path!r} has matrix_view={show(view)}, which is no view. Give "
                    f"gradtx.matrix_view('rc'), or None for what is no matrix."
                )
            found[path] = _stacked(path, view, leaf, layers)
        elif of_names is not None and names is not None:
            view = of_names(path, tuple(names))
            if view is not None:
                found[path] = view
    return found


def _says_something(x: Any) -> bool:
    return isinstance(x, meta.AxisMetadata) or hasattr(x, "get_metadata")


def _metadata(leaf: Any) -> dict[str, Any]:
    """What a variable of NNX says of itself, or a box and those inside of it say of a leaf."""
    if hasattr(leaf, "get_metadata"):
        return dict(leaf.get_metadata())
    found: dict[str, Any] = {}
    while isinstance(leaf, meta.AxisMetadata):
        box: Any = leaf
        own = {VIEW: box.view} if isinstance(box, Viewed) else _of_box(box)
        found, leaf = {**own, **found}, getattr(box, "value", None)
    return found


def _of_box(box: Any) -> dict[str, Any]:
    """The names of the axes in a box, their mesh, and the rules of names that are logical."""
    return {name: getattr(box, name) for name in ("names", "mesh", "rules") if hasattr(box, name)}


def _stacked(path: str, view: MatrixView | None, leaf: Any, layers: int | None) -> MatrixView | None:
    """The view of a leaf in which layers may be stacked."""
    arrays = jax.tree.leaves(leaf)
    more = np.ndim(arrays[0]) - len(view.axes) if view is not None and arrays else 0
    if more <= 0:
        return view
    if layers is None:
        raise ValueError(
            f"views: the leaf {path!r} of shape {np.shape(arrays[0])} has more axes than its view {view!r}. "
            f"Where layers are stacked say along which axis, as in gradtx.flax.views(model, layers=0); "
            f"otherwise give the view a letter for each axis."
        )
    return _with_batch(view, layers, more)


def shardings_of(params: Any) -> Any:
    """How what is remembered of parameters is sharded, as Flax was told: specs, shardings or None.

    Metadata called `optimizer_sharding` says it, and for a parameter that is not placed yet what shards it.
    """
    return jax.tree.map(_sharding, params, is_leaf=_says_something)


def _sharding(leaf: Any) -> Any:
    said = _metadata(leaf)
    names = said.get("optimizer_sharding")
    if not names and all(sharding_of(x) is None for x in jax.tree.leaves(leaf)):
        names = next((said[name] for name in NAMES if said.get(name)), None)
    if not names or isinstance(names, Sharding):
        return names or None
    spec = _by_rules(names, said)
    return spec if said.get("mesh") is None else NamedSharding(said["mesh"], spec)


def _by_rules(names: Any, said: dict[str, Any]) -> PartitionSpec:
    """The axes of a mesh that names of axes stand for; a name of which no rule says something is one."""
    if "rules" in said and (said["rules"] or get_logical_axis_rules()):
        return logical_to_mesh_axes(names, said["rules"]) or PartitionSpec()
    rules = (
        {} if "names" in said else dict(composite_rules(get_logical_axis_rules(), said.get("sharding_rules")))
    )
    return PartitionSpec(*(rules.get(name, name) for name in names))


class _Named:
    """A transform whose state names the axes of what is remembered as the parameters name theirs.

    Flax shards a slot by the names in its metadata, which are those of the parameter, whatever its shape is.
    """

    def __init__(self, tx: Any) -> None:
        self.tx = tx

    def init(self, params: Any) -> Any:
        """The state."""
        state = self.tx.init(params)
        every = [f"{i}" for i in range(max((np.ndim(x) for x in jax.tree.leaves(params)), default=0))]
        if not (every and any(map(_names_of, jax.tree.leaves(params, is_leaf=_says_something)))):
            return state
        # A mesh on which each axis of a parameter is one of its own, by which it is known in the slots.
        specs = jax.tree.map(lambda x: PartitionSpec(*every[: np.ndim(x)]), params)
        kept = state_sharding(self.tx, params, specs, AbstractMesh((1,) * len(every), tuple(every)))
        return jax.tree.map(_renamed, state, kept, is_leaf=_says_something)


def _names_of(leaf: Any) -> dict[str, tuple[Any, ...]]:
    """The metadata of a variable that names its axes."""
    said = leaf.get_metadata() if hasattr(leaf, "get_metadata") else {}
    named = {k: said.get(k) for k in ("optimizer_sharding", *NAMES)}
    return {k: tuple(names) for k, names in named.items() if isinstance(names, tuple | PartitionSpec)}


def _renamed(leaf: Any, kept: Any) -> Any:
    """A slot whose metadata names its own axes; those have a name that are the parameter's."""
    for sharding in jax.tree.leaves(kept) if _says_something(leaf) else ():
        for key, names in _names_of(leaf).items():
            of_axis = {f"{i}": name for i, name in enumerate(names)}
            leaf = leaf.replace(**{key: tuple(of_axis.get(axis) for axis in sharding.spec)})
    return leaf
