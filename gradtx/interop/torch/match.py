"""A gradtx transform and a state dict of torch, matched leaf by leaf."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gradtx.core import leaves as lv
from gradtx.core.engine import Composed
from gradtx.core.layout import active_leaves
from gradtx.core.program import Unit, is_rule
from gradtx.interop.fitting import count, depends_on_step
from gradtx.interop.torch.check import MULTIPLIERS, RATE, Read, check
from gradtx.interop.torch.dict import Names, Parameter, as_numpy, checked, parameters
from gradtx.interop.torch.table import Kind, kind_of, number


class Match:
    """The kind of optimizer, and for each leaf torch's parameter and the units that work on it."""

    def __init__(
        self, tx: Composed, state_dict: Any, names: Names, params: Any, order: Any, read: Read
    ) -> None:
        checked(state_dict)
        self.program, self.read = tx.program, read
        self.groups, self.state = [dict(g) for g in state_dict["param_groups"]], state_dict["state"]
        kinds = [kind_of(group) for group in self.groups]
        self.kind: Kind = kinds[0]
        if any(kind is not self.kind for kind in kinds):
            found = ", ".join(kind.name for kind in kinds)
            raise ValueError(f"torch's parameter groups are not those of one optimizer: {found}.")
        self.parameters = parameters(state_dict, names, params, order)
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

    def check(self) -> None:
        """Raises unless `tx` is torch's optimizer on every leaf."""
        seen: set[Any] = set()
        for parameter, units in zip(self.parameters, self.units, strict=True):
            if parameter is None:
                continue
            key = (parameter.group, *(unit.path for unit in units))
            frozen = any(unit.transform.name == "set_to_zero" for unit in units)
            if key not in seen and not (frozen and not self.entries(parameter)):
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

    def rate(self, i: int) -> Unit | None:
        """The unit that gives a leaf its learning rate; None where it is a product of several."""
        rates = [u for u in self.units[i] if u.transform.name == RATE]
        scaled = any(u.transform.name in MULTIPLIERS for u in self.units[i])
        return rates[0] if len(rates) == 1 and not scaled else None

    def factor(self, unit: Unit, i: int) -> float:
        """A slot is torch's entry times this: gradtx's RMSprop has the negative rate inside its velocity."""
        units = self.units[i]
        rates = [u for u in units[: units.index(unit)] if u.transform.name in (RATE, *MULTIPLIERS)]
        if unit.transform.name != "trace" or not rates:
            return 1.0
        rate = self.rate(i)
        if rate is None or callable(self.read(rate, "learning_rate")):
            raise ValueError(
                f"{unit.where} has the learning rate inside its velocity, which torch's RMSprop has not; "
                f"with a rate that changes they differ. Give tx the rate after the velocity: gradtx.chain("
                f"gradtx.scale_by_rms(..., eps_in_sqrt=False), gradtx.trace(...), "
                f"gradtx.scale_by_learning_rate(...))."
            )
        parameter = self.parameters[i]
        assert parameter is not None
        lr = number(self.groups[parameter.group]["lr"])
        if lr == 0:
            raise ValueError(
                f"{unit.where} has the learning rate inside its velocity, and it is 0: nothing is left."
            )
        return -lr

    def step(self, given: int | None) -> int:
        """The number of updates made so far: torch counts them for each parameter, SGD not at all."""
        present = [p for p in self.parameters if p is not None]
        stepped = [p for p in present if self.entries(p)]
        if not self.kind.counts:
            fresh = not stepped and any(True for _ in self.slots())
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
        if self.kind.always is False:
            steps |= {
                p: 0 for i, p in enumerate(self.parameters) if p and p not in steps and self._has_slots(i)
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

    def _has_slots(self, i: int) -> bool:
        return any(unit.transform.slots for unit in self.units[i])
