"""What a notebook shows of a transform: its code, and a table of its hyperparameters."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gradtx._pages import Row, Sentences, Table, code_block, folded, page
from gradtx.core.engine.composed import Composed
from gradtx.core.engine.transform import Transform
from gradtx.core.numbers.paths import Path
from gradtx.core.spec.spec import show
from gradtx.core.spec.words import count
from gradtx.inspect.docstrings import meaning

FEW = 8
"""The hyperparameters that are shown at once; more are shown when their number is chosen."""


def overview(tx: Transform) -> str:
    """A transform as HTML. One that no program can be made of shows why."""
    code = code_block(str(tx))
    try:
        rows = [Row(cells) for cells in _hyperparams(tx)]
    except (TypeError, ValueError) as error:
        return page(code, Sentences([str(error)]).html())
    if not rows:
        return page(code)
    table = Table(["hyperparameter", "value", "of", "what it is"], rows, "<<<<")
    return page(code, folded(count(len(rows), "hyperparameter"), table.html(), len(rows) <= FEW))


def _hyperparams(tx: object, outer: Path = ()) -> Iterator[tuple[str, str, str, str]]:
    """The name, the value, the place and the meaning of each hyperparameter, also of what is wrapped."""
    if not isinstance(tx, Composed):
        return
    for scope, arguments in tx.program.scopes.items():
        # The second of one name has a number behind it, and what is in a group the group's name before it.
        call = re.sub(r"_\d+$", "", scope[-1].rpartition(".")[2])
        for name, (value, *_) in arguments.items():
            yield name, show(value), ".".join((*outer, *scope)), meaning(call, name)
    for path, inner in tx.program.wrapped.items():
        yield from _hyperparams(inner, (*outer, *path))
