"""What the guides say of a public name: the sections, and the rows of the tables of other libraries."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from reference.names import page_of

FOLDERS = ("tutorials", "why")
LEFT_OUT = ("index", "tasks", "board", "benchmarks", "peers", "design", "laws", "conformance")
"""Pages that name nearly everything, or nothing for users."""

TORCH = {
    **{name.lower(): name for name in ("SGD", "Adam", "AdamW", "Adagrad", "RMSprop", "Adadelta", "Rprop")},
    **{name.lower(): name for name in ("RAdam", "Adamax", "NAdam", "LBFGS")},
}
"""The optimizers of torch that have the same name here."""


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a guide: where it is, and what it says."""

    file: str
    page: str
    title: str
    text: str

    @property
    def names(self) -> set[str]:
        """The public names that it speaks of."""
        code = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", self.text, flags=re.M | re.S))
        called = re.findall(r"gradtx\.\w+(?:\.\w+)?", self.text)
        return {name for x in [*code, *called] if (name := page_of(x))}

    @property
    def link(self) -> str:
        return self.file if self.title == self.page else f"{self.file}#{slug(self.title)}"

    def rows(self) -> list[list[str]]:
        """The rows of its tables, the header first."""
        lines = [line for line in self.text.splitlines() if line.startswith("| ") or line.startswith("|---")]
        return [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def slug(title: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def read(docs: Path) -> list[Section]:
    """The sections of all guides."""
    files = [p for p in sorted(docs.glob("*.md")) if p.stem not in LEFT_OUT]
    files += [p for folder in FOLDERS for p in sorted((docs / folder).glob("*.md"))]
    found = []
    for path in files:
        text = path.read_text()
        page = re.search(r"^# (.*)", text, re.M)
        for part in re.split(r"^(?=#{1,3} )", text, flags=re.M):
            title = re.match(r"#{1,3} (.*)", part)
            if page and title:
                found.append(Section(str(path.relative_to(docs)), page[1], title[1], part))
    return found


def torch_names(sections: list[Section], name: str) -> list[tuple[str, Section]]:
    """What torch calls it, and where the guide says so."""
    found = []
    for section in sections:
        if section.file != "from-torch.md":
            continue
        called = TORCH.get(name)
        if called and re.search(rf"\b{called}\b", section.title):
            found.append((f"`torch.optim.{called}`", section))
        header, *rows = section.rows() or [[]]
        if header[:1] == ["torch.optim.lr_scheduler"]:
            found += [(row[0], section) for row in rows if re.search(rf"`{name}\(", row[1])]
    return found


def beside_optax(sections: list[Section], name: str) -> list[str]:
    """What differs from Optax's, as the table of the guide says it."""
    rows = [
        row for s in sections if s.file == "from-optax.md" for row in s.rows() if s.title == "Side by side"
    ]
    return [row[1] for row in rows if re.search(rf"`{name}(`|\()", row[0])]
