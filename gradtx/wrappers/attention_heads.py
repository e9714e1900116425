"""Which leaves are the queries and keys of an attention, and which part of a leaf belongs to which head."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import Declared
from gradtx.core.spec.spec import show

Role = Literal["query", "key", "rotary_query", "value"]
"""What a head, or a part of it, is: a rotary query meets keys that all heads share."""

ROLES: tuple[str, ...] = get_args(Role)


class Heads(Declared, name="heads"):
    """What a leaf is in an attention, and which of its axes are heads."""

    role: Any
    axes: str
    number: Any

    def check(self) -> None:
        if isinstance(self.role, list):
            self._set(role=tuple(self.role))
        kinds = self.role if isinstance(self.role, tuple | Mapping) else (self.role,)
        if not kinds or len({*map(str, kinds)}) < len(kinds) or not all(kind in ROLES for kind in kinds):
            raise ValueError(
                f"{self.name}: role is one of {', '.join(map(repr, ROLES))}, a tuple of them for heads of "
                f"several kinds, or a dict from them to sizes for the parts of each head; got "
                f"{show(self.role)}."
            )
        if isinstance(self.role, Mapping) and not all(map(_is_count, self.role.values())):
            raise ValueError(
                f"{self.name}: the size of each part of a head is an int >= 1; got {show(self.role)}."
            )
        letters = self.axes if isinstance(self.axes, str) else ""
        some_heads = bool({"h", "d"} & {*letters})
        if not (some_heads and {*letters} <= {*"bihd"} and letters.count("d") <= 1):
            raise ValueError(
                f"{self.name}: axes has a letter for each axis of a leaf, 'h' for heads, a 'd' for the size "
                f"of each, 'i' for inputs and 'b' for a batch of layers, with an 'h' or a 'd' at least; got "
                f"{show(self.axes)}."
            )
        counts = self.number if isinstance(self.number, tuple) else (self.number,)
        known = self.number is None or all(map(_is_count, counts))
        if not known or (isinstance(self.number, tuple) and not self._fits(self.number)):
            raise ValueError(
                f"{self.name}: number is how many heads there are, an int >= 1, or a tuple of such, one for "
                f"each kind of heads; got {show(self.number)}."
            )
        if "d" not in letters:
            if letters.count("h") > 1:
                raise ValueError(
                    f"{self.name}: where several axes are heads another one is the size of each, 'd'; got "
                    f"axes={show(self.axes)}."
                )
            if self.number is None and not isinstance(self.role, Mapping):
                raise ValueError(
                    f"{self.name}: with axes={show(self.axes)} the heads stand beside each other in one "
                    f"axis. Say how many they are, as in gradtx.heads({show(self.role)}, "
                    f"{show(self.axes)}, number=8)."
                )

    def _fits(self, numbers: tuple[int, ...]) -> bool:
        return isinstance(self.role, tuple) and len(numbers) == len(self.role)

    @property
    def roles(self) -> tuple[str, ...]:
        """What is in the leaf."""
        return (self.role,) if isinstance(self.role, str) else tuple(self.role)

    def of(self, shape: tuple[int, ...]) -> HeadsOf:
        """The heads of a leaf of a shape.

        Raises:
            ValueError: it has another number of axes, or its sizes are not those of such heads.
        """
        if len(self.axes) != len(shape):
            raise ValueError(
                f"{self!r} is of {len(self.axes)} axes, and the leaf has the shape {tuple(shape)}"
            )
        sizes = {
            letter: [n for n, x in zip(shape, self.axes, strict=True) if x == letter] for letter in "bhd"
        }
        parts = tuple(self.role.items()) if isinstance(self.role, Mapping) else ()
        along, total = math.prod(sizes["h"]), self._total
        if sizes["d"]:
            (size,) = sizes["d"]
            total = along if total is None else total
            if total != along:
                raise ValueError(f"it has {along} heads along its axes, which are not {total}")
        else:
            size = sum(n for _, n in parts) or along // (total or 1)
            total = along // size if total is None and size else total or 1
            if total * size != along:
                raise ValueError(f"{along} entries are not {total} heads of one size")
        if parts and sum(n for _, n in parts) != size:
            shown = " and ".join(str(n) for _, n in parts)
            raise ValueError(f"parts of {shown} are {sum(n for _, n in parts)}, of a head of {size}")
        return HeadsOf(tuple(shape), self.axes, tuple(sizes["b"]), self._kinds(total), parts, size)

    @property
    def _total(self) -> int | None:
        """The number of heads of all kinds, if it was given."""
        if isinstance(self.number, tuple) or self.number is None:
            return None if self.number is None else sum(self.number)
        return self.number * len(self.role) if isinstance(self.role, tuple) else self.number

    def _kinds(self, total: int) -> tuple[tuple[str, int], ...]:
        """The number of heads of each kind; of a head that has parts, each part has them all."""
        if not isinstance(self.role, tuple):
            return tuple((role, total) for role in self.roles)
        numbers = self.number if isinstance(self.number, tuple) else None
        if numbers is None and total % len(self.role):
            raise ValueError(f"{total} heads are not as many of each of {', '.join(self.role)}")
        return tuple(zip(self.role, numbers or [total // len(self.role)] * len(self.role), strict=True))


def _is_count(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool) and x >= 1


@dataclasses.dataclass(frozen=True)
class HeadsOf:
    """The heads of a leaf of a known shape.

    Attributes:
        shape: the shape of the leaf.
        axes: a letter for each axis, as in `heads`.
        batch: the sizes of the axes that are layers.
        kinds: the number of heads of each role.
        parts: the size of each part of a head; empty where a head is one thing.
        size: the size of a head.
    """

    shape: tuple[int, ...]
    axes: str
    batch: tuple[int, ...]
    kinds: tuple[tuple[str, int], ...]
    parts: tuple[tuple[str, int], ...]
    size: int

    def number(self, role: str) -> int | None:
        """How many heads of a role there are, if any."""
        return dict(self.kinds).get(role)

    def spread(self, factors: Mapping[str, jax.Array]) -> jax.Array:
        """A factor for each head, (*batch, heads) by role, as an array that multiplies the leaf.

        A role without a factor keeps a 1.
        """
        one = next(iter(factors.values()))

        def of(role: str, number: int) -> jax.Array:
            found = factors.get(role)
            return jnp.ones((*self.batch, number), one.dtype) if found is None else found

        if self.parts:
            numbers = dict(self.kinds)
            each = [(of(role, numbers[role]), size) for role, size in self.parts]
            by_head = jnp.concatenate(
                [jnp.broadcast_to(x[..., None], (*x.shape, size)) for x, size in each], axis=-1
            )
        else:
            by_head = jnp.concatenate([of(role, number) for role, number in self.kinds], axis=-1)[..., None]
        if "d" not in self.axes:
            whole = jnp.broadcast_to(by_head, (*by_head.shape[:-1], self.size))
            return self._arranged(whole.reshape(*self.batch, by_head.shape[-2] * self.size), "h")
        along = [n for n, letter in zip(self.shape, self.axes, strict=True) if letter == "h"]
        return self._arranged(by_head.reshape(*self.batch, *along, by_head.shape[-1]), "h" * len(along) + "d")

    def _arranged(self, x: jax.Array, letters: str) -> jax.Array:
        """An array of the batch and of axes with some letters, with its axes where the leaf has them."""
        order = {
            letter: iter([i for i, own in enumerate("b" * len(self.batch) + letters) if own == letter])
            for letter in "bhd"
        }
        axes = [next(order[letter]) for letter in self.axes if letter != "i"]
        turned = iter(jnp.transpose(x, axes).shape)
        return jnp.transpose(x, axes).reshape([1 if letter == "i" else next(turned) for letter in self.axes])


@builds(Heads)
def heads(
    role: Role | Mapping[Role, int] | tuple[Role, ...],
    axes: str = "ihd",
    number: int | tuple[int, ...] | None = None,
) -> Heads:
    """Says which part of a leaf belongs to which head of an attention, for `gradtx.qk_clip`.

    Args:
        role: what the leaf is: `"query"`, `"key"`, `"value"`, or a `"rotary_query"`, which meets keys that
            all heads share. A dict if each head has several parts, with the size of each in their order, as
            in `{"query": 128, "rotary_query": 64}`; a tuple if heads of several kinds stand one after
            another, as in `("query", "key", "value")`.
        axes: a letter for each axis, `'h'` for heads, `'d'` for the size of each, `'i'` for inputs, `'b'` for
            a batch of layers that are scanned. `"ihd"` is a kernel of Flax, `"hd"` its bias, `"bihd"` its
            stack. Without a `'d'` the axis `'h'` has the heads beside each other, each of several entries:
            `"ih"`, or `"hi"` as torch has it. Several axes of heads are one, in their order.
        number: how many heads there are; needed where an axis has them beside each other. For heads of
            several kinds that of each, or a tuple, as in `(32, 8, 8)`; by default there are as many of each.

    Returns:
        What `gradtx.qk_clip` takes for the leaf.

    Raises:
        ValueError: another role or another letter, no axis of heads, or a number that is not >= 1.

    Examples:
        >>> import gradtx
        >>> gradtx.heads("key", "bihd")
        heads('key', axes='bihd')
        >>> gradtx.heads(("query", "key", "value"), "ih", number=(32, 8, 8))
        heads(('query', 'key', 'value'), axes='ih', number=(32, 8, 8))
    """
    ...
