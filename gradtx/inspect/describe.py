"""What an optimizer does to a tree of parameters, from its program and the shapes alone."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from gradtx.core.engine.labels import Labelled
from gradtx.core.engine.leaves import Excluding
from gradtx.core.engine.protocol import AnyTransform, Params
from gradtx.core.engine.steps import Unit, is_declared, is_rule
from gradtx.core.engine.transform import Foreign, adapted
from gradtx.core.spec.spec import FACTORIES, maker, show
from gradtx.formulas.direction import movements
from gradtx.inspect.description import Description, Part, SlotSize
from gradtx.inspect.docstrings import summary
from gradtx.inspect.kept_slots import kept_slots, nbytes
from gradtx.inspect.kernels_used import kernels_used
from gradtx.inspect.outline import Node
from gradtx.inspect.schedules_over_run import courses
from gradtx.inspect.survey import Surveyed, checked_arguments, survey

LONGEST = 60
"""The letters of the longest mask that is shown as code, so that it stays on its line."""


def describe(tx: AnyTransform, params: Params, steps: int | None = None) -> Description:
    """What an optimizer does to a tree of parameters: its parts in order, where each works, what it costs.

    Nothing is run and no array is made: the parameters may be of any size, also abstract.

    Args:
        tx: a transform of any library. What is inside of another library's is not told apart.
        params: the parameters, arrays or `jax.ShapeDtypeStruct`s.
        steps: the number of calls of `update` in the run; schedules are shown to its end. By default each is
            shown until it settles.

    Returns:
        A `Description`, which prints as a table of 100 columns; what it says can be read as attributes too.

    Raises:
        ValueError: `init` refuses the parameters, which `gradtx.check` reports as a finding; or `steps` is
            less than 1.
        TypeError: `init` refuses the parameters, or they are None; `tx` is no transform; or `steps` is no
            whole number.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> params = {"w": jnp.ones((8, 4)), "bias": jnp.ones(4)}
        >>> print(gradtx.describe(gradtx.adamw(1e-3, weight_decay=0.1, mask="!*bias"), params))
        2 leaves, 36 parameters, 144 B; the state takes 316 B
        descent, down the gradient: all leaves
        <BLANKLINE>
        transform                 leaves  parameters  state
        adamw                                         288 B
            AdamW: Adam's direction u, and weight decay that does not pass through the moments
          scale_by_adam                2          36  288 B
              m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) |g|²;  u = m^ / (sqrt(v^ + eps_root) + eps)
              b1 = 0.9, b2 = 0.999, eps = 1e-08, eps_root = 0.0
              keeps mu (144 B float32), nu (144 B float32)
          add_decayed_weights     1 of 2          32      -
              u = g + weight_decay theta
              on '!*bias'
              weight_decay = 0.1
          scale_by_learning_rate       2          36      -
              u = -learning_rate g
              learning_rate = 0.001
        <BLANKLINE>
        weight decay times the learning rate: 1 of 2 leaves; a step takes at most 0.0001 of a parameter,
            half of it in 6,931 steps
        >>> gradtx.describe(gradtx.scale_by_adam(), params).state_nbytes
        308
    """
    checked_arguments("describe", tx, params, steps)
    level = survey(tx, params)
    leaves = [x for x in level.leaves if x is not None]
    known = zip(level.paths, level.leaves, *movements(tx, params, steps), strict=True)
    moves = {path: (direction, decay) for path, leaf, direction, decay in known if leaf is not None}
    return Description(
        leaves=len(leaves),
        parameters=sum(math.prod(x.shape) for x in leaves),
        nbytes=nbytes(leaves),
        state_nbytes=nbytes(level.state),
        parts=tuple(_part(node, level) for node in level.parts),
        schedules=tuple(courses(level, steps)),
        directions={path: direction for path, (direction, _) in moves.items()},
        decays={path: decay for path, (_, decay) in moves.items() if decay},
        remarks=tuple(adapted(tx).remarks(params)),
        stages=kernels_used(tx, params),
    )


def _part(node: Node, level: Surveyed) -> Part:
    on = level.included[node.path]
    slots: tuple[SlotSize, ...] = ()
    inside = [_part(n, level) for n in node.inside]
    hyperparams: dict[str, Any] = {}
    if node.unit is not None:
        on = level.active[node.path]
        slots = tuple(_slots(node.unit, level))
        hyperparams = level.hyperparams(node.unit)
        for path, inner in level.inner.items():
            if path[:-1] == node.path:
                inside += [_part(n, inner) for n in inner.parts]
    chosen = [x for x, a in zip(level.leaves, on, strict=True) if a and x is not None]
    return Part(
        path=level.path + node.path,
        kind=node.kind,
        purpose=_purpose(node, level),
        hyperparams=hyperparams,
        mask=_mask(node),
        leaves=len(chosen),
        of=sum(x is not None for x in level.leaves),
        parameters=sum(math.prod(x.shape) for x in chosen),
        slots=slots,
        nbytes=sum(slot.nbytes for slot in slots) + sum(part.nbytes for part in inside),
        inside=tuple(inside),
    )


def _purpose(node: Node, level: Surveyed) -> str:
    """The first line of what is written about it: of a rule its formula, of the others their purpose."""
    if node.unit is None:
        return summary(FACTORIES.get(node.name))
    tx = node.unit.transform
    if not is_declared(node.unit):
        update = tx.tx.update if isinstance(tx, Foreign) else getattr(tx, "update_fn", tx.update)
        return f"{maker(update) or type(tx).__name__}: what it does is in its code"
    if not is_rule(node.unit):
        return summary(FACTORIES.get(tx._call()[0]) or type(tx))
    formula = summary(type(tx))
    for field, name in level.names_of(node.unit).items():
        formula = re.sub(rf"\b{field}\b", name.rpartition(".")[2], formula)
    return formula


def _mask(node: Node) -> str:
    """The innermost mask of a unit, if it was given one; a group says by its name what it is of."""
    mask = node.masks[-1] if node.unit is not None and node.masks else None
    if mask is None or isinstance(mask, Labelled):
        return ""
    code = show(getattr(mask, "mask", mask))
    code = code if len(code) <= LONGEST else "a tree of bools"
    return f"what is not in {code}" if isinstance(mask, Excluding) else code


def _slots(unit: Unit, level: Surveyed) -> Iterator[SlotSize]:
    program = level.program
    for slot in kept_slots(level, inside=False):
        path = slot.path
        if path == unit.path or path[:-1] == unit.path:
            wide: dict[str, list[str]] = {}
            for kept in slot.arrays:
                if kept.wide:
                    wide.setdefault(kept.wide, []).append(kept.path)
            yield SlotSize(
                name=path[-1] if path != unit.path else "its state",
                dtypes=slot.forms,
                nbytes=slot.nbytes,
                of_leaves=path == unit.path or path in (*program.leaf_slot_paths, *program.stack_paths),
                wide={why: tuple(paths) for why, paths in wide.items()},
            )
