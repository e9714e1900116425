"""What each optimizer of torch is in gradtx: one table, read in both directions. torch is not imported."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gradtx.core.compose.combine import chain
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.spec import show
from gradtx.optimizers.adam import adam, adamw
from gradtx.optimizers.adamax import adamax
from gradtx.optimizers.adaptive import adadelta, adagrad, rmsprop
from gradtx.optimizers.radam import radam
from gradtx.optimizers.rprop import rprop
from gradtx.optimizers.sgd import sgd
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.momentum import trace
from gradtx.transforms.rms import scale_by_rms, scale_by_stddev
from gradtx.transforms.scale import scale_by_learning_rate

Options = Mapping[str, Any]
"""The options of one of torch's parameter groups."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """One optimizer of torch.

    Attributes:
        name: its class.
        options: the options that tell it from the others.
        entries: for each slot, as (rule, slot), the entry in torch's state of a parameter.
        same: what means the same in gradtx, in one form or several, the first of which is shown.
        more: options that not every version of it has.
        counts: whether its state has the step.
        always: whether a parameter has state before the first step.
        has_rate: whether its `lr` multiplies every step, and not only the first.
    """

    name: str
    options: frozenset[str]
    entries: Mapping[tuple[str, str], str]
    same: Callable[[Options], list[Transform]]
    more: frozenset[str] = frozenset()
    counts: bool = True
    always: bool = False
    has_rate: bool = True


def number(x: Any) -> float:
    """An option as a Python number: torch may keep a tensor."""
    try:
        value = float(x)
    except (TypeError, ValueError):
        raise TypeError(f"{show(x)} is no number.") from None
    return value if isinstance(x, int | float) else float(str(np.float32(value)))


def _decay(options: Options) -> float | None:
    return number(options["weight_decay"]) or None


def _sgd(o: Options) -> list[Transform]:
    dampening = {"dampening": number(o["dampening"]), "dampen_first": False} if o["dampening"] else {}
    momentum = number(o["momentum"]) or None
    nesterov = bool(o["nesterov"])
    return [sgd(number(o["lr"]), momentum, nesterov, weight_decay=_decay(o), **dampening)]


def is_decoupled(options: Options) -> bool | None:
    """Whether weight decay is AdamW's; None where an old torch does not say."""
    return options.get("decoupled_weight_decay")


def _pair(o: Options, name: str) -> tuple[float, float]:
    if not isinstance(o[name], list | tuple) or len(o[name]) != 2:
        raise TypeError(f"{name!r} must be a pair, got {show(o[name])}.")
    first, second = map(number, o[name])
    return first, second


def _adam(o: Options) -> list[Transform]:
    b1, b2 = _pair(o, "betas")
    lr, eps, decay = number(o["lr"]), number(o["eps"]), _decay(o)
    coupled = adam(lr, b1, b2, eps, weight_decay=decay)
    decoupled = adamw(lr, b1, b2, eps, weight_decay=decay or 0.0)
    return {True: [decoupled], False: [coupled], None: [coupled, decoupled]}[is_decoupled(o)]


def _adagrad(o: Options) -> list[Transform]:
    start, eps = number(o["initial_accumulator_value"]), number(o["eps"])
    return [adagrad(number(o["lr"]), start, eps, eps_in_sqrt=False, weight_decay=_decay(o))]


def _rmsprop(o: Options) -> list[Transform]:
    lr, decay, eps, momentum = (number(o[k]) for k in ("lr", "alpha", "eps", "momentum"))
    centered = bool(o["centered"])
    settings = {"eps_in_sqrt": False, "centered": centered, "weight_decay": _decay(o)}
    if not momentum:
        return [rmsprop(lr, decay, eps, **settings)]
    rescale = scale_by_stddev if centered else scale_by_rms
    parts = [rescale(decay, eps, eps_in_sqrt=False), trace(momentum), scale_by_learning_rate(lr)]
    if settings["weight_decay"]:
        parts.insert(0, add_decayed_weights(settings["weight_decay"]))
    return [rmsprop(lr, decay, eps, momentum=momentum, **settings), chain(*parts)]


def _adamax(o: Options) -> list[Transform]:
    return [adamax(number(o["lr"]), *_pair(o, "betas"), number(o["eps"]), weight_decay=_decay(o))]


def _radam(o: Options) -> list[Transform]:
    coupling = "rate" if is_decoupled(o) else "gradient"
    b1, b2 = _pair(o, "betas")
    lr, eps = number(o["lr"]), number(o["eps"])
    return [radam(lr, b1, b2, eps, eps_scaled=True, weight_decay=_decay(o), decay_coupling=coupling)]


def _rprop(o: Options) -> list[Transform]:
    least, most = _pair(o, "step_sizes")
    first = min(max(number(o["lr"]), least), most)
    return [rprop(first, *_pair(o, "etas"), least, most)]


def _adadelta(o: Options) -> list[Transform]:
    return [adadelta(number(o["lr"]), number(o["rho"]), number(o["eps"]), number(o["weight_decay"]))]


KINDS = [
    Kind(
        "SGD",
        frozenset({"lr", "momentum", "dampening", "nesterov", "weight_decay"}),
        {("trace", "trace"): "momentum_buffer"},
        _sgd,
        counts=False,
    ),
    Kind(
        "Adam",
        frozenset({"lr", "betas", "eps", "weight_decay", "amsgrad"}),
        {("scale_by_adam", "mu"): "exp_avg", ("scale_by_adam", "nu"): "exp_avg_sq"},
        _adam,
        more=frozenset({"decoupled_weight_decay"}),
    ),
    Kind(
        "Adagrad",
        frozenset({"lr", "lr_decay", "eps", "weight_decay", "initial_accumulator_value"}),
        {("scale_by_rss", "sum_of_squares"): "sum"},
        _adagrad,
        always=True,
    ),
    Kind(
        "RMSprop",
        frozenset({"lr", "alpha", "eps", "centered", "momentum", "weight_decay"}),
        {
            ("scale_by_rms", "nu"): "square_avg",
            ("scale_by_stddev", "nu"): "square_avg",
            ("scale_by_stddev", "mu"): "grad_avg",
            ("trace", "trace"): "momentum_buffer",
        },
        _rmsprop,
    ),
    Kind(
        "Adadelta",
        frozenset({"lr", "rho", "eps", "weight_decay"}),
        {("scale_by_adadelta", "e_g"): "square_avg", ("scale_by_adadelta", "e_x"): "acc_delta"},
        _adadelta,
    ),
    Kind(
        "Rprop",
        frozenset({"lr", "etas", "step_sizes"}),
        {("scale_by_rprop", "step_sizes"): "step_size", ("scale_by_rprop", "prev_updates"): "prev"},
        _rprop,
        has_rate=False,
    ),
    Kind(
        "RAdam",
        frozenset({"lr", "betas", "eps", "weight_decay", "decoupled_weight_decay"}),
        {("scale_by_radam", "mu"): "exp_avg", ("scale_by_radam", "nu"): "exp_avg_sq"},
        _radam,
    ),
    Kind(
        "Adamax",
        frozenset({"lr", "betas", "eps", "weight_decay"}),
        {("scale_by_adamax", "mu"): "exp_avg", ("scale_by_adamax", "nu"): "exp_inf"},
        _adamax,
    ),
]


def kind_of(options: Options) -> Kind:
    """Which optimizer a parameter group is of, by the names of its options."""
    for kind in KINDS:
        if kind.options <= set(options):
            return kind
    names = ", ".join(sorted(map(str, set(options) - {"params", "param_names"}))) or "none"
    raise ValueError(
        f"The options of torch's parameter group ({names}) are those of no optimizer that can be moved: SGD, "
        f"Adam, AdamW, Adagrad, RMSprop, Adadelta, Rprop, RAdam or Adamax."
    )


KNOWN = {
    *("params", "param_names", "name", "maximize", "foreach", "fused", "capturable", "differentiable"),
    *("initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum", "swa_lr"),
}
"""What a parameter group may have beside the options of its kind: the choice of an implementation, and what
torch's schedulers keep there."""


def refuse_foreign(kind: Kind, options: Options, rate_is_scheduled: bool) -> None:
    """Raises for options that gradtx has no counterpart for."""
    for key in sorted(map(str, set(options) - KNOWN - kind.options - kind.more)):
        value = options.get(key)
        if not (value is None or (isinstance(value, bool | int | float) and not value)):
            raise ValueError(
                f"torch's {kind.name} has no option {key!r}, and this parameter group has {key}="
                f"{show(value)}: another optimizer, perhaps. If it changes nothing, remove the key from the "
                f"group."
            )
    if options.get("amsgrad"):
        raise ValueError(
            "torch's amsgrad=True has no counterpart in gradtx. Optax's scale_by_amsgrad, which works inside "
            "gradtx.chain, is another formula: it takes the largest second moment after the bias "
            "correction, torch before."
        )
    if options.get("maximize"):
        raise ValueError(
            "torch's maximize=True has no counterpart in gradtx. Negate the loss, and set it to False."
        )
    if options.get("lr_decay") and not rate_is_scheduled:
        lr, decay = number(options["lr"]), number(options["lr_decay"])
        raise ValueError(
            f"torch's lr_decay={decay} is a schedule, and tx has a constant learning rate. What means the "
            f"same is learning_rate=lambda t: {lr} / (1 + {decay} * t)."
        )
