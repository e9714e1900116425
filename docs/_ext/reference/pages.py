"""Writes the page of each public name, and of each group of them, from what the code says."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import os
import re
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import optax
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

import gradtx
from reference import concepts, docstring, formulas, guides, pictures
from reference.docstring import Docstring
from reference.names import ALIASES, PAGES, escaped, file_of, page_of, prose

ROOT = Path(gradtx.__file__).parent.parent
UP = "../"
INTERNAL = frozenset(
    re.findall(
        r"\w+",
        """fields foreign gives_real handed_on is_of_matrices is_outermost is_users last_units program remarks
        step structure takes_any_leaf whole""",
    )
)
"""Members that the engine alone reads."""


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("source_base", source_base(), "env")
    app.add_config_value("places", {}, "")
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write(app: Sphinx) -> None:
    """Writes `api/*.md`; a page that is as it was stays untouched, so that Sphinx does not read it again."""
    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    pages = dict(all_pages(Path(app.srcdir), app.config.source_base))
    for path in folder.glob("*.md"):
        if path.stem not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    app.config.places = {f"api/{file_of(name)}": place_of(name) for name in ALIASES}


def all_pages(docs: Path, source: str) -> Iterator[tuple[str, str]]:
    sections = guides.read(docs)
    users = _users()
    yield "index", _index()
    for group in concepts.GROUPS:
        yield f"group-{group.slug}", _group_page(group)
        for name in group.names:
            yield file_of(name), "\n".join(_page(name, group, sections, users, source))
    yield "modules", _modules_page()


def _index() -> str:
    lines = ["# Names by concept", "", "Every public name of gradtx has a page.", ""]
    parts = dict.fromkeys(group.part for group in concepts.GROUPS)
    for part in parts:
        lines += [f"**{part}**", ""]
        for group in concepts.GROUPS:
            if group.part == part:
                some = ", ".join(_link(name) for name in group.names[:6])
                more = " ..." if len(group.names) > 6 else ""
                lines.append(f"- [{group.title}](group-{group.slug}.md): {some}{more}")
        lines.append("")
    lines += [
        "[The modules](modules.md) lists the names of each module. The {ref}`genindex` has all names.",
        "",
    ]
    return "\n".join([*lines, *_toctree([f"group-{group.slug}" for group in concepts.GROUPS] + ["modules"])])


def _toctree(files: list[str]) -> list[str]:
    return ["```{toctree}", ":hidden:", "", *files, "```", ""]


def _group_page(group: concepts.Group) -> str:
    rows = [f"| {_link(name)} | {prose(_said(name).summary, UP, name)} |" for name in group.names]
    table = ["| name | |", "|---|---|", *rows, ""]
    head = [f"# {group.title}", "", prose(group.about, UP), ""]
    return "\n".join([*head, *table, *_toctree([file_of(name) for name in group.names])])


def _modules_page() -> str:
    lines = ["# The modules", "", "Each name has one page, whichever modules it can be imported from.", ""]
    for module, names in concepts.MODULES.items():
        about = docstring.of(importlib.import_module(module)).summary
        lines += [f"## {module}", "", prose(about, UP), ""]
        short = module.removeprefix("gradtx.")
        lines += [", ".join(_link(f"{short}.{name}", name) for name in names) + ".", ""]
    return "\n".join(lines)


def _link(name: str, shown: str = "") -> str:
    return f"[`{shown or name}`]({file_of(PAGES[name])}.md)"


def _plain_links(names: Iterable[str]) -> str:
    """Links that Sphinx need not look up, which is a third of its time, and that its search does not see."""
    return ", ".join(f'<a href="{file_of(name)}.html"><code>{name}</code></a>' for name in names)


def _said(name: str) -> Docstring:
    return Docstring.of(constant_doc(name)) if is_constant(name) else docstring.of(concepts.found(name))


def is_constant(name: str) -> bool:
    """Whether it is a value or the name of a type, which says nothing of itself."""
    thing = concepts.found(name)
    return not (inspect.isfunction(thing) or inspect.isclass(thing)) or not _is_ours(thing)


def _is_ours(thing: Any) -> bool:
    return getattr(thing, "__module__", "").partition(".")[0] == "gradtx"


@functools.cache
def _origins(module: str) -> dict[str, str]:
    """The modules from which a module has its names."""
    tree = ast.parse(Path(str(inspect.getsourcefile(importlib.import_module(module)))).read_text())
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    return {alias.name: str(node.module) for node in froms for alias in node.names}


def _analyzer(module: str) -> ModuleAnalyzer:
    analyzer = ModuleAnalyzer.for_module(module)
    analyzer.analyze()
    return analyzer


def constant_doc(name: str) -> str:
    """The words below the assignment of a constant."""
    module = module_of(name)
    return "\n".join(_analyzer(module).attr_docs.get(("", name.rpartition(".")[2]), []))


def module_of(name: str) -> str:
    """The module in which a name is defined."""
    thing = concepts.found(name)
    if _is_ours(thing):
        return inspect.unwrap(thing).__module__
    head, _, last = f"gradtx.{name}".rpartition(".")
    return _origins(head).get(last, head)


def place_of(name: str) -> tuple[str, int]:
    """The file of a name from the root of the repository, and its line there."""
    module = importlib.import_module(module_of(name))
    path = Path(str(inspect.getsourcefile(module))).relative_to(ROOT)
    tags = _analyzer(module.__name__).tags
    last = name.rpartition(".")[2]
    if last in tags:
        return str(path), tags[last][1]
    lines = (ROOT / path).read_text().splitlines()
    return str(path), next((i for i, line in enumerate(lines, 1) if re.match(rf"{last}\b.*=", line)), 1)


@functools.cache
def _uses(name: str) -> tuple[str, ...]:
    """The public names that the code of a function calls, such as the transforms that a recipe is made of."""
    thing = concepts.found(name)
    if not inspect.isfunction(thing):
        return ()
    fn = inspect.unwrap(thing)
    used = [n for n in fn.__code__.co_names if n in ALIASES and n != name]
    return tuple(n for n in used if fn.__globals__.get(n) is concepts.found(n))


def _users() -> dict[str, list[str]]:
    return {name: [other for other in ALIASES if name in _uses(other)] for name in ALIASES}


def _page(
    name: str, group: concepts.Group, sections: list[guides.Section], users: dict[str, list[str]], source: str
) -> Iterator[str]:
    said, thing = _said(name), concepts.found(name)
    yield f"# {escaped(name)}\n"
    yield f"{{.lead}}\n{prose(said.summary, UP, name)}\n"
    yield from _signature(name, thing)
    short, long = formulas.section(name, thing)
    yield from [*short, *_body(said, name), *pictures.figure(name, UP), *long]
    yield from _definitions("Arguments", said.items("Args"), name, thing)
    yield from _definitions("Attributes", said.items("Attributes"), name, None)
    for section in ("Returns", "Raises"):
        if text := said.sections.get(section):
            items = said.items(section) if section == "Raises" else []
            yield f"## {section}\n"
            yield from (
                [f"- `{error}`: {prose(why, UP, name)}" for error, why in items] or [_words(text, name)]
            )
            yield ""
    if text := said.sections.get("Examples"):
        yield f"## Example\n\n```pycon\n{text}\n```\n"
    if inspect.isclass(thing) and not is_constant(name):
        yield from _members(name, thing)
    if text := said.sections.get("References"):
        yield f"## References\n\n{_words(text, name)}\n"
    yield from _elsewhere(name, sections)
    yield from _see_also(name, group, said, sections, users)
    path, line = place_of(name)
    link = f"{source}/{path}#L{line}" if source else f"../_sources/{path}.txt"
    yield f'{{.key}}\nSource: <a href="{link}">{path}</a>, line {line}.\n'


def _words(text: str, name: str) -> str:
    return prose(" ".join(text.split()), UP, name)


def _signature(name: str, thing: Any) -> Iterator[str]:
    full = f"gradtx.{name}"
    if is_constant(name):
        value = "" if isinstance(thing, str) else f"\n:type: {_flat(_definition(name))}"
        yield f"```{{py:data}} {full}{value if len(value) < 90 else ''}\n```\n"
        return
    kind = "class" if inspect.isclass(thing) else "function"
    yield f"```{{py:{kind}}} {full}{_arguments(thing)}\n```\n"


def _definition(name: str) -> str:
    """The right side of the assignment of a constant."""
    last = name.rpartition(".")[2]
    path, _ = place_of(name)
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.Assign) and any(getattr(t, "id", "") == last for t in node.targets):
            return ast.unparse(node.value)
    return ""


def _flat(text: str) -> str:
    return " ".join(text.split())


def _arguments(thing: Any) -> str:
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return "()"
    shown = []
    previous = None
    for p in signature.parameters.values():
        if p.kind is p.KEYWORD_ONLY and previous not in (p.KEYWORD_ONLY, p.VAR_POSITIONAL):
            shown.append("*")
        previous = p.kind
        stars = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        typed = "" if p.annotation in (p.empty, "Any") else f": {_type(p.annotation)}"
        shown.append(f"{stars}{p.name}{typed}{'' if p.default is p.empty else f' = {_default(p.default)}'}")
    back = signature.return_annotation
    returns = "" if back is signature.empty or inspect.isclass(thing) else f" -> {_type(back)}"
    return f"({', '.join(shown)}){returns}"


def _type(annotation: Any) -> str:
    return _flat(annotation) if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _default(value: Any) -> str:
    if callable(value):
        return getattr(value, "__name__", "...")
    shown = repr(value)
    return "..." if shown.startswith("<") else shown


def _body(said: Docstring, name: str) -> Iterator[str]:
    for paragraph in said.body:
        if docstring.is_block(paragraph):
            yield f"```text\n{textwrap.dedent(paragraph)}\n```\n"
        elif re.match(r"(-|\d+\.) ", paragraph):
            items = re.split(r"^(?=(?:-|\d+\.) )", paragraph, flags=re.M)
            yield "\n".join(
                f"{mark} {prose(' '.join(text.split()), UP, name)}"
                for mark, text in (item.split(" ", 1) for item in items if item.strip())
            )
            yield ""
        else:
            yield f"{_words(paragraph, name)}\n"


def _definitions(title: str, items: list[tuple[str, str]], name: str, thing: Any) -> Iterator[str]:
    if not items:
        return
    defaults = {}
    if callable(thing):
        parameters = inspect.signature(thing).parameters.values()
        defaults = {p.name: _default(p.default) for p in parameters if p.default is not p.empty}
    yield f"## {title}\n"
    for argument, meaning in items:
        default = defaults.get(argument.lstrip("*"))
        yield f"`{argument}`" + (f" = `{default}`" if default is not None else "")
        yield f": {prose(meaning, UP, name)}\n"


def _members(name: str, thing: type) -> Iterator[str]:
    docs: dict[str, tuple[str, str]] = {}
    for cls in reversed(thing.__mro__):
        if not _is_ours(cls):
            continue
        words = _analyzer(cls.__module__).attr_docs
        for member, value in vars(cls).items():
            if member.startswith("_") or member in INTERNAL:
                continue
            fn = inspect.unwrap(
                value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            )
            if inspect.isfunction(fn):
                text = inspect.getdoc(fn) or docs.get(member, ("", ""))[1]
                docs[member] = ("" if isinstance(value, property) else _arguments(fn), text)
        for (owner, member), text in words.items():
            if owner == cls.__name__ and not member.startswith("_") and member not in INTERNAL:
                docs[member] = ("", "\n".join(text))
    shown = {member: (args, text) for member, (args, text) in docs.items() if text.strip()}
    if not shown:
        return
    yield "## Members\n"
    for member, (args, text) in sorted(shown.items()):
        said = Docstring.of(text)
        yield f"`{member}{_without_self(args)}`"
        paragraphs = [said.summary, *(p for p in said.body if not docstring.is_block(p))]
        yield ": " + "\n\n  ".join(prose(" ".join(p.split()), UP, name) for p in paragraphs)
        yield ""


def _without_self(arguments: str) -> str:
    return re.sub(r"^\((self|cls)(: \w+)?(, )?", "(", arguments)


def _elsewhere(name: str, sections: list[guides.Section]) -> Iterator[str]:
    lines = []
    if theirs := _in_optax(name):
        differs = guides.beside_optax(sections, name)
        more = "; here: " + "; ".join(_moved(text) for text in differs) if differs else ""
        lines.append(f"- Optax: `{theirs}`{more}. [What carries over]({UP}from-optax.md#what-carries-over)")
    for called, section in guides.torch_names(sections, name):
        lines.append(f"- torch: {called}. [{section.title}]({UP}{section.link})")
    if lines:
        yield "## In Optax and torch\n"
        yield from lines
        yield ""


def _moved(text: str) -> str:
    """Markdown of a guide, for a page in another folder."""
    return re.sub(r"\]\((?!http)", f"]({UP}", text)


def _in_optax(name: str) -> str:
    for module in ("optax", "optax.contrib", "optax.tree_utils"):
        for own in (name, *ALIASES[name]):
            plain = own.rpartition(".")[2]
            theirs = module.removeprefix("optax").lstrip(".")
            if own.rpartition(".")[0] == theirs and hasattr(importlib.import_module(module), plain):
                return f"{module}.{plain}"
    tree, _, plain = name.rpartition(".")
    return f"optax.tree.{plain}" if tree == "tree" and hasattr(optax.tree, plain) else ""


def _see_also(
    name: str,
    group: concepts.Group,
    said: Docstring,
    sections: list[guides.Section],
    users: dict[str, list[str]],
) -> Iterator[str]:
    words = " ".join([said.summary, *said.body, *said.sections.values()])
    mentioned = [p for code in re.findall(r"`([^`]+)`", words) if (p := page_of(code)) and p != name]
    made_of = _uses(name)
    rows = {
        "made of": made_of,
        "part of": users[name],
        "named above": [n for n in dict.fromkeys(mentioned) if n not in made_of and n not in users[name]],
    }
    yield "## See also\n"
    if ALIASES[name]:
        yield "- the same: " + ", ".join(f"`gradtx.{other}`" for other in ALIASES[name])
    for title, names in rows.items():
        if names:
            yield f"- {title}: {_plain_links(names)}"
    beside = [n for n in group.names if n != name]
    yield f"- [{group.title}](group-{group.slug}.md)" + (f": {_plain_links(beside)}" if beside else "")
    spoken = [s for s in sections if name in s.names]
    for page, file in dict.fromkeys((s.page, s.file) for s in spoken):
        found = [f"[{s.title}]({UP}{s.link})" for s in spoken if s.file == file and s.title != page]
        yield f"- [{page}]({UP}{file})" + (f": {', '.join(found)}" if found else "")
    yield ""


def source_base() -> str:
    """Where the source can be read: the repository that builds the site, or else its copy in the site."""
    server, repository = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY")
    commit = os.environ.get("GITHUB_SHA", "main")
    return f"{server}/{repository}/blob/{commit}" if server and repository else ""
