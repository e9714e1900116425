"""Every transform and optimizer, with every option, against its float64 reference, step by step.

With x64 both must agree to 1e-12 relative. Without it the bound is what single precision allows: gradtx
rounds each of about ten operations a step to 6e-8, and where an option makes cancellation or a feedback
carry such an error further, its case says by how much and why.
"""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

import gradtx
import references
from trajectories import deviations, narrow, problem, x64

DOUBLE = 1e-12
SINGLE = 1e-5


@dataclasses.dataclass(frozen=True)
class Both:
    """An argument as gradtx takes it, and as the references do."""

    ours: Any
    theirs: Any


@dataclasses.dataclass(frozen=True)
class Case:
    """A transform and the reference that it must follow."""

    ours: Any
    theirs: Any
    with_complex: bool = True
    mild: bool = False
    double: float = DOUBLE
    single: float = SINGLE

    def deviation(self, *, single: bool = False, small: bool = True) -> float:
        """The largest relative deviation, of updates or parameters, over all steps and leaves."""
        data = problem(with_complex=self.with_complex, mild=self.mild, small=small)
        if single:
            data = SimpleNamespace(params=narrow(data.params), grads=narrow(data.grads))
            return max(deviations(self.ours, self.theirs, data))
        with x64():
            return max(deviations(self.ours, self.theirs, data))


def reference(name: str, **kwargs: Any) -> Any:
    """The reference of a public name."""
    if name.startswith("nadam"):
        name, kwargs = name[1:], {"nesterov": True, **kwargs}
    return getattr(references, "".join(word.capitalize() for word in name.split("_")))(**kwargs)


def pair(name: str, **kwargs: Any) -> tuple[Any, Any]:
    """A transform by its public name and arguments, and its reference by the same."""
    ours = {k: v.ours if isinstance(v, Both) else v for k, v in kwargs.items()}
    theirs = {k: v.theirs if isinstance(v, Both) else v for k, v in kwargs.items()}
    return getattr(gradtx, name)(**ours), reference(name, **theirs)


def case(name: str, limits: dict[str, Any] | None = None, **kwargs: Any) -> Case:
    """One transform, with what its comparison needs."""
    return Case(*pair(name, **kwargs), **(limits or {}))


def composed(ours: Any, theirs: Any, *parts: tuple[Any, Any], **limits: Any) -> Case:
    """A combinator of gradtx over some parts, and the references' over the same."""
    return Case(ours(*(a for a, _ in parts)), theirs(*(b for _, b in parts)), **limits)


LINE = Both(gradtx.linear_schedule(0.1, 0.01, 60), references.linear(0.1, 0.01, 60))
WARM = Both(
    gradtx.warmup_linear_decay_schedule(0.0, 0.1, 10, 80, 0.01),
    references.warmup_linear_decay(0.0, 0.1, 10, 80, 0.01),
)
ABOUT_ONE = Both(
    gradtx.warmup_cosine_decay_schedule(0.1, 1.0, 10, 90),
    references.warmup_cosine_decay(0.1, 1.0, 10, 90),
)
DECAY = Both(gradtx.linear_schedule(0.8, 0.95, 50), references.linear(0.8, 0.95, 50))
CODE = Both(lambda step: 0.1 / (1.0 + step), lambda step: 0.1 / (1.0 + step))
SOME = Both("m*", [True, False])  # the matrix, not the complex vector


class Masked(references.Chain):
    """A reference on the leaves that `SOME` names, and `outside` times the gradient on the others."""

    def __init__(self, inner, outside):
        super().__init__(inner)
        self.outside = outside

    def update(self, grads, params, **extra):
        on, _ = super().update(grads, params, **extra)
        return [on, self.outside * grads[1]]


# A variance is a difference of two averages; at the first step after a bias correction, or from a first
# gradient, it is 0 but for rounding, which an eps of 0.01 covers where gradients are about 1.
CENTERED = {"mild": True, "single": 2e-4}
# Prodigy multiplies gradients by an estimate that feeds on itself, so an early rounding error grows.
PRODIGY = {"mild": True, "double": 1e-10, "single": 2e-3}
# u / |u| for a u that is nearly 0 has u's relative error, which cancellation made large.
PHASE = {"single": 1e-4}

OPTIONS = {
    "sgd momentum": case("sgd", learning_rate=0.1, momentum=0.9),
    "sgd nesterov": case("sgd", learning_rate=0.1, momentum=0.9, nesterov=True),
    "sgd dampening": case("sgd", learning_rate=0.1, momentum=0.9, dampening=0.5),
    "sgd dampening but the first": case(
        "sgd", learning_rate=0.1, momentum=0.9, dampening=0.5, dampen_first=False
    ),
    "sgd coupled decay": case("sgd", learning_rate=0.1, momentum=0.9, weight_decay=0.05),
    "sgd schedules": case("sgd", learning_rate=WARM, momentum=DECAY, dampening=LINE, weight_decay=LINE),
    "sgd a callable": case("sgd", learning_rate=CODE),
    "sgd coupled decay on some": Case(
        gradtx.sgd(0.1, momentum=0.9, weight_decay=0.05, mask=SOME.ours),
        references.Chain(
            references.AddDecayedWeights(0.05, SOME.theirs), references.Sgd(0.1, momentum=0.9)
        ),
    ),
    "the rate inside the buffer": composed(
        gradtx.chain,
        references.Chain,
        pair("scale_by_learning_rate", learning_rate=LINE),
        pair("trace", decay=0.9),
    ),
    "adagrad torch": case(
        "adagrad", learning_rate=0.1, initial_accumulator_value=0.0, eps=1e-10, eps_in_sqrt=False
    ),
    "adagrad the paper's": case("adagrad", learning_rate=LINE, initial_accumulator_value=0.0, eps=1e-3),
    "adagrad coupled decay": case("adagrad", learning_rate=0.1, weight_decay=0.05),
    "rmsprop eps outside": case("rmsprop", learning_rate=0.01, eps=1e-3, eps_in_sqrt=False),
    "rmsprop initial scale": case("rmsprop", learning_rate=0.01, initial_scale=0.5),
    "rmsprop first gradient": case("rmsprop", learning_rate=0.01, first_gradient=True, eps=0.0),
    "rmsprop bias correction": case("rmsprop", learning_rate=0.01, bias_correction=True),
    "rmsprop coupled decay": case("rmsprop", learning_rate=0.01, weight_decay=0.05),
    "rmsprop momentum": case("rmsprop", learning_rate=LINE, decay=DECAY, momentum=0.9),
    "rmsprop nesterov": case("rmsprop", learning_rate=LINE, momentum=0.9, nesterov=True),
    "rmsprop centered": case("rmsprop", CENTERED, learning_rate=0.01, centered=True, eps=1e-2),
    "rmsprop centered, eps outside": case(
        "rmsprop", CENTERED, learning_rate=0.01, centered=True, eps=1e-2, eps_in_sqrt=False, momentum=0.9
    ),
    "rmsprop centered, corrected": case(
        "rmsprop", CENTERED, learning_rate=0.01, centered=True, eps=1e-2, bias_correction=True
    ),
    "rmsprop centered, first gradient": case(
        "rmsprop", CENTERED, learning_rate=0.01, centered=True, eps=1e-2, first_gradient=True
    ),
    "adadelta without a rate": case("adadelta"),
    "adadelta": case("adadelta", learning_rate=LINE, rho=0.95, eps=1e-4, weight_decay=0.05),
    "adam without bias correction": case("adam", learning_rate=1e-3, bias_correction=False),
    "adam eps inside": case("adam", learning_rate=1e-3, eps=0.0, eps_root=1e-3),
    "adam eps scaled": case("adam", learning_rate=1e-3, eps=1e-3, eps_scaled=True),
    "adam eps scaled inside": case("adam", learning_rate=1e-3, eps=0.0, eps_root=1e-3, eps_scaled=True),
    "adam nesterov": case("adam", learning_rate=1e-3, nesterov=True),
    "adam nesterov uncorrected": case("adam", learning_rate=1e-3, nesterov=True, bias_correction=False),
    "adam coupled decay": case("adam", learning_rate=1e-3, weight_decay=0.05),
    "adam schedules": case("adam", learning_rate=WARM, b1=DECAY, b2=DECAY, eps=LINE, eps_root=LINE),
    "adam long memory": case("adam", learning_rate=1e-3, b2=0.999999),
    "adam betas 0": case("adam", learning_rate=1e-3, b1=0.0, b2=0.0),
    "adamw decay a schedule": case("adamw", learning_rate=WARM, weight_decay=LINE),
    "adamw decay on some": case("adamw", learning_rate=1e-3, weight_decay=0.1, mask=SOME),
    "adamw bert": case("adamw", learning_rate=LINE, bias_correction=False, eps=1e-6, weight_decay=0.01, mask=SOME),
    "adamw eps scaled, nesterov": case("adamw", learning_rate=1e-3, eps=1e-3, eps_scaled=True, nesterov=True),
    "adamw eps inside": case("adamw", learning_rate=1e-3, eps=0.0, eps_root=1e-3),
    **{
        f"adamw {coupling} {word}": case(
            "adamw", learning_rate=0.01, weight_decay=0.1, decay_coupling=coupling, schedule=schedule
        )
        for coupling in ("rate", "schedule", "none")
        for word, schedule in (("alone", None), ("with a schedule", ABOUT_ONE))
    },
    "nadamw decay": case("nadamw", learning_rate=1e-3, weight_decay=0.1, mask=SOME),
    "lion betas": case("lion", PHASE, learning_rate=LINE, b1=0.95, b2=DECAY, weight_decay=0.1),
    "adafactor factored": case("adafactor", learning_rate=0.01, min_dim_size_to_factor=2),
    "adafactor momentum": case(
        "adafactor", learning_rate=LINE, min_dim_size_to_factor=2, momentum=0.9, weight_decay_rate=0.01
    ),
    "adafactor plain": case(
        "adafactor",
        learning_rate=0.01,
        multiply_by_parameter_scale=False,
        clipping_threshold=None,
        factored=False,
        decay_rate=0.5,
        eps=1e-6,
    ),
    "adafactor offset": case("adafactor", min_dim_size_to_factor=2, decay_offset=5, clipping_threshold=0.5),
    "prodigy decay": case("prodigy", PRODIGY, estim_lr0=1e-2, weight_decay=0.1, eps=1e-3),
    "prodigy safeguard": case(
        "prodigy", PRODIGY, learning_rate=LINE, estim_lr0=1e-2, safeguard_warmup=True, beta3=0.9
    ),
    "prodigy betas": case("prodigy", PRODIGY, betas=(0.8, 0.95), estim_lr0=1e-2, estim_lr_coef=0.5),
    "trace dampened": case("trace", decay=0.9, dampening=0.5, dampen_first=False, nesterov=True),
    "ema without debiasing": case("ema", decay=DECAY, debias=False),
    "clip_by_global_norm never": case("clip_by_global_norm", max_norm=1e9),
    "scale_by_learning_rate unflipped": case("scale_by_learning_rate", learning_rate=WARM, flip_sign=False),
    "scale_by_factored_rms offset": case("scale_by_factored_rms", min_dim_size_to_factor=2, step_offset=3),
    "masked": Case(
        gradtx.masked(gradtx.adam(0.01), SOME.ours), Masked(references.Adam(0.01), 1.0)
    ),
    "masked to zero": Case(
        gradtx.masked(gradtx.adam(0.01), SOME.ours, outside="zero"), Masked(references.Adam(0.01), 0.0)
    ),
    "clipping, decay and a schedule": composed(
        gradtx.chain,
        references.Chain,
        pair("clip_by_global_norm", max_norm=1.0),
        pair("scale_by_adam"),
        pair("add_decayed_weights", weight_decay=0.1, mask=SOME),
        pair("scale_by_schedule", step_size_fn=Both(gradtx.linear_schedule(-0.1, 0.0, 90), references.linear(-0.1, 0.0, 90))),
    ),
    "two clocks in one chain": composed(
        gradtx.chain,
        references.Chain,
        pair("adam", learning_rate=WARM, b1=0.5),
        pair("ema", decay=0.9),
        pair("scale_by_adam", b2=0.9),
        pair("scale", step_size=0.01),
    ),
    "a sum within a ratio": Case(
        gradtx.ratio(
            gradtx.add(gradtx.ema(0.9), gradtx.scale(0.5)),
            gradtx.chain(gradtx.square(), gradtx.ema(0.99), gradtx.sqrt(), gradtx.offset(1e-3)),
        ),
        references.Ratio(
            references.Sum(references.Ema(0.9), references.Scale(0.5)),
            references.Chain(
                references.Square(), references.Ema(0.99), references.Sqrt(), references.Offset(1e-3)
            ),
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_option_follows_its_reference(name):
    assert OPTIONS[name].deviation() <= OPTIONS[name].double


@pytest.mark.full
@pytest.mark.parametrize("name", OPTIONS)
def test_option_follows_its_reference_in_single_precision(name):
    assert OPTIONS[name].deviation(single=True) <= OPTIONS[name].single
