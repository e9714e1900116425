"""Groups of leaves: a transform for each, or none for those that are frozen."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from gradtx.core.compose.combine import SetToZero, as_part, chain, masked, visit
from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.composed import Composed
from gradtx.core.engine.labels import Labelled, Labels, check_labels
from gradtx.core.engine.leaves import Excluding, Mask
from gradtx.core.engine.program import Builder
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.spec import show


class Partition(Composed):
    """A transform for each group of leaves."""

    transforms: dict[Hashable, Any]
    param_labels: Labels
    mask_compatible_extra_args: bool

    def __init__(
        self, transforms: Mapping[Hashable, Any], param_labels: Labels, mask_compatible_extra_args: bool
    ) -> None:
        if not isinstance(transforms, Mapping) or not transforms:
            raise TypeError(
                f"partition takes a mapping from labels to transforms, at least one; got {show(transforms)}."
            )
        check_labels("partition", transforms)
        for tx in transforms.values():
            as_part("partition", tx)
        self._set(
            transforms=dict(transforms),
            param_labels=param_labels,
            mask_compatible_extra_args=mask_compatible_extra_args,
        )

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        kwargs = {"mask_compatible_extra_args": True} if self.mask_compatible_extra_args else {}
        return "partition", (self.transforms, self.param_labels), kwargs

    def _visit(self, builder: Builder) -> None:
        known = tuple(self.transforms)
        for label, tx in self.transforms.items():
            scope = builder.name_of(builder.claim(str(label)))
            mask = Labelled(
                "partition",
                "transform",
                self.param_labels,
                known,
                label,
                cuts_extra_args=self.mask_compatible_extra_args,
            )
            with builder.inside(name=scope, mask=mask):
                visit(tx, builder)


@builds(Partition)
def partition(
    transforms: Mapping[Hashable, AnyTransform],
    param_labels: Labels,
    *,
    mask_compatible_extra_args: bool = False,
) -> Transform:
    """Gives each group of leaves a transform of its own: u_i = transforms[label_i](g)_i.

    A transform sees the leaves of its group alone. What it measures over the tree is therefore per group:
    `clip_by_global_norm` inside a group clips by the norm of that group; before the partition, as in
    `chain(clip_by_global_norm(1.0), partition(...))`, by the norm of all leaves. A leaf has slots in the
    transforms of its own group only, so that a group of `set_to_zero()` costs no state.

    The groups are parts of one program with one step, so that all schedules run by the same clock. In the
    state and among the hyperparameters each group has its label for a name: `embed.adamw.learning_rate`.

    Args:
        transforms: a transform for each label. A label is a string, or anything hashable with a `str` of its
            own, such as an int or a member of an enum. A label that no leaf has is allowed.
        param_labels: the label of each leaf, as one of

            - a tree of labels like the parameters, or a prefix of it;
            - a function of `(path, leaf)`, with paths such as `'layers/0/kernel'`;
            - a function of the parameters that gives such a tree;
            - path patterns with a label each, as a mapping or as pairs, where the first that matches counts:
              `{"*embed*": "embed", "*": "body"}`. At least one has a wildcard, which a tree has not.
        mask_compatible_extra_args: whether keyword arguments of `update` that are trees like the gradients
            are cut down to a transform's own leaves; it makes a difference to transforms of other libraries
            and functions, while rules have no use for such trees.

    Returns:
        The transform on all groups.

    Raises:
        ValueError: two labels are one as strings; at init or update, a leaf has no label or one without a
            transform, or a pattern matches no leaf. The error names the leaf's path and the known labels.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> params = {"embed": jnp.ones(2), "head": jnp.ones(1)}
        >>> tx = gradtx.partition(
        ...     {"slow": gradtx.sgd(0.1), "fast": gradtx.sgd(1.0, momentum=0.9)},
        ...     {"embed": "slow", "head": "fast"},
        ... )
        >>> state = tx.init(params)
        >>> gradtx.hyperparams(state)["slow.sgd.learning_rate"]
        0.1
        >>> state["slots"]["fast.trace"]["trace"]
        {'embed': None, 'head': Array([0.], dtype=float32)}
    """
    ...


multi_transform = partition


@recipe
def freeze(mask: Mask) -> Transform:
    """Makes the updates of some leaves zero: u = 0 where the mask is True, u = g elsewhere.

    After an optimizer it throws away updates that were computed, and the optimizer keeps slots for these
    leaves: `selective_transform` spares both. A frozen leaf without a gradient, such as an integer, stays as
    it is.

    Args:
        mask: which leaves to freeze, as `gradtx.masked` takes it.

    Returns:
        A transform without slots.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> params = {"body": jnp.ones(1), "head": jnp.ones(1)}
        >>> tx = gradtx.freeze("body*")
        >>> tx.update(params, tx.init(params))[0]
        {'body': Array([0.], dtype=float32), 'head': Array([1.], dtype=float32)}
    """
    return masked(SetToZero(), mask)


@recipe
def selective_transform(optimizer: AnyTransform, *, freeze_mask: Mask) -> Transform:
    """Trains some leaves and freezes the others: u = 0 where the mask is True, u = optimizer(g) elsewhere.

    The optimizer sees the trained leaves alone: it has no slots for the others, and a norm that it measures
    is over the trained ones. A frozen leaf without a gradient, such as an integer, stays as it is.

    Args:
        optimizer: the wrapped transform, of any library; it trains the other leaves.
        freeze_mask: which leaves to freeze, as `gradtx.masked` takes it.

    Returns:
        The transform on all leaves.

    Examples:
        >>> import gradtx, jax, jax.numpy as jnp
        >>> params = {"body": jnp.ones(1000), "head": jnp.ones(1)}
        >>> tx = gradtx.selective_transform(gradtx.adam(0.1), freeze_mask="body*")
        >>> state = tx.init(params)
        >>> sum(x.size for x in jax.tree.leaves(state["slots"]))
        2
        >>> tx.update(params, state)[0]["body"].any()
        Array(False, dtype=bool)
    """
    return chain(masked(optimizer, Excluding(freeze_mask)), masked(SetToZero(), freeze_mask))
