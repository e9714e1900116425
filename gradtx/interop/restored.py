"""What became of a stored state under another transform."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping

_OF_FORMATS = re.compile(r"^slots/(.*/)?([^/]*_scales|([^/]*\.)?precise_params(_\d+)?)(/|$)")
"""The paths of scales, and of what `precise_params` keeps."""


@dataclasses.dataclass(frozen=True, repr=False)
class Restored:
    """What `from_state_dict` did with each entry, by its path.

    Attributes:
        kept: entries that were restored.
        cast: of these, the ones that changed their dtype: the old and the new one.
        new: entries of the transform that the dict lacks; they start as `init` makes them.
        dropped: entries of the dict that the transform has no place for.
        reshaped: entries of another shape, or kind or range of numbers, which start anew: the old and the new
            one.
        step: the step of the dict, at which what is new starts; the last of a batch.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> params = {"w": jnp.ones(3), "b": jnp.ones(())}
        >>> d = gradtx.to_state_dict(gradtx.adam(0.1).init(params))
        >>> state, restored = gradtx.from_state_dict(
        ...     gradtx.adam(0.1), {"w": jnp.ones(4), "b": jnp.ones(())}, d, strict=False
        ... )
        >>> print(restored)
        kept      8 entries
        reshaped  slots/scale_by_adam/mu/w, float32[3] and now float32[4], anew
                  slots/scale_by_adam/nu/w, float32[3] and now float32[4], anew
    """

    kept: tuple[str, ...]
    cast: Mapping[str, tuple[str, str]]
    new: tuple[str, ...]
    dropped: tuple[str, ...]
    reshaped: Mapping[str, tuple[str, str]]
    step: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether every entry of the dict was restored, and every one of the transform was in it."""
        return not (self.new or self.dropped or self.reshaped)

    @property
    def differs_in_formats(self) -> bool:
        """Whether something is kept otherwise in the two: with scales, beside parameters, or as codes."""
        keys = (*self.new, *self.dropped, *self.reshaped)
        kinds = [kind for pair in self.reshaped.values() for kind in pair]
        return any(map(_OF_FORMATS.search, keys)) or any(re.match("u?int8|float8", kind) for kind in kinds)

    def __repr__(self) -> str:
        rows = [
            ("kept", [f"{len(self.kept)} entr{'y' if len(self.kept) == 1 else 'ies'}"]),
            ("cast", [f"{name}, {old} to {new}" for name, old, new in self._pairs(self.cast)]),
            ("new", self.groups(self.new)),
            ("dropped", self.groups(self.dropped)),
            (
                "reshaped",
                [f"{name}, {old} and now {new}, anew" for name, old, new in self._pairs(self.reshaped)],
            ),
        ]
        lines = []
        for title, texts in rows:
            for i, text in enumerate(texts):
                lines.append(f"{title if i == 0 else '':10}{text}")
        if self.step and any(key.startswith("slots/") for key in (*self.new, *self.reshaped)):
            lines += [
                f"{'':10}New slots start at step {self.step}. Where the step corrects them, as it does",
                f"{'':10}Adam's moments, the first updates may be several times too large.",
            ]
        if self.differs_in_formats:
            lines += [
                f"{'':10}What is only kept in another way need not start anew: restore the state for the",
                f"{'':10}transform that made it, and call gradtx.convert_state(old_tx, state, tx, params).",
            ]
        return "\n".join(lines)

    def groups(self, keys: Iterable[str]) -> list[str]:
        """A short list of entries: a path stands for all entries under it, if all of them are in the list."""
        every = [*self.kept, *self.new, *self.dropped, *self.reshaped]
        wanted, counts, totals = set(keys), dict[str, int](), dict[str, int]()
        for key in every:
            for path in _upwards(key):
                totals[path] = totals.get(path, 0) + 1
                counts[path] = counts.get(path, 0) + (key in wanted)
        found: dict[str, int] = {}
        for key in sorted(wanted):
            # A leaf of one state may be a subtree of the other, whose entries are not among the wanted.
            whole = [path for path in _upwards(key) if counts[path] == totals[path]] or [key]
            found[whole[-1]] = counts[whole[-1]]
        return [path if n == 1 else f"{path} ({n} entries)" for path, n in found.items()]

    def _pairs(self, changes: Mapping[str, tuple[str, str]]) -> list[tuple[str, str, str]]:
        """Changes, where all of one kind are put together."""
        by_pair: dict[tuple[str, str], list[str]] = {}
        for key, pair in changes.items():
            by_pair.setdefault(pair, []).append(key)
        return [(name, *pair) for pair, keys in by_pair.items() for name in self.groups(keys)]


def _upwards(key: str) -> list[str]:
    """A path and those above it, itself first."""
    parts = key.split("/")
    return ["/".join(parts[:n]) for n in range(len(parts), 0, -1)]
