"""Scaling by group: a factor for each label, which is a learning rate for each part of a model."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from gradtx.core.engine.composed import Composed
from gradtx.core.engine.labels import Labelled, Labels, check_labels
from gradtx.core.engine.program import Builder
from gradtx.core.engine.transform import Transform
from gradtx.core.numbers.states import BY_LABEL
from gradtx.core.spec.argument import plain
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import ScalarOrSchedule, as_number
from gradtx.core.spec.spec import show
from gradtx.transforms.scale import Scale


class ScaleByGroup(Composed):
    """u = factors[label] g."""

    factors: dict[Hashable, Any]
    labels: Labels

    def __init__(self, factors: Mapping[Hashable, ScalarOrSchedule], labels: Labels) -> None:
        if not isinstance(factors, Mapping) or not factors:
            raise TypeError(
                f"scale_by_group takes a mapping from labels to factors, at least one; got {show(factors)}."
            )
        check_labels("scale_by_group", factors)
        kept = {k: as_number(f"scale_by_group: the factor of {show(k)}", v) for k, v in factors.items()}
        # As for fields, the arguments of a recipe stand beside the numbers.
        self._set(factors={k: plain(v) for k, v in kept.items()}, labels=labels, handed_on=kept)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        return "scale_by_group", (self.factors, self.labels), {}

    def _visit(self, builder: Builder) -> None:
        known = tuple(self.factors)
        scope = builder.claim(BY_LABEL)
        name = builder.name_of(scope)
        for label, factor in self.__dict__["handed_on"].items():
            mask = Labelled("scale_by_group", "factor", self.labels, known, label)
            with (
                builder.inside(name=name, owners={id(factor): (scope, str(label))}),
                builder.inside(name=str(label), mask=mask),
            ):
                builder.add_declared(Scale(step_size=factor))


@builds(ScaleByGroup)
def scale_by_group(factors: Mapping[Hashable, ScalarOrSchedule], labels: Labels) -> Transform:
    """Multiplies the update of each leaf by the factor of its group: u_i = factors[label_i] g_i.

    After an optimizer it gives each group a learning rate of its own, without a second optimizer:
    `chain(adamw(1e-3), scale_by_group({"head": 10.0, "body": 1.0}, labels))` is AdamW with the rates 1e-2 and
    1e-3. Since AdamW's decay is a part of its update, the decay is the rate times the weight decay in each
    group, as if each had an AdamW of its own. A weight decay for each group is a part of the chain:

        chain(
            scale_by_adam(),
            partition({"head": add_decayed_weights(0.01), "body": add_decayed_weights(0.1)}, labels),
            scale_by_learning_rate(1e-3),
            scale_by_group({"head": 10.0, "body": 1.0}, labels),
        )

    Args:
        factors: a number or a schedule for each label, of any sign. The state keeps each under its label, as
            the hyperparameter `scale_by_group.head`. A label that no leaf has is allowed.
        labels: the label of each leaf, in any form that `gradtx.partition` takes.

    Returns:
        A transform without slots.

    Raises:
        ValueError: two labels are one as strings; at init or update, a leaf has no label or one without a
            factor. The error names the leaf's path and the known labels.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> params = {"body": jnp.ones(2), "head": jnp.ones(1)}
        >>> tx = gradtx.chain(
        ...     gradtx.sgd(0.5),
        ...     gradtx.scale_by_group({"slow": 0.5, "fast": 2.0}, {"body*": "slow", "*": "fast"}),
        ... )
        >>> state = tx.init(params)
        >>> tx.update(params, state)[0]
        {'body': Array([-0.25, -0.25], dtype=float32), 'head': Array([-1.], dtype=float32)}
        >>> gradtx.hyperparams(state)
        {'scale_by_group.fast': 2.0, 'scale_by_group.slow': 0.5, 'learning_rate': 0.5}
    """
    ...
