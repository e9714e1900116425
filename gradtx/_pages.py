"""What people read of an object: sentences, code and tables, as text in a terminal and as HTML in a notebook.

Both are made of the same blocks. The HTML has no colours of its own, so that it is read on any background,
and it loads and runs nothing.
"""

from __future__ import annotations

import dataclasses
import html
import re
import textwrap
from collections.abc import Iterable, Sequence

WIDTH = 100
"""The columns of a terminal."""


def filled(text: str, indent: str = "", hang: str = "    ") -> list[str]:
    """The lines of a text, the first after `indent`, the others `hang` deeper."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + hang,
        break_on_hyphens=False,
    )


class Block:
    """A part of a page."""

    def lines(self) -> list[str]:
        """It in a terminal."""
        raise NotImplementedError

    def html(self) -> str:
        """It in a notebook."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Sentences(Block):
    """Sentences, each on a line of its own."""

    texts: Sequence[str]

    def lines(self) -> list[str]:
        return [line for text in self.texts for line in filled(text)]

    def html(self) -> str:
        return "".join(f"<div>{escaped(text)}</div>" for text in self.texts)


@dataclasses.dataclass(frozen=True)
class Line(Block):
    """A line that is never cut."""

    text: str

    def lines(self) -> list[str]:
        return [self.text]

    def html(self) -> str:
        return f"<div>{escaped(self.text)}</div>"


@dataclasses.dataclass(frozen=True)
class Code(Block):
    """Code or a formula behind what it is of, in at most so many lines of a terminal."""

    name: str
    code: str
    most: int | None = None

    def lines(self) -> list[str]:
        lines = filled(f"{self.name} {self.code}")
        return lines if self.most is None or len(lines) <= self.most else [*lines[: self.most], "    ..."]

    def html(self) -> str:
        return f"<div>{escaped(self.name)} <code{_style(CODE)}>{escaped(self.code)}</code></div>"


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table: its cells, how deep it is below others, and what is said under it."""

    cells: Sequence[str]
    depth: int = 0
    notes: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Table(Block):
    """A table.

    Attributes:
        head: the names of the columns.
        rows: the rows.
        sides: the side of each column on which its cells begin, `<` or `>`.
    """

    head: Sequence[str]
    rows: Sequence[Row]
    sides: str

    def lines(self) -> list[str]:
        rows = [Row(self.head), *self.rows]
        cells = [["  " * row.depth + row.cells[0], *row.cells[1:]] for row in rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = []
        for row, texts in zip(rows, cells, strict=True):
            columns = [f"{text:{side}{n}}" for text, side, n in zip(texts, self.sides, widths, strict=True)]
            lines.append("  ".join(columns).rstrip())
            lines += [x for note in row.notes for x in filled(note, "  " * row.depth + "    ", "  ")]
        return lines

    def html(self) -> str:
        """The notes of a row stand in a last column, where they need no line of their own."""
        has_notes = any(row.notes for row in self.rows)
        sides = self.sides + "<" * has_notes
        head = [*self.head, *[""] * has_notes]
        lines = [_html_row("th", [escaped(cell) for cell in head], sides, HEAD)]
        for row in self.rows:
            notes = "".join(f"<div>{escaped(note)}</div>" for note in row.notes)
            cells = [*map(escaped, row.cells), *[notes] * has_notes]
            lines.append(_html_row("td", cells, sides, CELL, row.depth))
        body = "".join(lines[1:])
        return f"<table{_style(TABLE)}><thead>{lines[0]}</thead><tbody>{body}</tbody></table>"


RULE = "1px solid rgba(128, 128, 128, 0.4)"
"""A line that is seen on white and on black."""
PAGE = "overflow-x: auto; line-height: 1.4"
PART = "margin: 0 0 0.7em 0"
TABLE = "border-collapse: collapse; margin: 0.3em 0; font-size: inherit; color: inherit; background: none"
HEAD = f"padding: 0.2em 0.8em; vertical-align: bottom; border-bottom: {RULE}"
CELL = "padding: 0.2em 0.8em; vertical-align: top"
CODE = "color: inherit; background: none; padding: 0; white-space: pre-wrap"


def escaped(text: str) -> str:
    """A text as HTML, in which nothing is markup."""
    return html.escape(text).replace("\n", "<br>")


def _style(rules: str) -> str:
    return f' style="{rules}"'


def _html_row(tag: str, cells: Sequence[str], sides: str, rules: str, depth: int = 0) -> str:
    made = []
    for i, (cell, side) in enumerate(zip(cells, sides, strict=True)):
        own = f"{rules}; text-align: {'left' if side == '<' else 'right; white-space: nowrap'}"
        if i == 0 and depth:
            own += f"; padding-left: {0.8 + 1.4 * depth:.1f}em"
        made.append(f"<{tag}{_style(own)}>{cell}</{tag}>")
    return f"<tr>{''.join(made)}</tr>"


def code_block(code: str) -> str:
    """Code as HTML, with the names of what is called in bold."""
    parts, end = [], 0
    for found in re.finditer(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[A-Za-z_][\w.]*(?=\()""", code):
        parts.append(html.escape(code[end : found.start()]))
        word, end = html.escape(found.group()), found.end()
        parts.append(word if found.group()[0] in "'\"" else f"<b>{word}</b>")
    parts.append(html.escape(code[end:]))
    return f"<pre{_style(f'{CODE}; margin: 0')}>{''.join(parts)}</pre>"


def folded(title: str, content: str, is_open: bool) -> str:
    """HTML that is shown when its title is chosen, or at once."""
    return f"<details{' open' * is_open}><summary>{escaped(title)}</summary>{content}</details>"


def as_text(parts: Iterable[Sequence[Block]]) -> str:
    """Parts of a page for a terminal, with an empty line between them; those without a line are left out."""
    texts = [[line for block in part for line in block.lines()] for part in parts]
    return "\n\n".join("\n".join(text) for text in texts if text)


def page(*parts: str) -> str:
    """Parts of a page in HTML."""
    return f"<div{_style(PAGE)}>{''.join(f'<div{_style(PART)}>{part}</div>' for part in parts if part)}</div>"


class Page:
    """What prints as text, and shows as HTML in a notebook."""

    __slots__ = ()

    def blocks(self) -> Iterable[Sequence[Block]]:
        """What it says, in parts between which there is some space."""
        raise NotImplementedError

    def __str__(self) -> str:
        return as_text(self.blocks())

    def _repr_html_(self) -> str:
        return page(*("".join(block.html() for block in part) for part in self.blocks()))
