"""The pages of docs/gallery."""

from __future__ import annotations

import re
from collections.abc import Mapping

from . import schedules, symbols
from .functions import FUNCTIONS, STEPS
from .members import LEFT_OUT, PAGES, Member, Page
from .paths import RATES, runs

WRITTEN = "<!-- Written by `python -m tests.gallery`. -->\n"


def slug(title: str) -> str:
    return re.sub(r"\W+", "-", title.lower()).strip("-")


def picture_name(page: Page, title: str) -> str:
    return f"{page.slug}-{slug(title)}.svg"


def family(page: Page) -> str:
    parts = [f"# {page.title}\n", WRITTEN, page.about + "\n"]
    for title, members in page.pictures.items():
        names = ", ".join(member.label for member in members)
        parts += [
            f"## {title}\n",
            f"![The paths of {names} on five functions]({picture_name(page, title)})\n",
            "Pages: "
            + ", ".join(dict.fromkeys(f"[`{m.name}`](../api/{m.name}.md)" for m in members))
            + ".\n",
            ":::{dropdown} The code and the end of each path",
            table(members),
            ":::\n",
        ]
    if page.slug == "descent":
        parts += [
            "## A path that diverges\n",
            "![Gradient descent in the ravine with three rates, of which the largest "
            "diverges](diverging.svg)\n",
            "Across the ravine the curvature is 40, and gradient descent converges up to a rate of 2/40. "
            "`gradtx.plot_paths` cuts a path that diverges at the frame, marks it with a cross, and "
            "says so.\n",
        ]
    parts.append("How the rates were chosen, and what the functions are: [the gallery](index.md).\n")
    return "\n".join(parts)


def table(members: tuple[Member, ...]) -> str:
    """The code of each path by its function, and where it ends."""
    rows = [f"| function | code | end after {STEPS} steps | loss |", "|---|---|---|---|"]
    for k, function in enumerate(FUNCTIONS):
        for member in members:
            run = runs(member)[k]
            rows.append(
                f"| {function.title} | `{member.code(run.rate)}` | {ending(run.end)} | {run.loss:.2g} |"
            )
    return "\n".join(rows)


def ending(end: tuple[float, float]) -> str:
    x, y = (f"{value:.3f}".replace("-0.000", "0.000") for value in end)
    return f"({x}, {y})"


def schedule_page() -> str:
    rows = ["| schedule | code |", "|---|---|"]
    for call in schedules.CALLS:
        name = schedules.name(call)
        rows.append(f"| [`{name}`](../api/{name}.md) | `{call}` |")
    words = (
        f"Every schedule of gradtx over {schedules.STEPS} steps, drawn by `gradtx.plot_schedule`. Any "
        "function of "
        "the step is a schedule too."
    )
    picture = "![A panel for each schedule, with its value over the steps](schedules.svg)"
    return "\n".join(["# Schedules\n", WRITTEN, words + "\n", picture + "\n", "## The code\n", *rows, ""])


def index() -> str:
    functions = [f"- **{function.title}**: {function.about}" for function in FUNCTIONS]
    cards = []
    for page in PAGES:
        first = next(iter(page.pictures))
        cards.append(_card(page.title, page.slug, picture_name(page, first)))
    cards.append(_card("Schedules", "schedules", "schedules.svg"))
    toc = [page.slug for page in PAGES] + ["schedules"]
    return "\n".join(
        [
            "# Gallery\n",
            WRITTEN,
            "Every optimizer on five functions of two numbers, and every schedule, drawn by gradtx's own "
            "`plot_paths` and `plot_schedule`. On the [live page](../live.md) you change the numbers "
            "yourself.\n",
            "::::{grid} 1 2 2 2\n:gutter: 3\n",
            *cards,
            "::::\n",
            "## What is drawn\n",
            *functions,
            "",
            "The lower the loss, the lighter it is. A white circle is the start, a dot comes after each "
            "ten steps, "
            "and a large dot is the end. A path that leaves the frame is cut there, and the panel says so.\n",
            "## How the rates were chosen\n",
            f"Each optimizer runs for {STEPS} steps on each function with each rate of {RATES[0]:g}, "
            "2e-4, 5e-4, "
            f"and so on to {RATES[-1]:g}, all at once by `jax.vmap` over the rate in its state. Drawn "
            "is the path "
            "whose mean loss over all steps is least. All other arguments have their defaults, if the "
            "name does not "
            "say otherwise; those that need no rate have none chosen.\n",
            "Two numbers are not a network. The pictures show how each optimizer moves, and not which "
            "one is better "
            "for training; for that there are the [board of problems](../board.md) and the page on "
            "[choosing](../choosing.md).\n",
            "## Not in the gallery\n",
            *_reasons(LEFT_OUT),
            "",
            "## A picture for each name\n",
            "The page of each optimizer, schedule and transform has a picture too: a path, a curve, what the "
            "transform makes of gradients, or what becomes of a matrix. These have none:\n",
            *_reasons(symbols.LEFT_OUT),
            "",
            "```{toctree}\n:hidden:\n",
            *toc,
            "```\n",
        ]
    )


def _reasons(left_out: Mapping[str, str]) -> list[str]:
    """The reasons of a table, each with its names."""
    reasons: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        reasons.setdefault(reason, []).append(f"[`{name}`](../api/{name}.md)")
    return [f"- {', '.join(names)}: {reason}." for reason, names in reasons.items()]


def _card(title: str, page: str, picture: str) -> str:
    return f":::{{grid-item-card}} {title}\n:link: {page}\n:link-type: doc\n:img-bottom: {picture}\n:::\n"


def everything() -> dict[str, str]:
    """The pages by the names of their files."""
    pages = {f"{page.slug}.md": family(page) for page in PAGES}
    return {"index.md": index(), "schedules.md": schedule_page(), **pages}
