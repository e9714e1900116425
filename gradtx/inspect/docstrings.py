"""What docstrings say."""

from __future__ import annotations

import inspect
import re
from typing import Any

from gradtx.core.spec.spec import FACTORIES


def summary(x: Any) -> str:
    """The first line of a docstring; empty where there is none."""
    return (inspect.getdoc(x) or "").partition("\n")[0].removesuffix(".") if x is not None else ""


def meanings(x: Any) -> dict[str, str]:
    """What each argument of a function is, in its docstring's words up to the first stop."""
    _, _, arguments = (inspect.getdoc(x) or "").partition("\nArgs:\n")
    arguments = re.split(r"\n(?=\S)", arguments)[0]
    found = re.findall(r"^    ([*\w]+): (.*(?:\n {8}.*)*)", arguments, re.MULTILINE)
    return {name: re.split(r"[.;:](?: |$)", " ".join(words.split()))[0] for name, words in found}


def meaning(call: str, argument: str) -> str:
    """What an argument of a public constructor is; empty where nothing says."""
    return meanings(FACTORIES.get(call)).get(argument, "")
