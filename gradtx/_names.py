"""Names that gradtx imports late, and names of Optax that it does not have, with where they are."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

LOSSES = frozenset(
    [
        "convex_kl_divergence",
        "cosine_distance",
        "cosine_similarity",
        "ctc_loss",
        "ctc_loss_with_forward_probs",
        "generalized_kl_divergence",
        "hinge_loss",
        "huber_loss",
        "kl_divergence",
        "l2_loss",
        "log_cosh",
        "losses",
        "ntxent",
        "safe_softmax_cross_entropy",
        "sigmoid_binary_cross_entropy",
        "sigmoid_focal_loss",
        "smooth_labels",
        "softmax_cross_entropy",
        "softmax_cross_entropy_with_integer_labels",
        "squared_error",
    ]
)

OTHERS = frozenset(
    [
        "ApplyEvery",
        "LookaheadParams",
        "MaskOrFn",
        "ShouldSkipUpdateFunction",
        "WrappedSchedule",
        "ZoomLinesearchInfo",
        "assignment",
        "experimental",
        "matrix_inverse_pth_root",
        "microbatch",
        "microbatching",
        "multi_normal",
        "nnls",
        "perturbations",
        "power_iteration",
        "projections",
        "scale_gradient",
        "second_order",
    ]
)

IN_NAMESPACES = {
    "schedules": frozenset(["StatefulSchedule"]),
    "transforms": frozenset(["ConditionFn"]),
}
"""Names that stand in one of Optax's namespaces alone."""

KEPT_OTHERWISE = {
    "optimistic_adam": (
        "Optax deprecates it; gradtx.optimistic_adam_v2(learning_rate) is the same with the default "
        "optimism, and optimistic_adam_v2(1.0, alpha=learning_rate, beta=optimism) with another"
    ),
    "InjectHyperparamsState": "gradtx.hyperparams(state) reads the numbers, gradtx.set_hyperparams sets them",
    "InjectStatefulHyperparamsState": (
        "gradtx.hyperparams(state) reads the numbers, gradtx.set_hyperparams sets them"
    ),
    "LookaheadParams": "gradtx.lookahead takes the parameters as they are; the slow ones are in the state",
}
"""What stands in the place of some names."""


def explain(name: str, namespace: str = "") -> str:
    """The message for a name that gradtx, or a namespace of it, does not have."""
    own, theirs = (f"{library}{namespace and '.'}{namespace}" for library in ("gradtx", "optax"))
    plain = name.removeprefix("tree_") if namespace == "tree_utils" else name
    if not namespace and name in LOSSES:
        return f"gradtx leaves losses to Optax: use optax.{name}. Only the optimizer lines change."
    if name in KEPT_OTHERWISE:
        return f"{own} has no {name!r}: {KEPT_OTHERWISE[name]}. Optax's is {theirs}.{name}."
    if re.fullmatch("[A-Z]\\w*State", name):
        return (
            f"{own} has no {name!r}: its states are nested dicts, read as "
            f"state['slots']['scale_by_adam']['mu'] or gradtx.tree.get(state, 'mu'). For a state of Optax's "
            f"own use {theirs}.{name}; gradtx.from_optax_state goes on from it."
        )
    if plain in IN_NAMESPACES.get("tree" if namespace == "tree_utils" else namespace, ()) or name in OTHERS:
        return (
            f"{own} has no {name!r}. Optax's works beside it, and a transform also inside gradtx.chain: "
            f"{theirs}.{name}."
        )
    return f"module {own!r} has no attribute {name!r}"


def explaining(namespace: str = "") -> Callable[[str], Any]:
    """The `__getattr__` of gradtx or of a namespace of it, which explains each name that is not there."""

    def __getattr__(name: str) -> Any:
        raise AttributeError(explain(name, namespace))

    return __getattr__


def listing(module: Mapping[str, Any], *modules: str) -> Callable[[], list[str]]:
    """The `__dir__` of a module, given its `globals()`: what is public, and what every module has.

    Of `modules`, which are public but are there only when they have been imported, it has those.
    """

    def __dir__() -> list[str]:
        of_python = {name for name in module if re.fullmatch("__.*__", name)}
        return sorted({*of_python, *module["__all__"], *(module.keys() & modules)})

    return __dir__


def importing_later(modules: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of gradtx: imports the names of some modules when they are asked for."""
    places = {name: f"gradtx.{module}" for module, names in modules.items() for name in names.split(", ")}
    explaining_others = explaining()

    def __getattr__(name: str) -> Any:
        if name not in places:
            return explaining_others(name)
        value = getattr(importlib.import_module(places[name]), name)
        setattr(sys.modules["gradtx"], name, value)
        return value

    return __getattr__
