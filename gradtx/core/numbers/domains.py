"""Which values a number of a state may take, told from where the number stands in the state.

A state holds no code, so its names must tell: a decay stands as its complement, a schedule's number under
the schedule's name, a rule's under the rule's. What was given to a recipe goes by the argument's name, which
the rules have for it too. A name of several meanings allows what any of them does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from gradtx.core.numbers.paths import Path
from gradtx.core.numbers.schedule import CALLABLE, COMPLEMENT, SCHEDULES, Schedule
from gradtx.core.spec.fields import ANY, DECAY, DECLARED, Declared, Domain
from gradtx.core.spec.spec import FACTORIES


def domain_of(path: Path) -> Domain:
    """The domain of the number at a path of a state's numbers."""
    while path and path[-1].isdigit():
        path = path[:-1]  # one of several numbers of an argument
    *_, owner, name = ("", *path)
    if name.startswith(COMPLEMENT):
        return DECAY
    if owner in SCHEDULES and name in SCHEDULES[owner].fields():
        return SCHEDULES[owner].fields()[name].domain or SCHEDULES[owner].fields()[name].elements or ANY
    if name == CALLABLE:
        return ANY
    # What is in a group has the group's name before its own, and a second unit of a name a number after it.
    owner = owner.rpartition(".")[2]
    names = {owner, re.sub(r"_\d+$", "", owner)}
    return _widest(
        _of(names, name) or _of({f"scale_by_{n}" for n in names}, name) or _by_argument(names, name)
    )


_ALSO = {"momentum": "decay", "clipping_threshold": "threshold"}
"""What an argument of a recipe is called in the rule that it is for, where that is something else."""


def _of(names: set[str], key: str) -> list[Domain]:
    """The domains of a field of the classes with some names."""
    return _domains([cls for cls in DECLARED if cls.name in names], key)


def _by_argument(recipes: set[str], key: str) -> list[Domain]:
    """What the rules and wrappers say of a recipe's argument: of gradtx's own recipes those of gradtx."""
    ours = any(FACTORIES[name].__module__.startswith("gradtx.") for name in recipes & set(FACTORIES))
    known = [cls for cls in DECLARED if not issubclass(cls, Schedule)]
    chosen = [cls for cls in known if not ours or cls.__module__.startswith("gradtx.")]
    return _domains(chosen, key) or _domains(chosen, _ALSO.get(key, key))


def _domains(classes: list[type[Declared]], key: str) -> list[Domain]:
    fields = [cls._fields[key] for cls in classes if key in cls._fields]
    # A number that is kept as a decay says so by its name.
    return [field.domain for field in fields if field.domain is not None and not field.decay]


def _widest(domains: Iterable[Domain]) -> Domain:
    found = list({(domain.words, domain.infinite): domain for domain in domains}.values())
    if len(found) < 2:
        return found[0] if found else ANY
    words = " or ".join(dict.fromkeys(domain.words for domain in found))
    infinite = any(domain.infinite for domain in found)
    return Domain(words, lambda x: any(domain.contains(x) for domain in found), infinite=infinite)
