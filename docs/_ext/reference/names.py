"""Names in text: which of them are public names of gradtx, and where their pages are."""

from __future__ import annotations

import re

from reference import concepts

ALIASES = concepts.aliases()
PAGES = {other: name for name, others in ALIASES.items() for other in (name, *others)}
"""The name under which each public name has its page."""

_LOWER = [name.lower() for name in ALIASES]
ORDINARY = frozenset(
    re.findall(
        r"\w+",
        """add came check clip diff dog fraction heads identity key mask masked metrics momo negate normalize
        number offset params positive rate ratio rebase recipe report route rule scalar scale schedule sign
        slot sqrt square trace track transform updates""",
    )
)
"""Public names that are words or letters of mathematics too: in a text they need `gradtx.` or a call."""


def file_of(name: str) -> str:
    """The file of a page, without its ending; no two differ in case alone."""
    return f"{name}-class" if _LOWER.count(name.lower()) > 1 and name[0].isupper() else name


def page_of(code: str) -> str | None:
    """The name whose page tells of some code, such as `gradtx.adam`, `adam(1e-3)` or `Rule.apply`."""
    match = re.fullmatch(r"(gradtx\.)?([A-Za-z_][\w.]*)(\(.*\))?", code.strip(), re.S)
    if match is None:
        return None
    prefix, dotted, call = match.groups()
    if dotted not in PAGES and "." in dotted and prefix:
        dotted = dotted.rpartition(".")[0]
    if dotted not in PAGES or not (prefix or call or dotted.lower() not in ORDINARY):
        return None
    return PAGES[dotted]


def escaped(text: str) -> str:
    """Plain words as Markdown that shows them as they are."""
    return re.sub(r"([\\*_{}\[\]<>#|$~^`])", r"\\\1", text)


def prose(text: str, up: str = "", here: str = "") -> str:
    """The words of a docstring as Markdown, with links to pages and papers.

    `up` leads from the page to the folder `docs`, `here` is the name that the page is of.
    """
    parts = re.split(r"(`[^`]+`|https?://\S+)", text)
    return "".join(_part(part, up, here) for part in parts)


def _part(part: str, up: str, here: str) -> str:
    if part.startswith("`"):
        code = part.strip("`")
        if guide := re.fullmatch(r"docs/([\w-]+)\.md", code):
            return f"[{guide[1]}]({up}{guide[1]}.md)"
        name = page_of(code)
        # In a docstring a name without call is rarely a word.
        name = name or (PAGES.get(code) if code in ALIASES and up else None)
        return f"[{part}]({up}api/{file_of(name)}.md)" if name and name != here else part
    if part.startswith("http"):
        url = part.rstrip(".,;)")
        paper = re.fullmatch(r"https?://arxiv\.org/abs/([\d.]+)", url)
        shown = f"[arXiv:{paper[1]}]({url})" if paper else f"<{url}>"
        return shown + escaped(part[len(url) :])
    return escaped(part)
