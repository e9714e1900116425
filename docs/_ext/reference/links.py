"""Code in the guides that names something public links to its page; so do the files of the repository."""

from __future__ import annotations

import functools
import importlib.util
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform

from reference.names import file_of, page_of


class TrimCode(SphinxTransform):
    """A doctest in Markdown ends with an empty line, which a page need not show."""

    default_priority = 210

    def apply(self, **kwargs: Any) -> None:
        for block in self.document.findall(nodes.literal_block):
            block.rawsource = block.astext().rstrip("\n")
            block[:] = [nodes.Text(block.rawsource)]


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
        source[0] = re.sub(
            r"^```{toctree}.*?^```$",
            lambda block: _with_pages(block[0], Path(app.srcdir)),
            source[0],
            flags=re.M | re.S,
        )


def _with_pages(block: str, docs: Path) -> str:
    """A table of contents without the patterns that no page fits; empty if nothing else was in it."""
    lines = block.splitlines()
    kept = [x for x in lines if not x.endswith("*") or any(docs.glob(f"{x}.md"))]
    return "\n".join(kept) if any(re.match(r"\w", x) for x in kept) else ""


def edit_source(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """The pages of the reference are edited where the docstring is."""
    if page in app.config.places:
        path, line = app.config.places[page]
        if repository := context.get("theme_source_repository"):
            branch = context["theme_source_branch"]
            context["theme_source_edit_link"] = f"{repository}edit/{branch}/{path}#L{line}"
            context["theme_source_view_link"] = f"{app.config.source_base}/{path}#L{line}"
    elif page.startswith(("api/", "genindex", "search")):
        context["theme_top_of_page_buttons"] = []


def fold_contents(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """The table of contents beside a page is open where the page is: in all it has 400 names."""
    if "toctree" in context:
        context["toctree"] = functools.partial(_folded, context["toctree"])


def _folded(toctree: Callable[..., str], **options: Any) -> str:
    return toctree(**{**options, "collapse": True})


def copy_mathjax(app: Sphinx) -> None:
    """MathJax, of which one file is needed, from the package that brings it for Sphinx."""
    if app.builder.format == "html":
        spec = importlib.util.find_spec("sphinx-mathjax-offline")
        assert spec is not None and spec.origin is not None
        target = Path(app.outdir) / "_static" / app.config.mathjax_path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(spec.origin).parent / "static" / app.config.mathjax_path, target)


def copy_source(app: Sphinx, error: Exception | None) -> None:
    """The source, beside that of the pages: so it is of the same version, and needs no repository."""
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
    app.add_transform(TrimCode)
    app.add_post_transform(LinkCode)
    app.connect("builder-inited", copy_mathjax)
    app.connect("source-read", drop_empty_contents)
    app.connect("html-page-context", fold_contents, priority=100)
    app.connect("html-page-context", edit_source, priority=900)
    app.connect("build-finished", copy_source)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
