"""Code in the guides that names something public links to its page; so do the files of the repository."""

from __future__ import annotations

import functools
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

from reference.names import file_of, page_of


class LinkCode(SphinxPostTransform):
    """Makes a link of each piece of code in a text that names something public."""

    default_priority = 400

    def run(self, **kwargs: Any) -> None:
        here = self.env.current_document.docname
        if here.startswith("api/"):
            return  # these pages have their links already
        for literal in list(self.document.findall(nodes.literal)):
            name = page_of(literal.astext())
            if name and not _within(literal, (nodes.reference, nodes.title)):
                uri = self.app.builder.get_relative_uri(here, f"api/{file_of(name)}")
                link = nodes.reference("", "", internal=True, refuri=uri)
                literal.replace_self(link)
                link += literal


def _within(node: nodes.Node, kinds: tuple[type, ...]) -> bool:
    while node.parent is not None:
        node = node.parent
        if isinstance(node, kinds):
            return True
    return False


def drop_empty_contents(app: Sphinx, page: str, source: list[str]) -> None:
    """A part of the table of contents that takes all pages of a folder is there once the folder has pages."""
    if page == "index":
        docs = Path(app.srcdir)
        for block in re.findall(r"^```{toctree}.*?^```\n", source[0], flags=re.M | re.S):
            empty = [p for p in re.findall(r"^\S*\*$", block, re.M) if not any(docs.glob(f"{p}.md"))]
            shown = re.sub("".join(rf"^{re.escape(p)}\n|" for p in empty) + r"^$.", "", block, flags=re.M)
            has_pages = re.search(r"^\w\S*$", shown, re.M)
            source[0] = source[0].replace(block, shown if has_pages else "")


def edit_source(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """The pages of the reference are edited where the docstring is."""
    if page in app.config.places:
        path, line = app.config.places[page]
        if context.get("theme_source_repository"):
            context["theme_source_edit_link"] = f"{app.config.source_base}/{path}#L{line}"
            context["theme_source_view_link"] = f"{app.config.source_base}/{path}#L{line}"
    elif page.startswith(("api/", "genindex", "search")):
        context["theme_top_of_page_buttons"] = []


def fold_contents(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """The table of contents of a page opens where the page is, and nowhere else: written out it has 400 names."""
    if "toctree" in context:
        context["toctree"] = functools.partial(_folded, context["toctree"])


def _folded(toctree: Callable[..., str], **options: Any) -> str:
    return toctree(**{**options, "collapse": True})


def copy_source(app: Sphinx, error: Exception | None) -> None:
    """The source beside the pages, as Sphinx has their own: the same version, and there without a repository."""
    if error is None and app.builder.format == "html":
        package = Path(app.srcdir).parent / "gradtx"
        shutil.copytree(
            package,
            Path(app.outdir) / "_sources" / "gradtx",
            ignore=shutil.ignore_patterns("__pycache__", "py.typed"),
            copy_function=lambda a, b: shutil.copyfile(a, f"{b}.txt"),
            dirs_exist_ok=True,
        )


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_post_transform(LinkCode)
    app.connect("source-read", drop_empty_contents)
    app.connect("html-page-context", fold_contents, priority=100)
    app.connect("html-page-context", edit_source, priority=900)
    app.connect("build-finished", copy_source)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
