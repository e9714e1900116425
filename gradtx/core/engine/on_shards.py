"""What may be computed of a leaf that is a shard, as it may be inside `jax.shard_map`.

What works on each element by itself is right on a shard. What puts elements together (a sum, a product of
matrices, a sort) sees those of one shard, and makes a part of what the leaf tells, until it is summed over
all shards. Types say which arrays vary, and the traced function what is made of them: so every rule and
wrapper is checked, without a word of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from gradtx.core.shards import Axes, is_manual, names_of, varying, varying_by_type

T = TypeVar("T")


def on_shards(function: Callable[[], T], leaves: Any, where: str, of: Any, *, of_trees: bool = False) -> T:
    """What a function gives, checked where it works on shards.

    Args:
        function: takes nothing and gives a tree of arrays.
        leaves: the leaves that it works on.
        where: the name for errors.
        of: the rule, wrapper or function that it calls; with an attribute `axis_name` if it sums over axes.
        of_trees: whether it may move elements to other places, as a transform of whole trees does that joins
            leaves and cuts them again.

    Raises:
        ValueError: what it gives depends on a part of what the leaves tell.
    """
    if not varying(leaves):
        return function()
    if getattr(of, "knows_shards", False):
        return _trusted(function)
    call = jax.jit(lambda: function())  # traced once, to be looked at and to run
    traced = call.trace().jaxpr
    given = [_Value(varying_by_type(v.aval)) for v in traced.jaxpr.invars]
    made = _Reader(moves=of_trees).run(traced, given)
    if axes := frozenset[str]().union(*(x.part for x in made)):
        raise ValueError(_refusal(where, axes, of))
    return call()


def of_users(function: Callable[..., T]) -> Callable[..., T]:
    """A function of the parameters, as a loss, unchecked: who writes it for shards knows of them."""
    if not is_manual():
        return function

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> T:
        return _trusted(lambda: function(*args, **kwargs))

    return call


def each_by_itself(function: Callable[[], T]) -> T:
    """What a function gives that is right of each shard by itself, though a check would not see it."""
    return _trusted(function) if is_manual() else function()


def _trusted(function: Callable[[], T]) -> T:
    """What a function gives, made as one operation, into which a check of what is around it does not look."""

    def trusted_on_shards() -> T:
        return function()

    return jax.jit(trusted_on_shards)()


def refuse_unnamed(where: str, of: Any, *arrays: Any) -> None:
    """Raises where arrays vary over an axis that the `axis_name` of a rule or a wrapper does not name."""
    if axes := varying(*arrays) - {*names_of(axis_name_of(of))}:
        raise ValueError(_refusal(where, axes, of))


def refuse_axes(where: str, of: Any, *leaf: Any) -> None:
    """Raises where a rule remembers something of some axes of a leaf, and the leaf may be a shard."""
    if axes := varying(*leaf):
        raise ValueError(_refusal(where, axes, of))


def refuse_numbers(where: str, extra: Mapping[str, Any]) -> None:
    """Raises where a keyword argument is a number, as the loss is, that varies over mesh axes."""
    for name, value in extra.items():
        if axes := varying([x for x in jax.tree.leaves(value) if np.shape(x) == ()]):
            raise ValueError(
                f"{where}: inside shard_map the keyword argument {name!r} varies over the axis "
                f"{', '.join(sorted(axes))}: each shard would go by a number of its own. Give the same to "
                f"all, as {name}=jax.lax.pmean({name}, {min(axes)!r})."
            )


def axis_name_of(of: Any) -> Axes:
    """The axes over which a rule or a wrapper sums what it measures."""
    return getattr(of, "axis_name", None)


def refuse_shards(where: str, *leaves: Any) -> None:
    """Raises inside of a user's `shard_map` for leaves that may be shards of matrices."""
    if axes := varying(*leaves):
        raise ValueError(
            f"{where}: {_vary(axes)}, so that a leaf may be a shard, of which no matrix is whole. Update "
            f"outside of shard_map, where each device is given whole matrices; gradients that are equal on "
            f"all devices are averaged first, by pmean."
        )


def _vary(axes: Iterable[str]) -> str:
    return f"inside shard_map the leaves vary over the axis {', '.join(sorted(axes))}"


def _refusal(where: str, axes: Iterable[str], of: Any) -> str:
    """What is wrong with a part, and what to do."""
    remedy = "update outside of shard_map, under jit, where an array is whole however it is sharded"
    if hasattr(of, "axis_name"):
        wanted = sorted({*names_of(of.axis_name), *axes})
        remedy = f"give axis_name={tuple(wanted) if len(wanted) > 1 else wanted[0]!r}"
    return (
        f"{where}: {_vary(axes)}: each shard would see a part of what it measures. If they are shards of one "
        f"tree, {remedy}; otherwise average the gradients over that axis first, by jax.lax.pmean."
    )


class _Value(NamedTuple):
    """What is known of a value of a traced function.

    Attributes:
        shard: the axes over which it has the elements of one shard.
        part: the axes over which it was made of the elements of one shard together.
        drawn: of what is made for each place, as noise is, the axes over which it differs; None elsewhere.
    """

    shard: frozenset[str] = frozenset()
    part: frozenset[str] = frozenset()
    drawn: frozenset[str] | None = None

    def in_type(self, aval: Any) -> _Value:
        """The same of a type, which says what can vary."""
        axes = varying_by_type(aval)
        return _Value(self.shard & axes, self.part & axes, self.drawn if aval.shape else None)


def _together(values: Sequence[_Value]) -> _Value:
    """What is made of some values, place by place."""
    shard = frozenset[str]().union(*(x.shard for x in values))
    part = frozenset[str]().union(*(x.part for x in values))
    drawn = [x.drawn for x in values if x.drawn is not None]
    if not drawn:
        return _Value(shard, part)
    # All shards would get the same noise.
    alike = drawn[0].intersection(*drawn)
    return _Value(shard, part | (shard - alike), alike)


class _Reader:
    """Follows through a traced function what is of one shard."""

    def __init__(self, *, moves: bool) -> None:
        self.moves = moves

    def run(self, traced: Any, args: Sequence[_Value]) -> list[_Value]:
        """The results of a jaxpr, open or closed."""
        jaxpr = getattr(traced, "jaxpr", traced)
        known = dict(zip(jaxpr.invars, args, strict=True)) | {v: _Value() for v in jaxpr.constvars}

        def read(variables: Sequence[Any]) -> list[_Value]:
            return [_Value() if hasattr(v, "val") else known[v] for v in variables]

        for equation in jaxpr.eqns:
            made = self.made(equation, read(equation.invars))
            known |= {v: x.in_type(v.aval) for v, x in zip(equation.outvars, made, strict=True)}
        return read(jaxpr.outvars)

    def made(self, equation: Any, args: list[_Value]) -> list[_Value]:
        """The results of an operation."""
        name, params = equation.primitive.name, equation.params
        if name == "cond":
            which, *given = args
            results = [self.run(branch, given) for branch in params["branches"]]
            return [_together([which, *of_each]) for of_each in zip(*results, strict=True)]
        if name == "while":
            return self.while_loop(params, args)
        if name == "scan":
            return self.scan(params, args)
        if name == "optimization_barrier":
            return args
        if name == LOOPS:
            before = _together(args[: params["group"].before])
            return [
                _together([before, *own]) for leaf, own in params["group"].of_leaves(args) for _ in leaf.makes
            ]
        if name in CALLS and params.get("name") == _TRUSTED:
            part = _together(args).part
            return [_Value(varying_by_type(v.aval), part) for v in equation.outvars]
        if name in CALLS:
            return self.run(next(params[key] for key in CALLED if key in params), args)
        value = _together(args)
        if self.keeps_places(name, equation):
            pass
        elif name == "iota":
            value = _Value(drawn=frozenset())
        elif name == "random_bits":
            value = value._replace(drawn=varying_by_type(equation.invars[0].aval))
        elif axes := named_axes(params):
            value = _Value(value.shard - axes, value.part - axes)
        else:
            value = value._replace(part=value.part | value.shard)
        return [value] * len(equation.outvars)

    def keeps_places(self, name: str, equation: Any) -> bool:
        """Whether each element of a result is made of those in its place."""
        if name in BY_ELEMENT or (self.moves and name in MOVES):
            return True
        if name.startswith("reduce_"):
            return not equation.params.get("axes", True)
        if name not in ("reshape", "slice"):
            return False
        before, after = ([n for n in v.aval.shape if n != 1] for v in (equation.invars[0], *equation.outvars))
        return before == after

    def while_loop(self, params: Any, args: list[_Value]) -> list[_Value]:
        """A loop: what it carries, from turn to turn, and what tells when it ends."""
        ends, turns = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        carry = self.carried(
            lambda carry: self.run(params["body_jaxpr"], [*args[ends:turns], *carry]), args[turns:]
        )
        (goes_on,) = self.run(params["cond_jaxpr"], [*args[:ends], *carry])
        return [_together([goes_on, x]) for x in carry]

    def scan(self, params: Any, args: list[_Value]) -> list[_Value]:
        """A loop over the first axis of some arrays, which brings the elements along it together."""
        first, last = params["num_consts"], params["num_consts"] + params["num_carry"]
        along = [x if self.moves else x._replace(part=x.part | x.shard) for x in args[last:]]
        count = params["num_carry"]

        def turn(carry: list[_Value]) -> list[_Value]:
            return self.run(params["jaxpr"], [*args[:first], *carry, *along])

        carry = self.carried(lambda carry: turn(carry)[:count], args[first:last])
        return [*carry, *turn(carry)[count:]]

    def carried(self, turn: Callable[[list[_Value]], list[_Value]], carry: list[_Value]) -> list[_Value]:
        """What a loop carries after any number of turns."""
        while True:
            after = [_together(both) for both in zip(carry, turn(carry), strict=True)]
            if after == carry:
                return carry
            carry = after


def named_axes(params: Any) -> frozenset[str]:
    """The mesh axes over which an operation communicates."""
    found = (params.get(key, ()) for key in ("axes", "axis_name"))
    flat = (name for axes in found for name in (axes if isinstance(axes, tuple | list) else (axes,)))
    return frozenset(name for name in flat if isinstance(name, str))


CALLS = {
    *("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "custom_vmap_call"),
}
LOOPS = "leaf_loop"
"""Loops of C, each element by itself; their rules were looked at when they were traced."""
_TRUSTED = "trusted_on_shards"
"""What `_trusted` calls its functions."""
CALLED = ("jaxpr", "call_jaxpr", "fun_jaxpr", "call")
BY_ELEMENT = {
    *("add", "add_any", "sub", "mul", "div", "rem", "neg", "sign", "abs", "max", "min", "clamp", "select_n"),
    *("pow", "integer_pow", "square", "sqrt", "rsqrt", "cbrt", "exp", "exp2", "expm1", "log", "log1p"),
    *("sin", "cos", "tan", "asin", "acos", "atan", "atan2"),
    *("sinh", "cosh", "tanh", "asinh", "acosh", "atanh"),
    *("logistic", "erf", "erfc", "erf_inv", "lgamma", "digamma", "polygamma", "zeta", "igamma", "igammac"),
    *("bessel_i0e", "bessel_i1e", "regularized_incomplete_beta", "random_gamma_grad", "igamma_grad_a"),
    *("floor", "ceil", "round", "nextafter", "is_finite", "real", "imag", "conj", "complex"),
    *("lt", "le", "gt", "ge", "eq", "ne", "lt_to", "le_to", "eq_to", "and", "or", "xor", "not"),
    *("shift_left", "shift_right_logical", "shift_right_arithmetic", "population_count", "clz", "mul_hi"),
    *("convert_element_type", "bitcast_convert_type", "reduce_precision", "copy", "copy_p", "device_put"),
    *("stop_gradient", "sharding_constraint", "broadcast_in_dim", "squeeze"),
    *("expand_dims", "random_seed", "random_wrap", "random_unwrap", "random_fold_in", "random_split"),
    *("pvary", "random_clone", "name", "layout_constraint", "reshard"),
}
"""What makes each element of those in its place."""
MOVES = {
    *("reshape", "transpose", "concatenate", "split", "pad", "stack", "unstack", "rev"),
    *("slice", "dynamic_slice", "dynamic_update_slice"),
}
"""What gives elements other places."""
