"""Every transform and optimizer, with every option, against its float64 reference, step by step.

With x64 both must agree to 1e-12 relative. Without it the bound is what single precision allows: gradtx
rounds each of about ten operations a step to 6e-8, and where an option makes cancellation or a feedback
carry such an error further, its case says by how much and why.
"""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import pytest

import gradtx
import references
from catalogue import ENTRIES
from rotation import one_of
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
    positive: bool = False
    double: float = DOUBLE
    single: float = SINGLE
    extra: Any = dataclasses.field(default_factory=dict)

    def deviation(self, *, single: bool = False, small: bool = True) -> float:
        """The largest relative deviation, of updates or parameters, over all steps and leaves."""
        data = problem(with_complex=self.with_complex, mild=self.mild, positive=self.positive, small=small)
        if single:
            data = SimpleNamespace(params=narrow(data.params), grads=narrow(data.grads))
            return max(deviations(self.ours, self.theirs, data, **self.extra))
        with x64():
            return max(deviations(self.ours, self.theirs, data, **self.extra))


# By default Adafactor keeps its momentum in float32, which is not enough for x64 or complex leaves.
WIDE_MOMENTUM = {"dtype_momentum": None}


def reference(name: str, **kwargs: Any) -> Any:
    """The reference of a public name."""
    if name.startswith("nadam"):
        name, kwargs = name[1:], {"nesterov": True, **kwargs}
    return getattr(references, "".join(word.capitalize() for word in name.split("_")))(**kwargs)


def pair(name: str, **kwargs: Any) -> tuple[Any, Any]:
    """A transform by its public name and arguments, and its reference by the same."""
    ours = {k: v.ours if isinstance(v, Both) else v for k, v in kwargs.items()}
    theirs = {k: v.theirs if isinstance(v, Both) else v for k, v in kwargs.items()}
    if name == "adafactor":
        ours.update(WIDE_MOMENTUM)
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
CODE = Both(lambda step: jnp.where(step < 50, 0.1, 0.02), lambda step: 0.1 if step < 50 else 0.02)
SOME = Both("m*", [True, False])  # the matrix, not the complex vector


# A variance is a difference of two averages. At the first step after a bias correction, or from a first
# gradient, it is 0 but for rounding, which only an eps of 1e-3 or more covers, where gradients are about 1.
CENTERED = {"mild": True, "single": 2e-4}
# The estimate feeds on the gradients that it scales, so that an early rounding error grows.
PRODIGY = {"mild": True, "single": 1e-4}
# The update is a difference of parameters, of which it has the rounding errors.
DIFFERENCE = {"mild": True}
# What a step multiplies the parameters by must stay near 1.
RELATIVE = {"mild": True}
# Of singular values that are small next to the largest fewer digits are known.
MATRICES = {"mild": True, "double": 1e-9, "single": 5e-3}
LIMITS = {
    # The loss that is left to gain is a difference of averages.
    "momo": {"mild": True, "double": 1e-10, "single": 1e-4},
    "orthogonalize": MATRICES,
    "muon": MATRICES,
    **dict.fromkeys(["soap", "shampoo", "splus", "dion2", "adamuon", "scion"], MATRICES),
    **dict.fromkeys(["aurora", "galore full"], MATRICES),
    # The step is a difference of parameters, too.
    "muown": MATRICES,
    "stddev": CENTERED,
    "centered": CENTERED,
    "prodigy": PRODIGY,
    "param_block": RELATIVE,
    # The factor of the whole path feeds on what it was, and the average is a difference of what is near.
    "mechanize": {"mild": True, "double": 1e-11, "single": 2e-3},
    # The reference has what has been gone as a difference of two points.
    "ema_nesterov": {"double": 1e-11},
    "sam": {"mild": True, "single": 5e-5},
    "schedule_free": {"mild": True, "single": 5e-5},
    "hyperball": {"mild": True, "single": 1e-4},
    "by_matrix": {"mild": True, "single": 1e-4},
    # A curvature that is a difference of products has their rounding errors.
    "lbfgs": {"mild": True, "single": 1e-3},
    "lookahead": DIFFERENCE,
}
# A schedule gives a decay in single precision, whose complement then has 1 / (1 - b) times its error.
SCHEDULED_DECAY = {"single": 5e-5}
# In the reference 1 - b^t itself has 1 / (1 - b) times the rounding error of b^t.
LONG_MEMORY = {"double": 1e-10}

OPTIONS = {
    "sgd schedules": case("sgd", learning_rate=WARM, momentum=DECAY, dampening=LINE, weight_decay=LINE),
    "sgd a callable": case("sgd", learning_rate=CODE),
    "sgd coupled decay on some": Case(
        gradtx.sgd(0.1, momentum=0.9, weight_decay=0.05, mask=SOME.ours),
        references.Chain(references.AddDecayedWeights(0.05, SOME.theirs), references.Sgd(0.1, momentum=0.9)),
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
    "rmsprop first gradient": case("rmsprop", learning_rate=0.01, first_gradient=True, eps=0.0),
    "rmsprop momentum": case("rmsprop", learning_rate=LINE, decay=DECAY, momentum=0.9),
    "rmsprop centered, eps outside": case(
        "rmsprop", CENTERED, learning_rate=0.01, centered=True, eps=1e-2, eps_in_sqrt=False, momentum=0.9
    ),
    "rmsprop centered, corrected": case(
        "rmsprop", CENTERED, learning_rate=0.01, centered=True, eps=1e-2, bias_correction=True
    ),
    "rmsprop centered, first gradient": case(
        "rmsprop", CENTERED, learning_rate=0.01, centered=True, eps=1e-2, first_gradient=True
    ),
    "adadelta": case("adadelta", learning_rate=LINE, rho=0.95, eps=1e-4, weight_decay=0.05),
    "adam eps scaled inside": case("adam", learning_rate=1e-3, eps=0.0, eps_root=1e-3, eps_scaled=True),
    "adam nesterov uncorrected": case("adam", learning_rate=1e-3, nesterov=True, bias_correction=False),
    "adam schedules": case(
        "adam", SCHEDULED_DECAY, learning_rate=WARM, b1=DECAY, b2=DECAY, eps=LINE, eps_root=LINE
    ),
    "adam long memory": case("adam", LONG_MEMORY, learning_rate=1e-3, b2=0.999999),
    "adam betas 0": case("adam", learning_rate=1e-3, b1=0.0, b2=0.0),
    "adamw decay a schedule": case("adamw", learning_rate=WARM, weight_decay=LINE),
    "adamw decay on some": case("adamw", learning_rate=1e-3, weight_decay=0.1, mask=SOME),
    "adamw bert": case(
        "adamw", learning_rate=LINE, bias_correction=False, eps=1e-6, weight_decay=0.01, mask=SOME
    ),
    **{
        f"adamw decay by {coupling}": case(
            "adamw", learning_rate=WARM, weight_decay=0.1, decay_coupling=coupling, schedule=schedule
        )
        for coupling, schedule in (("rate", ABOUT_ONE), ("schedule", ABOUT_ONE), ("none", None))
    },
    "nadamw decay": case("nadamw", learning_rate=1e-3, weight_decay=0.1, mask=SOME),
    "lion betas": case("lion", learning_rate=LINE, b1=0.95, b2=DECAY, weight_decay=0.1),
    "adafactor factored": case("adafactor", learning_rate=0.01, min_dim_size_to_factor=2),
    "adafactor momentum": case(
        "adafactor",
        learning_rate=LINE,
        min_dim_size_to_factor=2,
        momentum=0.9,
        weight_decay_rate=0.01,
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
    "scale_by_factored_rms offset": case("scale_by_factored_rms", min_dim_size_to_factor=2, step_offset=3),
    "clipping, decay and a schedule": composed(
        gradtx.chain,
        references.Chain,
        pair("clip_by_global_norm", max_norm=1.0),
        pair("scale_by_adam"),
        pair("add_decayed_weights", weight_decay=0.1, mask=SOME),
        pair(
            "scale_by_schedule",
            step_size_fn=Both(gradtx.linear_schedule(-0.1, 0.0, 90), references.linear(-0.1, 0.0, 90)),
        ),
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
}


def of_catalogue(name: str, variant: str = "") -> Case:
    """An entry of the catalogue and its reference; a schedule's is gradient descent with it."""
    entry = ENTRIES[name]
    ours, theirs = entry.transform(variant), entry.build_reference(variant)
    if entry.kind == "schedule":
        theirs = references.Sgd(theirs)
    if name == "adafactor":
        ours = gradtx.adafactor(**{**entry.arguments(variant), **WIDE_MOMENTUM})
    if name.startswith("scale_by_param_block"):
        ours = gradtx.chain(ours, gradtx.scale(-0.01))
        theirs = references.Chain(theirs, references.Scale(-0.01))
    limits = next((v for k, v in LIMITS.items() if k in f"{name} {variant}"), {})
    limits = {
        "with_complex": entry.supports_complex,
        "positive": entry.positive,
        "extra": entry.extra,
        **limits,
    }
    return Case(ours, theirs, **limits)


NAMES = [entry.name for entry in ENTRIES.values() if entry.reference is not None]
FORMULAS = [name for name in NAMES if ENTRIES[name].kind != "schedule"]
VARIANTS = [(name, variant) for name in NAMES for variant in ENTRIES[name].variants]


def test_only_what_is_random_or_rounded_has_no_reference():
    assert set(ENTRIES) - set(NAMES) == {
        "add_noise",
        "noisy_sgd",
        "differentially_private_aggregate",
        "dpsgd",
        "scale_by_kron",
        "kron",
        "scale_by_dion",
        "dion",
        "store",
        "precision",
    }


@pytest.mark.by_turns(27)
@pytest.mark.parametrize("name", NAMES)
def test_follows_its_reference(name):
    case = of_catalogue(name)
    assert case.deviation(small=ENTRIES[name].kind == "schedule") <= case.double


OF_EIGENVECTORS = (
    *("scale_by_soap", "soap", "scale_by_kl_soap", "kl_soap", "scale_by_splus", "splus"),
    *("scale_by_soap_muon", "soap_muon"),
    *("scale_by_galore", "galore"),
)
"""In single precision near eigenvalues have other eigenvectors, and what Adam makes of them is another."""


@pytest.mark.by_turns(2)
@pytest.mark.parametrize(
    "name",
    [n for n in FORMULAS if ENTRIES[n].kind == "transform" and n not in OF_EIGENVECTORS]
    + [
        pytest.param(n, marks=pytest.mark.full)
        for n in FORMULAS
        if ENTRIES[n].kind == "optimizer" and n not in OF_EIGENVECTORS
    ],
)
def test_follows_its_reference_in_single_precision(name):
    case = of_catalogue(name)
    assert case.deviation(single=True) <= case.single


@pytest.mark.by_turns(9)
@pytest.mark.parametrize("variant", one_of(4, VARIANTS), ids="-".join)
def test_variant_follows_its_reference(variant):
    case = of_catalogue(*variant)
    assert case.deviation() <= case.double


@pytest.mark.full
@pytest.mark.parametrize("name, variant", [v for v in VARIANTS if v[0] not in OF_EIGENVECTORS])
def test_variant_follows_its_reference_in_single_precision(name, variant):
    case = of_catalogue(name, variant)
    assert case.deviation(single=True) <= case.single


@pytest.mark.by_turns(5)
@pytest.mark.parametrize("name", one_of(4, OPTIONS))
def test_option_follows_its_reference(name):
    assert OPTIONS[name].deviation() <= OPTIONS[name].double


@pytest.mark.full
@pytest.mark.parametrize("name", OPTIONS)
def test_option_follows_its_reference_in_single_precision(name):
    assert OPTIONS[name].deviation(single=True) <= OPTIONS[name].single
