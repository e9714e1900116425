"""What a check finds: each with how bad it is, where, and what to do."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

from gradtx._pages import Row, Sentences, Table, filled, page
from gradtx.core.spec.words import count, some

Severity = Literal["error", "warning", "note"]
"""How bad a finding is: the run will not do what an optimizer is for; it is probably not what was meant; it
may well be meant, and is to be looked at once."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that a check has found.

    Attributes:
        name: what kind of finding it is, in a word or two.
        severity: how bad it is.
        what: what was found.
        remedy: what to do.
        leaves: the paths of the leaves that it is about; none where it is about the whole.
    """

    name: str
    severity: Severity
    what: str
    remedy: str
    leaves: tuple[str, ...] = ()

    @property
    def rank(self) -> int:
        """Its place in an order with the worst first."""
        return get_args(Severity).index(self.severity)

    @property
    def where(self) -> str:
        """The leaves in words; empty where it is about the whole."""
        return f"{count(len(self.leaves), 'leaf', 'leaves')}: {some(self.leaves)}" if self.leaves else ""

    def __str__(self) -> str:
        lines = filled(f"{self.severity}, {self.name}: {self.what}")
        if self.leaves:
            lines += filled(self.where, "    ", "")
        return "\n".join([*lines, *filled(self.remedy, "    ", "")])


class Findings(tuple[Finding, ...]):
    """The findings of a check, the worst first. It prints as a text, and is empty where nothing was found."""

    def __str__(self) -> str:
        return "\n".join(map(str, self)) if self else "Nothing found."

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        if not self:
            return page(Sentences([str(self)]).html())
        rows = [Row([x.severity, x.name, "\n".join(filter(None, [x.what, x.where])), x.remedy]) for x in self]
        return page(Table(["", "finding", "what was found", "what to do"], rows, "<<<<").html())
