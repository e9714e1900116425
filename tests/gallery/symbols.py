"""Which public name has which picture on its page, and which transforms have none and why."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from . import members, schedules, symbol_pictures
from .members import Member


def _calls(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


OVER_TIME = _calls("""
    scale_by_adam()
    scale_by_rms()
    scale_by_stddev()
    scale_by_rss()
    scale_by_belief()
    scale_by_yogi()
    scale_by_amsgrad()
    scale_by_adamax()
    scale_by_adan()
    scale_by_radam()
    scale_by_ademamix()
    scale_by_simplified_ademamix()
    scale_by_adopt()
    scale_by_laprop()
    scale_by_acprop()
    scale_by_adam_atan2()
    scale_by_stable_adam()
    scale_by_novograd()
    scale_by_lion()
    scale_by_sign()
    scale_by_rprop(0.1)
    scale_by_optimistic_gradient()
    scale_by_sm3()
    scale_by_factored_rms()
    scale_by_came()
    scale_by_adam_mini()
    trace(0.9)
    ema(0.9)
    ema_nesterov(trace(0.9), 0.9)
    debias(0.9)
    apply_every(5)
    reduce_variance()
    scale_by_schedule(cosine_decay_schedule(1.0, 60))
    add_noise(0.1, 0.55, key=0)
    cautious(trace(0.9))
    grams(trace(0.9))
    accumulate(trace(0.9), 5)
    MultiSteps(trace(0.9), 5)
""")
"""What is made of a gradient depends on those before it."""

ALIKE = _calls("""
    clip(1.0)
    clip_by_global_norm(1.0)
    clip_by_block_rms(1.0)
    adaptive_grad_clip(0.5)
    normalize()
    normalize_by_block_rms()
    normalize_by_update_norm()
    sign()
    square()
    negate()
    offset(0.5)
    scale(0.5)
    scale_by_learning_rate(0.5)
    add_decayed_weights(0.5)
    add_cautious_decayed_weights(0.5)
    keep_params_nonnegative()
    radial_brake(0.5)
    scale_by_trust_ratio()
    scale_by_param_block_norm()
    scale_by_param_block_rms()
    scale_by_fromage(0.5)
""")
"""What is made of a gradient is alike at each step."""

MATRICES = _calls("""
    orthogonalize()
    centralize()
    row_floor(0.5)
    scale_by_muon()
    scale_by_normuon()
    scale_by_adamuon()
    scale_by_muown(1.0)
    scale_by_contra_muon()
    scale_by_aurora()
    scale_by_dion()
    scale_by_dion2()
    scale_by_shampoo()
    scale_by_soap()
    scale_by_kl_soap()
    scale_by_soap_muon()
    scale_by_kron()
    scale_by_splus()
    muon(1.0)
    normuon(1.0)
    adamuon(1.0)
    muown(1.0)
    contra_muon(1.0)
    aurora(1.0)
    dion(1.0)
    dion2(1.0)
    scion(1.0)
    shampoo(1.0)
    soap(1.0)
    kl_soap(1.0)
    soap_muon(1.0)
    kron(1.0)
    splus(1.0)
    galore(1.0)
""")
"""What treats a matrix as a matrix."""

RECIPES = {
    "scale_by_adadelta": "adadelta",
    "scale_by_madgrad": "madgrad",
    "scale_by_cocob": "cocob",
    "scale_by_dog": "dog",
    "scale_by_dowg": "dowg",
    "scale_by_prodigy": "prodigy",
    "scale_by_dadapt_adam": "dadapt_adamw",
    "scale_by_polyak": "polyak_sgd",
    "scale_by_lbfgs": "lbfgs",
    "scale_by_sophia": "sophia",
    "hutchinson_estimator_diag_hessian": "sophia",
}
"""Transforms whose answer grows out of a whole run: the recipe of each goes down two functions."""

CHAINS = {
    "scale_by_distance_over_gradients": "chain(scale_by_distance_over_gradients(), scale(-1.0))",
    "scale_by_backtracking_linesearch": "chain(sgd(1.0), scale_by_backtracking_linesearch(15))",
    "scale_by_zoom_linesearch": "chain(sgd(1.0), scale_by_zoom_linesearch(15))",
    "reduce_on_plateau": "chain(sgd(0.02), reduce_on_plateau(patience=3))",
}
"""The same for those that are in no recipe."""

_BY_NAME: dict[str, Member] = {}
for _member in members.members():
    _BY_NAME.setdefault(_member.name, _member)

PATHS: Mapping[str, Member] = {
    **_BY_NAME,
    **{name: _BY_NAME[recipe] for name, recipe in RECIPES.items()},
    **{name: Member(call) for name, call in CHAINS.items()},
}

LEFT_OUT = {
    **dict.fromkeys(["identity", "set_to_zero"], "its one line says it all"),
    "sqrt": "is for what is not negative, behind another transform",
    "zero_nans": "changes nothing but what is no number",
    "scale_by_leaf": "is one factor for each leaf of a model",
    "scale_by_matrix_size": "is one factor for each shape of a matrix",
    "scale_by_hyperball": "keeps a matrix at the length it has, and its update shows nothing of that",
    "qk_clip": "needs what the attention of a model computed",
    "dpsgd": members.LEFT_OUT["dpsgd"],
}
"""The optimizers and transforms whose pages have no picture, each with the reason."""


def _pictures() -> dict[str, Callable[[], str]]:
    tables = {
        symbol_pictures.over_time: OVER_TIME,
        symbol_pictures.alike: ALIKE,
        symbol_pictures.matrix: MATRICES,
        symbol_pictures.schedule: schedules.CALLS,
    }
    made = {
        symbol_pictures.named(call): functools.partial(draw, call)
        for draw, calls in tables.items()
        for call in calls
    }
    made |= {name: functools.partial(symbol_pictures.path, member) for name, member in PATHS.items()}
    return made | symbol_pictures.PLOTS


PICTURES = _pictures()
"""What draws the picture of each name, as SVG."""
