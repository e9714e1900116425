"""A docstring of gradtx taken apart: the words, the formulas, and the sections."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from typing import Any

SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Examples", "References")


@dataclasses.dataclass
class Docstring:
    """What a docstring says.

    Attributes:
        summary: its first paragraph, which is one sentence.
        body: what comes before the sections, as paragraphs; an indented one is a block to show as it is.
        sections: the text of each section by its name.
    """

    summary: str
    body: list[str]
    sections: dict[str, str]

    @classmethod
    def of(cls, text: str | None) -> Docstring:
        head, *rest = re.split(rf"^({'|'.join(SECTIONS)}):\n", inspect.cleandoc(text or ""), flags=re.M)
        first, _, body = head.partition("\n\n")
        sections = {}
        for name, said in zip(rest[::2], rest[1::2], strict=True):
            # What is not indented after a section is none of it.
            inside, *after = re.split(r"^(?=\S)", said, maxsplit=1, flags=re.M)
            sections[name] = textwrap.dedent(inside).rstrip()
            body += "\n\n".join(["", *after])
        paragraphs = [p for p in re.split(r"\n\s*\n", body.rstrip()) if p.strip()]
        return cls(" ".join(first.split()), _joined(paragraphs), sections)

    def items(self, section: str) -> list[tuple[str, str]]:
        """The entries `name: what it is` of a section."""
        found = re.split(r"^(\*{0,2}\w[\w.]*): ?", self.sections.get(section, ""), flags=re.M)
        return [(name, " ".join(said.split())) for name, said in zip(found[1::2], found[2::2], strict=True)]


def _joined(paragraphs: list[str]) -> list[str]:
    """Blocks that follow each other are one."""
    result: list[str] = []
    for p in paragraphs:
        if result and is_block(p) and is_block(result[-1]):
            result[-1] += f"\n\n{p}"
        else:
            result.append(p)
    return result


def is_block(paragraph: str) -> bool:
    """Whether a paragraph is indented, as formulas are."""
    return paragraph.startswith("    ")


def of(thing: Any) -> Docstring:
    return Docstring.of(inspect.getdoc(thing) if thing is not None else "")
