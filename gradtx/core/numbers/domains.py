"""Which values a number of a state may take, told from where the number stands in the state.

A state holds no code, so its names must tell: a decay stands as its complement, a schedule's number under
the schedule's name, a rule's under the rule's. What was given to one of gradtx's recipes is what the rules
that get it say; what was given to another recipe goes by the argument's name, which the rules have for it
too. A name of several meanings allows what any of them does.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterable
from typing import Any

from gradtx.core.numbers.paths import Path
from gradtx.core.numbers.schedule import CALLABLE, COMPLEMENT, SCHEDULES, Schedule
from gradtx.core.spec.fields import ANY, DECAY, DECLARED, Declared, Domain
from gradtx.core.spec.spec import FACTORIES


def domain_of(path: Path) -> Domain:
    """The domain of the number at a path of a state's numbers."""
    while path and path[-1].isdigit():
        path = path[:-1]  # one of several numbers of an argument
    *around, owner, name = ("", *path)
    if name.startswith(COMPLEMENT):
        return DECAY
    # A schedule stands under an argument of a transform; these two may have its name as well.
    if len(around) > 2 and owner in SCHEDULES and name in SCHEDULES[owner].fields():
        return SCHEDULES[owner].fields()[name].domain or SCHEDULES[owner].fields()[name].elements or ANY
    if name == CALLABLE:
        return ANY
    # What is in a group has the group's name before its own, and a second unit of a name a number after it.
    owner = owner.rpartition(".")[2]
    names = {owner, re.sub(r"_\d+$", "", owner)}
    own = [domain for n in names for domain in _of_recipe(n).get(name, ())]
    return _widest(_of(names, name) or own or _of({f"scale_by_{n}" for n in names}, name) or _by_name(name))


@functools.cache
def _of_recipe(name: str) -> dict[str, list[Domain]]:
    """The domains of the arguments of one of gradtx's recipes, from one that is built of numbers."""
    factory: Any = FACTORIES.get(name)
    if factory is None or not factory.__module__.startswith("gradtx.optimizers."):
        return {}
    defaults = {key: p.default for key, p in inspect.signature(factory).parameters.items()}
    annotations = {key: str(p.annotation) for key, p in inspect.signature(factory).parameters.items()}
    # What need not be given is given, so that it has a rule.
    missing = [k for k, d in defaults.items() if d in (None, inspect.Parameter.empty)]
    given: dict[str, Any] = {key: 0.5 for key in missing if "ScalarOrSchedule" in annotations[key]}
    given |= {key: 1 for key in missing if annotations[key] == "int"}
    found: dict[str, list[Domain]] = {}
    for unit in factory(**given).program.units:
        if not isinstance(unit.transform, Declared):
            continue
        for key, (scope, argument) in unit.sources.items():
            field = unit.transform.fields()[key]
            if scope == (name,) and field.domain is not None and not field.decay:
                found.setdefault(argument, []).append(field.domain)
    return found


def _of(names: set[str], key: str) -> list[Domain]:
    """The domains of a field of the classes with some names."""
    return _domains([cls for cls in DECLARED if cls.name in names], key)


def _by_name(key: str) -> list[Domain]:
    """What the rules and wrappers say of a number of that name."""
    return _domains([cls for cls in DECLARED if not issubclass(cls, Schedule)], key)


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
