"""What became of a state in other formats."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from gradtx.core.spec.words import size


@dataclasses.dataclass(frozen=True)
class Change:
    """How one slot, or the parameters, were kept, and how they are kept now.

    Attributes:
        before: the formats of its leaves.
        after: the same now.
        bytes_before: the bytes of all its leaves, their scales among them.
        bytes_after: the same now.
        error: by how much an element has changed at most, as a part of the largest element of its leaf; what
            is not finite aside.
    """

    before: str
    after: str
    bytes_before: int
    bytes_after: int
    error: float


@dataclasses.dataclass(frozen=True, repr=False)
class Converted:
    """What `convert_state` changed; it prints as a table.

    Attributes:
        params: what became of the parameters, together with what is kept beside them.
        slots: what became of each slot, by its transform and its name.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> params, tx = {"w": jnp.ones((64, 128))}, gradtx.adamw(1e-3)
        >>> _, _, report = gradtx.convert_state(tx, tx.init(params), gradtx.precision(tx, "8bit"), params)
        >>> print(report)
                          before             after                       error
        scale_by_adam.mu  float32  32.0 KiB  int8               8.2 KiB      0
        scale_by_adam.nu  float32  32.0 KiB  uint8_stochastic   8.2 KiB      0
        in all                     96.0 KiB                    48.5 KiB
        As they were: params
    """

    params: Change
    slots: Mapping[str, Change]

    @property
    def changed(self) -> dict[str, Change]:
        """What is kept in another format now, or has lost digits, by name; the parameters are `params`."""
        return {k: x for k, x in self._all.items() if x.before != x.after or x.error}

    @property
    def _all(self) -> dict[str, Change]:
        return {"params": self.params, **self.slots}

    def __repr__(self) -> str:
        every, changed = self._all, self.changed
        total = (sum(getattr(x, name) for x in every.values()) for name in ("bytes_before", "bytes_after"))
        rows = [
            (name, x.before, size(x.bytes_before), x.after, size(x.bytes_after), f"{x.error:.2g}")
            for name, x in changed.items()
        ]
        before, after = map(size, total)
        rows.append(("in all", "", before, "", after, ""))
        names, olds, old_sizes, news, new_sizes, errors = (
            max(map(len, column)) for column in zip(*rows, strict=True)
        )
        errors = max(errors, len("error"))
        head = f"{'':{names}}  {'before':{olds + 2 + old_sizes}}  {'after':{news + 2 + new_sizes}}  "
        lines = [f"{head}{'error':>{errors}}"] if changed else []
        lines += [
            f"{a:{names}}  {b:{olds}}  {c:>{old_sizes}}  {d:{news}}  {e:>{new_sizes}}  {f:>{errors}}".rstrip()
            for a, b, c, d, e, f in rows
        ]
        rest = [name for name in every if name not in changed]
        return "\n".join([*lines, *([f"As they were: {', '.join(rest)}"] if rest else [])])
