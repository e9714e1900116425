"""What a traced step costs each device of a mesh: what is exchanged, and how much is computed.

On a mesh with explicit axes the type of every value says how it is sharded. So the traced step tells what
devices send each other: for a sum along a sharded axis, for a product of matrices over one, for a value that
is to be sharded otherwise. What is computed twice counts once, and what nothing needs does not count: so it
is after compiling.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from gradtx.core.engine.on_shards import BY_ELEMENT, CALLED, CALLS, MOVES, named_axes
from gradtx.core.engine.placement import names_of_part


class Sent(NamedTuple):
    """One exchange between devices.

    Attributes:
        where: the innermost scope, which is the name of a transform; empty outside of all.
        kind: what it is called in compiled programs.
        axes: the axes of the mesh along which it is.
        nbytes: the size in bytes of what each device has of it afterwards.
        sometimes: whether it is in a branch, which need not be taken.
    """

    where: str
    kind: str
    axes: tuple[str, ...]
    nbytes: int
    sometimes: bool


@dataclasses.dataclass
class Costs:
    """What something costs each device.

    Attributes:
        sent: how often there is each exchange.
        least: the operations of arithmetic, if each branch is the cheapest.
        most: the same if each is the dearest.
        open_loops: the loops of which nothing says how many turns they take; each counts as one turn.
        unknown: what is done with sharded values, of which it is not known what it exchanges.
    """

    sent: dict[Sent, int] = dataclasses.field(default_factory=dict)
    least: int = 0
    most: int = 0
    open_loops: int = 0
    unknown: set[str] = dataclasses.field(default_factory=set)

    def add(self, other: Costs, turns: int = 1, *, sometimes: bool = False, arithmetic: bool = True) -> None:
        """Adds what something else costs, so many times."""
        for one, times in other.sent.items():
            one = one._replace(sometimes=one.sometimes or sometimes)
            self.sent[one] = self.sent.get(one, 0) + times * turns
        if arithmetic:
            self.least += other.least * turns
            self.most += other.most * turns
        self.open_loops += other.open_loops
        self.unknown |= other.unknown


def costs_of(traced: Any) -> Costs:
    """What a closed jaxpr costs."""
    return _Reader("", {}, {}).costs(traced)


class _Operation(NamedTuple):
    """What an operation takes and gives, as objects that stand for values, and what it costs."""

    takes: Sequence[Any]
    gives: Sequence[Any]
    costs: Costs


class _Told(NamedTuple):
    """What is known of an operation alone, what it does and what it costs, unless it has others inside."""

    name: Any
    costs: Costs | None


class _Reader:
    """Reads a jaxpr, and in it those that it calls.

    Args:
        where: the innermost scope around.
        alone: what is known of operations alone, by what they are and the scope around.
        bodies: what is known of loops and branches, by the same.
    """

    def __init__(
        self, where: str, alone: dict[tuple[int, str], _Told], bodies: dict[tuple[int, str], Costs]
    ) -> None:
        self._where, self._alone, self._bodies, self._read = where, alone, bodies, list[_Operation]()
        self._known: dict[Any, list[Any]] = {}
        self._of_platform: set[Any] = set()

    def costs(self, traced: Any) -> Costs:
        """What a jaxpr costs of which all results are needed."""
        results = self._run(traced, [object() for _ in getattr(traced, "jaxpr", traced).invars])
        needed, total = {id(x) for x in results}, Costs()
        for operation in reversed(self._read):
            if not needed.isdisjoint(map(id, operation.gives)):
                needed.update(map(id, operation.takes))
                total.add(operation.costs)
        return total

    def _run(self, traced: Any, args: Sequence[Any]) -> list[Any]:
        """The results of a jaxpr, open or closed."""
        jaxpr = getattr(traced, "jaxpr", traced)
        values = dict(zip(jaxpr.invars, args, strict=True)) | {v: object() for v in jaxpr.constvars}

        def given(variables: Iterable[Any]) -> list[Any]:
            return [f"{v.val} {v.aval}" if hasattr(v, "val") else values[v] for v in variables]

        around = self._where
        for equation in jaxpr.eqns:
            scope = str(equation.source_info.name_stack).rpartition("/")[2]
            self._where = scope or around
            values.update(zip(equation.outvars, self._made(equation, given(equation.invars)), strict=True))
        self._where = around
        return given(jaxpr.outvars)

    def _made(self, equation: Any, args: list[Any]) -> list[Any]:
        """The results of an operation, those that there are already where it was done before."""
        name, params = equation.primitive.name, equation.params
        if name in CALLS:
            return self._run(next(params[key] for key in CALLED if key in params), args)
        told = self._told(equation)
        # Values are told apart by what they are, literals by what they say.
        known_by = told.name and (told.name, tuple(x if isinstance(x, str) else id(x) for x in args))
        if known_by and known_by in self._known:
            return self._known[known_by]
        results = [object() for _ in equation.outvars]
        if known_by:
            self._known[known_by] = results
        of_platform = bool(args) and id(args[0]) in self._of_platform
        if name == "platform_index" or (of_platform and len(results) == 1):
            self._of_platform.update(map(id, results))
        costs = told.costs
        if costs is None:
            costs = self._branches(equation, of_platform) if name == "cond" else self._loop(equation)
        self._read.append(_Operation(args, results, costs))
        return results

    def _told(self, equation: Any) -> _Told:
        """What is known of an operation alone; a function that is called often is read each time."""
        key = id(equation), self._where
        if key not in self._alone:
            params = equation.params
            if "branches" in params or any(hasattr(getattr(x, "jaxpr", x), "eqns") for x in params.values()):
                self._alone[key] = _Told(None, None)
            else:
                name = equation.primitive.name, str(params), tuple(v.aval for v in equation.outvars)
                self._alone[key] = _Told(name, self._costs_alone(equation))
        return self._alone[key]

    def _branches(self, equation: Any, of_platform: bool) -> Costs:
        """What a conditional costs. The branches of platforms compute the same, some of them in loops."""
        costs, branches = Costs(), [self._inside(branch) for branch in equation.params["branches"]]
        for branch in branches:
            costs.add(branch, sometimes=True, arithmetic=False)
        costs.most = max(branch.most for branch in branches)
        costs.least = (max if of_platform else min)(branch.least for branch in branches)
        if of_platform:
            costs.open_loops = min(branch.open_loops for branch in branches)
        return costs

    def _loop(self, equation: Any) -> Costs:
        """What a loop costs, or a `shard_map`."""
        costs, params = Costs(open_loops=int(equation.primitive.name == "while")), equation.params
        for traced in params.values():
            if hasattr(getattr(traced, "jaxpr", traced), "eqns"):
                costs.add(self._inside(traced), params.get("length", 1))
        return costs

    def _costs_alone(self, equation: Any) -> Costs:
        """What an operation costs that has no others inside."""
        costs = Costs()
        costs.least = costs.most = _arithmetic(equation)
        if _is_sharded(equation) or named_axes(equation.params):
            self._exchanges(equation, costs)
        return costs

    def _inside(self, traced: Any) -> Costs:
        """What the body of a loop or a branch costs."""
        key = id(traced), self._where
        if key not in self._bodies:
            self._bodies[key] = _Reader(self._where, self._alone, self._bodies).costs(traced)
        return self._bodies[key]

    def _exchanges(self, equation: Any, costs: Costs) -> None:
        """Adds what is exchanged for an operation on sharded values."""
        name, params = equation.primitive.name, equation.params

        def send(kind: str, axes: Sequence[str], nbytes: int) -> None:
            one = Sent(self._where, kind, tuple(axes), nbytes, sometimes=False)
            costs.sent[one] = costs.sent.get(one, 0) + 1

        result = equation.outvars[0].aval
        if name in _BY_NAME:
            for value in equation.outvars:
                send(_BY_NAME[name], sorted(named_axes(params)), nbytes_on_one(value.aval))
        elif name == "reshard":
            _reshard(equation.invars[0].aval, result, send)
        elif along := _summed_along(equation):
            parts = _parts(equation.invars[0].aval)
            for axis in along:
                if parts[axis]:
                    send("all-reduce", parts[axis], nbytes_on_one(result))
        elif not _is_local(equation):
            costs.unknown.add(name)


def _reshard(given: Any, result: Any, send: Callable[..., None]) -> None:
    """What is exchanged for an array to be sharded otherwise.

    Shards are cut where they can be. Then each axis of the mesh that goes to another axis of the array goes
    there, and what shards the array no longer is gathered.
    """
    mesh, wanted = result.sharding.mesh, _parts(result)
    size = math.prod(given.shape) * given.dtype.itemsize
    parts = [()] * given.ndim if given.sharding.mesh.empty else _parts(given)
    used = {axis for part in parts for axis in part}
    parts = [(*own, *(a for a in new if a not in used)) for own, new in zip(parts, wanted, strict=True)]

    def held() -> int:
        return size // math.prod(mesh.shape[axis] for part in parts for axis in part)

    def leave(i: int, axes: list[str]) -> None:
        stay = tuple(a for a in parts[i] if a not in axes)
        if parts[i][: len(stay)] != stay:  # what is left was sharded further
            send("collective-permute", parts[i], held())
        parts[i] = stay

    for i in range(given.ndim):
        for j in range(given.ndim):
            if moved := [a for a in parts[i] if a not in wanted[i] and a in wanted[j]]:
                leave(i, moved)
                parts[j] = (*parts[j], *moved)
                send("all-to-all", moved, held())
    for i in range(given.ndim):
        if gone := [a for a in parts[i] if a not in wanted[i]]:
            leave(i, gone)
            send("all-gather", gone, held())


def _summed_along(equation: Any) -> Sequence[int]:
    """The axes of its first operand along which an operation sums, or the like."""
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return params["dimension_numbers"][0][0]
    return params["axes"] if name.startswith("reduce_") and "axes" in params else ()


def _is_local(equation: Any) -> bool:
    """Whether an operation exchanges nothing, as its types are."""
    name, params = equation.primitive.name, equation.params
    if name.startswith(("cum", "sort")):
        parts = _parts(equation.invars[0].aval)
        return not parts[params.get("axis", params.get("dimension"))]
    return name in BY_ELEMENT or name in MOVES or name in _LOCAL or name.startswith("reduce_")


def _arithmetic(equation: Any) -> int:
    """The operations of arithmetic on one device: one for each element that something is computed for."""
    name = equation.primitive.name
    if name in _FREE:
        return 0
    operands = [on_one(v.aval) for v in equation.invars if hasattr(v.aval, "shape")]
    elements = max(
        (math.prod(on_one(v.aval)) for v in equation.outvars if hasattr(v.aval, "shape")), default=0
    )
    if name == "dot_general":
        ((along, _), _) = equation.params["dimension_numbers"]
        return 2 * elements * math.prod(operands[0][axis] for axis in along)
    if name in _DECOMPOSITIONS:
        *batch, rows, columns = operands[0]
        more = operands[-1][-1]
        return int(math.prod(batch) * _DECOMPOSITIONS[name](max(rows, columns), min(rows, columns), more))
    if name in BY_ELEMENT:
        return elements
    return max(map(math.prod, operands), default=0) if name.startswith(("reduce_", "cum")) else 0


def on_one(aval: Any) -> tuple[int, ...]:
    """The shape of what one device has of a value of a type, or of an abstract array."""
    sharding = getattr(aval, "sharding", None)
    if sharding is None or getattr(sharding, "mesh", sharding) is sharding or sharding.mesh.empty:
        return aval.shape
    sizes = [math.prod(sharding.mesh.shape[axis] for axis in part) for part in _parts(aval)]
    return tuple(n // size for n, size in zip(aval.shape, sizes, strict=True))


def nbytes_on_one(aval: Any) -> int:
    """The size in bytes of what one device has of it."""
    return math.prod(on_one(aval)) * aval.dtype.itemsize


def _parts(aval: Any) -> list[tuple[str, ...]]:
    """The axes of the mesh that shard each axis of a value."""
    spec = aval.sharding.spec
    return [names_of_part(part) for part in [*spec, *[None] * (len(aval.shape) - len(spec))]]


def _is_sharded(equation: Any) -> bool:
    values = (*equation.invars, *equation.outvars)
    shardings = (getattr(v.aval, "sharding", None) for v in values)
    return any(s is not None and any(part is not None for part in s.spec) for s in shardings)


_BY_NAME = {
    **dict.fromkeys(("psum", "psum_invariant", "psum2", "pmax", "pmin"), "all-reduce"),
    **dict.fromkeys(("all_gather", "all_gather_invariant"), "all-gather"),
    "all_to_all": "all-to-all",
    "ppermute": "collective-permute",
    "reduce_scatter": "reduce-scatter",
}
"""The operations that name axes of the mesh, inside of `shard_map`, and what they are when compiled."""
_LOCAL = {"iota", "random_bits", "shard_alike", "optimization_barrier", "platform_index", "top_k"}
_FREE = MOVES | {
    *("convert_element_type", "bitcast_convert_type", "reduce_precision", "copy", "copy_p", "device_put"),
    *("stop_gradient", "sharding_constraint", "broadcast_in_dim", "squeeze", "expand_dims", "reshard"),
    *("pvary", "name", "layout_constraint", "random_seed", "random_wrap", "random_unwrap", "random_clone"),
    *("select_n", "optimization_barrier"),
}
"""What moves numbers, and computes none."""
_DECOMPOSITIONS: dict[str, Callable[[int, int, int], float]] = {
    "cholesky": lambda n, m, _: n**3 / 3,
    "eigh": lambda n, m, _: 9 * n**3,
    "svd": lambda n, m, _: 14 * n * m**2 + 8 * m**3,
    "geqrf": lambda n, m, _: 2 * n * m**2 - 2 * m**3 / 3,
    "householder_product": lambda n, m, _: 2 * n * m**2 - 2 * m**3 / 3,
    "lu": lambda n, m, _: n * m**2 - m**3 / 3,
    "triangular_solve": lambda n, m, more: n**2 * more,
}
"""About how many operations a decomposition takes, by the longer side, the shorter one, and the last axis."""
