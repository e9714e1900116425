"""Moving a run in from torch, and back."""

from __future__ import annotations

import copy
from typing import Any

import jax
import numpy as np

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.layout import check_state
from gradtx.core.engine.protocol import OptState
from gradtx.core.engine.rebase import rebase
from gradtx.core.engine.steps import Unit
from gradtx.core.engine.transform import Transform
from gradtx.core.numbers.hyperparams import placed, tidy
from gradtx.core.numbers.paths import lookup, replaced
from gradtx.core.numerics import Decay, compute_dtype
from gradtx.core.spec.spec import show
from gradtx.interop.fitting import fitted, own_transform, plain, refuse_formats
from gradtx.interop.torch.check import as_given
from gradtx.interop.torch.match import Match
from gradtx.interop.torch.state_dict import Names, Order, Parameter, as_numpy

PyTree = Any


def from_torch_state_dict(
    tx: Transform,
    state_dict: Any,
    names: Names,
    params: PyTree,
    *,
    order: Order | None = None,
    step: int | None = None,
) -> Any:
    """A state for `tx` that goes on where an optimizer of torch stopped.

    It is for SGD, Adam, AdamW, Adagrad, RMSprop and Adadelta. The moments and the step are taken from torch,
    every number from `tx`; a number that contradicts torch's is an error that says which call means the
    same. torch itself is not needed: tensors may be tensors or arrays.

    Args:
        tx: the transform that gets the state; built as the torch optimizer was. It may also clip, and have
            groups or masks: each leaf is compared with the options of its parameter group. A learning rate
            that is a schedule is not compared.
        state_dict: what torch's `optimizer.state_dict()` gives.
        names: what torch calls each leaf; for its path the name of torch's parameter, or its index, or a pair
            of that and the axes of torch's array in the leaf's order: `(1, 0)` for the kernel of a Linear,
            `(2, 3, 1, 0)` for that of a Conv. A leaf that is not in it has torch's name with `/` for `.`.
            None is for a leaf that torch's optimizer was not given; frozen leaves need no entry.
        params: the parameters; as they are at that point, in gradtx's layout, also as
            `nnx.state(model, nnx.Param)`.
        order: torch's names in the order in which the optimizer got the parameters, where its state dict has
            none: `model.named_parameters()`, if it was made from `model.parameters()`; a list for each
            parameter group, if there are several.
        step: the number of updates so far; for SGD, which does not count them. It is needed only where `tx`
            depends on it.

    Returns:
        A state with the dtypes, shapes and shardings of `tx.init(params)`. If the optimizer was never
        stepped, it is that state.

    Raises:
        ValueError: a name, a shape, a step or a number does not fit; amsgrad, maximize, another optimizer.
        TypeError: `tx` is not gradtx's, `state_dict` not an optimizer's, or a dtype would lose digits.

    Examples:
        >>> import gradtx, jax.numpy as jnp, numpy as np
        >>> entries = {
        ...     "step": 50.0,
        ...     "exp_avg": np.full((1, 2), 0.5, np.float32),
        ...     "exp_avg_sq": np.ones((1, 2), np.float32),
        ... }
        >>> options = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "amsgrad": False}
        >>> state_dict = {"state": {0: entries}, "param_groups": [{**options, "params": [0]}]}
        >>> state = gradtx.from_torch_state_dict(
        ...     gradtx.adam(1e-3),
        ...     state_dict,
        ...     {"kernel": ("weight", (1, 0))},
        ...     {"kernel": jnp.ones((2, 1))},
        ...     order=["weight"],
        ... )
        >>> gradtx.step_count(state), state["slots"]["scale_by_adam"]["mu"]["kernel"].tolist()
        (50, [[0.5], [0.5]])
    """
    own = own_transform("from_torch_state_dict", tx)
    made = own.init(params)
    refuse_formats(own, plain(made), "torch", into=True)
    params, fresh = plain(params), plain(made)
    match = Match(own, state_dict, names, params, order, as_given)
    match.check()
    at_step = match.step(step)
    arguments = own.program.argument_values(fresh["numbers"], np.int32(at_step))
    match.check_rates(arguments)
    state = {**fresh, "step": placed(at_step, np.int32, (), fresh["step"])}
    for unit, slot, entry, on in match.slots():
        path = ("slots", *unit.path, slot)
        leaves, structure = lv.flatten(lookup(fresh, path))
        for i in on:
            parameter = match.parameters[i]
            assert parameter is not None
            value = _entry(match, parameter, entry)
            if value is not None:
                value = value * np.asarray(match.factor(unit, i, arguments), value.dtype)
                _check_axes(parameter, value.shape, leaves[i].shape)
                what = f"{entry!r} of torch's {parameter.label}, as the leaf {parameter.path!r},"
                leaves[i] = fitted(parameter.ours(value), leaves[i], what, "torch state dict")
        state = replaced(state, path, structure.unflatten(leaves))
    return jax.tree.structure(made).unflatten(jax.tree.leaves(rebase(own, state)[0]))


def _check_axes(parameter: Parameter, theirs: tuple[int, ...], ours: tuple[int, ...]) -> None:
    if parameter.axes is None and theirs != ours and sorted(theirs) == sorted(ours):
        raise ValueError(
            f"The leaf {parameter.path!r} has shape {ours}, and torch's {parameter.label} {theirs}: torch "
            f"has the axes in another order. Say it in names: {{{parameter.path!r}: (..., axes)}}, with axes "
            f"(1, 0) for the kernel of a Linear, (2, 3, 1, 0) for that of a Conv."
        )


def _entry(match: Match, parameter: Parameter, entry: str) -> np.ndarray | None:
    """An entry of torch's state, None where the parameter was never stepped and starts as gradtx does."""
    entries = match.entries(parameter)
    if entry in entries:
        value = as_numpy(entries[entry])
        if not np.issubdtype(value.dtype, np.number):
            raise TypeError(
                f"This state dict is damaged: {entry!r} of torch's {parameter.label} is no tensor of numbers "
                f"but {show(entries[entry])}."
            )
        return value
    dampened = match.groups[parameter.group].get("dampening")
    others = any(match.entries(p) for p in match.parameters if p is not None)
    if entries or (others and dampened):
        raise ValueError(
            f"torch's {parameter.label} has no {entry!r} in its state, which has "
            f"{', '.join(map(str, entries)) or 'nothing'}: it was never stepped, or the state dict is "
            f"damaged."
        )
    return None


def to_torch_state_dict(
    tx: Transform,
    state: OptState,
    names: Names,
    params: PyTree,
    state_dict: Any,
    *,
    order: Order | None = None,
) -> dict[str, Any]:
    """The way back: a state dict for torch's optimizer that goes on where gradtx stopped.

    Args:
        tx: the transform that made the state.
        state: an optimizer state, or what holds one: a `TrainState` or an `nnx.Optimizer`.
        names: as for `from_torch_state_dict`.
        params: the parameters; in gradtx's layout.
        state_dict: what torch's `optimizer.state_dict()` gives; the new dict takes its place. That of a new
            optimizer will do.
        order: as for `from_torch_state_dict`.

    Returns:
        A new state dict with numpy arrays in place of tensors, in the dtypes of `state_dict` where it has
        them, but in float32 for bfloat16, which torch narrows again when it loads them. `lr` is the rate in
        force; for Adagrad with `lr_decay`, the one that is decayed to it. To load it, make tensors of the
        arrays:
        `jax.tree.map(lambda x: torch.tensor(x) if isinstance(x, np.ndarray) else x, d)`.

    Raises:
        ValueError: a name, a shape or a number in force does not fit, such as two rates in one parameter
            group.
        TypeError: `tx` or `state` is not gradtx's, or `state_dict` not an optimizer's.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> options = {"lr": 0.1, "momentum": 0.9, "dampening": 0, "nesterov": False, "weight_decay": 0}
        >>> new = {"state": {}, "param_groups": [{**options, "params": [0]}]}
        >>> tx, params = gradtx.sgd(0.1, momentum=0.9), {"weight": jnp.zeros(2)}
        >>> _, state = tx.update({"weight": jnp.ones(2)}, tx.init(params), params)
        >>> gradtx.to_torch_state_dict(tx, state, {"weight": 0}, params, new)["state"]
        {0: {'momentum_buffer': array([1., 1.], dtype=float32)}}
    """
    own, state = own_transform("to_torch_state_dict", tx), plain(state)
    check_state(own.program, state)
    refuse_formats(own, state, "torch", into=False)
    arguments = own.program.argument_values(state["numbers"], state["step"])

    def in_force(unit: Unit, field: str) -> Any:
        given = as_given(unit, field)
        if field not in unit.sources or callable(given):
            return given
        return _value(arguments[unit.sources[field]])

    match = Match(own, state_dict, names, plain(params), order, in_force)
    at_step = int(np.asarray(state["step"]))
    match.set_rates(arguments, at_step)
    match.check()
    entries: dict[Any, dict[str, Any]] = {}
    for unit, slot, entry, on in match.slots():
        leaves, _ = lv.flatten(lookup(state, ("slots", *unit.path, slot)))
        for i in on:
            parameter = match.parameters[i]
            assert parameter is not None
            if at_step or match.kind.always:
                old = match.entries(parameter).get(entry)
                own_dtype = compute_dtype(leaves[i].dtype) if old is None else as_numpy(old).dtype
                value = parameter.theirs(np.asarray(leaves[i]).astype(own_dtype))
                made = entries.setdefault(
                    parameter.key, {"step": np.array(at_step, np.float32)} if match.kind.counts else {}
                )
                made[entry] = value / np.asarray(match.factor(unit, i, arguments), own_dtype)
                _check_shape(made[entry], old, parameter, entry)
    return {**state_dict, "state": entries, "param_groups": copy.deepcopy(match.groups)}


def _value(x: Any) -> Any:
    return tidy(np.asarray(x.complement), decay=True) if isinstance(x, Decay) else tidy(np.asarray(x))


def _check_shape(new: np.ndarray, old: Any, parameter: Parameter, entry: str) -> None:
    if old is not None and np.shape(as_numpy(old)) != new.shape:
        raise ValueError(
            f"{entry!r} of torch's {parameter.label} has shape {np.shape(as_numpy(old))}, and the leaf "
            f"{parameter.path!r} gives {new.shape}. Check names, and the axes in it."
        )
