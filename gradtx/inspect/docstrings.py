"""What docstrings say."""

from __future__ import annotations

import inspect
import re
from typing import Any

from gradtx.core.spec.spec import FACTORIES


def summary(x: Any) -> str:
    """The first line of a docstring; empty where there is none."""
    return (inspect.getdoc(x) or "").partition("\n")[0].removesuffix(".") if x is not None else ""


def meaning(call: str, argument: str) -> str:
    """What an argument of a public constructor is, in its docstring's words up to the first stop."""
    doc = inspect.getdoc(FACTORIES.get(call)) or ""
    _, _, arguments = doc.partition("\nArgs:\n")
    found = re.search(rf"^    {re.escape(argument)}: (.*(?:\n {{8}}.*)*)", arguments, re.MULTILINE)
    words = " ".join(found.group(1).split()) if found else ""
    return re.split(r"[.;:](?: |$)", words)[0]
