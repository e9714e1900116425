"""A gradtx transform and a state dict of torch, matched leaf by leaf."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.composed import Composed
from gradtx.core.engine.layout import active_leaves
from gradtx.core.engine.steps import Unit, is_rule
from gradtx.core.spec.spec import show
from gradtx.interop.fitting import count, depends_on_step
from gradtx.interop.torch.check import Read, check, equal
from gradtx.interop.torch.rate import (
    UNTOLD,
    Arguments,
    Rate,
    factor,
    in_rate,
    is_frozen,
    is_scheduled,
    rate_of,
)
from gradtx.interop.torch.state_dict import Names, Order, Parameter, as_numpy, checked, parameters
from gradtx.interop.torch.table import Kind, kind_of, number


class Match:
    """The kind of optimizer, and for each leaf torch's parameter and the units that work on it."""

    def __init__(
        self, tx: Composed, state_dict: Any, names: Names, params: Any, order: Order | None, read: Read
    ) -> None:
        checked(state_dict)
        self.program, self.read = tx.program, read
        self.groups, self.state = [dict(g) for g in state_dict["param_groups"]], state_dict["state"]
        kinds = [kind_of(group) for group in self.groups]
        self.kind: Kind = kinds[0]
        if any(kind is not self.kind for kind in kinds):
            found = ", ".join(kind.name for kind in kinds)
            raise ValueError(f"torch's parameter groups are not those of one optimizer: {found}.")
        leaves, _ = lv.flatten(params)
        active = active_leaves(self.program, params, leaves)
        for unit in self.program.units:
            if not is_rule(unit):
                raise ValueError(
                    f"{unit.where} is around the optimizer or beside it, and torch's state has nothing for "
                    f"it. Move the state of the optimizer alone; then put it at its place in the state that "
                    f"the whole transform's init makes."
                )
        self.units = [[u for u in self.program.rules if active[u.path][i]] for i in range(len(leaves))]
        self.parameters = parameters(state_dict, names, params, order, list(map(is_frozen, self.units)))
        for path, x, parameter, units in zip(
            lv.paths(params), leaves, self.parameters, self.units, strict=True
        ):
            if x is not None and parameter is None and _has_slots(units) and not is_frozen(units):
                raise ValueError(
                    f"names says that torch did not train the leaf {path!r}, and tx does. Freeze it: "
                    f"gradtx.selective_transform(tx, freeze_mask={path!r})."
                )

    def check(self) -> None:
        """Raises unless `tx` is torch's optimizer on every leaf."""
        seen: set[Any] = set()
        for parameter, units in zip(self.parameters, self.units, strict=True):
            if parameter is None:
                continue
            key = (parameter.group, *(unit.path for unit in units))
            if key not in seen and not (is_frozen(units) and not self.entries(parameter)):
                check(self.kind, self.groups[parameter.group], units, parameter.path, self.read)
            seen.add(key)

    def entries(self, parameter: Parameter) -> dict[str, Any]:
        """What torch's state has for a parameter."""
        return {k: v for k, v in self.state.get(parameter.key, {}).items() if v is not None}

    def slots(self) -> Iterator[tuple[Unit, str, str, list[int]]]:
        """Each slot, the entry of torch's that it is, and the leaves that have it."""
        for unit in self.program.rules:
            for slot in unit.transform.slots:
                entry = self.kind.entries[unit.transform.name, slot]
                yield unit, slot, entry, [i for i, units in enumerate(self.units) if unit in units]

    def rates(self, arguments: Arguments) -> Iterator[tuple[Parameter, Rate]]:
        """The rate of each parameter that is trained; an error where one climbs."""
        known: dict[Any, Rate] = {}
        for parameter, units in zip(self.parameters, self.units, strict=True):
            if parameter is None or is_frozen(units):
                continue
            key = tuple(unit.path for unit in units)
            rate = known[key] = known.get(key) or rate_of(units, arguments)
            if rate.climbs:
                raise ValueError(
                    f"tx climbs on the leaf {parameter.path!r}: its rate {rate.value} lacks the sign. End "
                    f"it with gradtx.scale_by_learning_rate, or scale by a negative number."
                )
            yield parameter, rate

    def check_rates(self, arguments: Arguments) -> None:
        """Raises unless the rates that are no schedules are torch's."""
        for parameter, rate in self.rates(arguments) if self.kind.has_rate else ():
            lr = self._lr(parameter.group)
            if rate.is_told and not rate.is_scheduled and not equal(rate.value, lr):
                raise ValueError(
                    f"tx is not torch's {self.kind.name} on the leaf {parameter.path!r}: the product of "
                    f"its rates is {rate.value} in tx, and lr is {lr} in torch."
                )

    def set_rates(self, arguments: Arguments, step: int) -> None:
        """Sets the rate of each of torch's groups to the one in force."""
        first: dict[int, tuple[Parameter, Rate]] = {}
        for parameter, rate in self.rates(arguments) if self.kind.has_rate else ():
            other, its = first.setdefault(parameter.group, (parameter, rate))
            if not rate.is_told:
                raise ValueError(
                    f"tx has {UNTOLD} on the leaf {parameter.path!r}, which no optimizer of torch's has."
                )
            if not equal(its.value, rate.value):
                raise ValueError(
                    f"torch's parameter group {parameter.group} has one lr, and in tx the rate of the leaf "
                    f"{other.path!r} is {its.value}, that of {parameter.path!r} {rate.value}. Make torch's "
                    f"optimizer with a group for each."
                )
        for g, (_, rate) in first.items():
            # Adagrad divides its lr, by what grows with the step.
            lr = rate.value * (1 + number(self.groups[g].get("lr_decay") or 0) * step)
            if not equal(lr, self._lr(g)):
                self.groups[g]["lr"] = lr

    def _lr(self, g: int) -> float:
        lr = self.groups[g]["lr"]
        try:
            return number(lr)
        except TypeError:
            raise ValueError(f"The lr of torch's parameter group {g} is {show(lr)}, no number.") from None

    def factor(self, unit: Unit, i: int, arguments: Arguments) -> float:
        """A slot is torch's entry times this: gradtx's RMSprop has the negative rate inside its velocity."""
        units = self.units[i]
        inside = [u for u in units[: units.index(unit)] if u in in_rate(units)]
        if unit.transform.name != "trace" or not inside:
            return 1.0
        if any(map(is_scheduled, inside)):
            raise ValueError(
                f"{unit.where} has the learning rate inside its velocity, which torch's {self.kind.name} has "
                f"not; with a rate that changes they differ. Give tx the rate after the velocity, as in "
                f"gradtx.chain(gradtx.scale_by_rms(..., eps_in_sqrt=False), gradtx.trace(...), "
                f"gradtx.scale_by_learning_rate(...))."
            )
        rate = factor(inside, arguments)
        if rate == 0:
            raise ValueError(
                f"{unit.where} has the learning rate inside its velocity, and it is 0: nothing is left."
            )
        return rate

    def step(self, given: int | None) -> int:
        """The number of updates made so far: torch counts them for each parameter, SGD not at all."""
        present = [p for p in self.parameters if p is not None]
        stepped = [p for p in present if self.entries(p)]
        if not self.kind.counts:
            fresh = not stepped and any(self.slots())
            needs = depends_on_step(self.program) if given is None and not fresh else ""
            if needs:
                raise ValueError(
                    f"torch's SGD does not count its steps, and {needs} of tx depends on them. Pass step=, "
                    f"the number of updates made so far."
                )
            return 0 if given is None else count(given, "step")
        lacking = [p for p in stepped if "step" not in self.entries(p)]
        if lacking:
            raise ValueError(f"This state dict is damaged: the state of {lacking[0].label} has no 'step'.")
        steps = {p: count(as_numpy(self.entries(p)["step"]), f"torch's step of {p.label}") for p in stepped}
        if not self.kind.always:
            steps |= {
                p: 0
                for p, units in zip(self.parameters, self.units, strict=True)
                if p and p not in steps and _has_slots(units) and not is_frozen(units)
            }
        if len(set(steps.values())) > 1:
            low, high = min(steps, key=steps.__getitem__), max(steps, key=steps.__getitem__)
            raise ValueError(
                f"torch's {low.label} is at step {steps[low]} and {high.label} at step {steps[high]}: a "
                f"chain of gradtx has one step. Give the parameters that started later a group of their own, "
                f"and move them apart; or move the parameters alone, and start the optimizer anew."
            )
        known = next(iter(steps.values()), 0)
        if given is not None and given != known:
            raise ValueError(f"step={given} was given, and torch's state is at step {known}. Leave it out.")
        return known


def _has_slots(units: list[Unit]) -> bool:
    return any(unit.transform.slots for unit in units)
