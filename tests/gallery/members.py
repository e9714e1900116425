"""Which optimizers are in the gallery, on which page, and which are left out and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import gradtx


@dataclasses.dataclass(frozen=True)
class Member:
    """One path of a picture.

    Attributes:
        call: the code; `RATE` stands where a learning rate is chosen.
        words: the name in the picture, if it is not that of the function.
    """

    call: str
    words: str = ""

    @property
    def name(self) -> str:
        return self.call.partition("(")[0]

    @property
    def label(self) -> str:
        return self.words or self.name

    @property
    def chosen(self) -> bool:
        """Whether its learning rate is chosen from the grid."""
        return "RATE" in self.call

    def code(self, rate: float) -> str:
        return self.call.replace("RATE", f"{rate:g}")

    def made(self, rate: float) -> Any:
        return eval(self.code(rate), dict(vars(gradtx)))


@dataclasses.dataclass(frozen=True)
class Page:
    """A page: its pictures by title, each with a few optimizers."""

    slug: str
    title: str
    about: str
    pictures: Mapping[str, tuple[Member, ...]]


def _rated(names: str) -> tuple[Member, ...]:
    return tuple(Member(f"{name}(RATE)") for name in names.split())


def _free(names: str) -> tuple[Member, ...]:
    return tuple(Member(f"{name}()") for name in names.split())


PAGES = [
    Page(
        "descent",
        "Gradient descent, momentum and signs",
        "A step is the gradient, an average of gradients, or the sign of one of them, times the rate. With "
        "signs all steps have one length, so that a path ends in small swings around the minimum.",
        {
            "Gradient descent": (
                Member("sgd(RATE)"),
                Member("sgd(RATE, momentum=0.9)", "sgd, momentum 0.9"),
                Member("sgd(RATE, momentum=0.9, nesterov=True)", "sgd, Nesterov 0.9"),
                Member("noisy_sgd(RATE, key=0)"),
                Member("optimistic_gradient_descent(RATE)", "optimistic_gradient_descent"),
            ),
            "Signs": _rated("sign_sgd signum lion rprop"),
        },
    ),
    Page(
        "elementwise",
        "A rate for each element",
        "Each element's step is divided by the size that its gradients have had, so that a ravine looks "
        "nearly round.",
        {"A rate for each element": _rated("adagrad rmsprop adadelta madgrad")},
    ),
    Page(
        "adams",
        "Adam and its kin",
        "An average of the gradients, divided by the root of an average of their squares. What differs "
        "is which "
        "averages, when, and of what. On two numbers many of them are nearly the same, and lie on each "
        "other.",
        {
            "Adam, decay and Nesterov": _rated("adam adamw nadam nadamw"),
            "Maxima, and a slow start": _rated("adamax adamaxw amsgrad radam"),
            "Other second moments": _rated("adabelief yogi adan mars"),
            "Other first moments": _rated("ademamix simplified_ademamix adopt acprop"),
            "Other divisions": _rated("laprop adam_atan2 stable_adamw optimistic_adam_v2"),
        },
    ),
    Page(
        "layerwise",
        "Less memory, larger batches",
        "They keep one number for a row, a block or a leaf, or make the length of a step a share of the "
        "length of the parameters. Here the leaf has two numbers; what they are made for does not show.",
        {
            "Less memory": _rated("adafactor sm3 came adam_mini"),
            "Larger batches": _rated("novograd lars lamb fromage"),
        },
    ),
    Page(
        "rate-free",
        "No rate to tune, no end to know",
        "The size of the steps follows from the run: these have no chosen rate, but their defaults. "
        "Schedule-free optimizers have a rate, and need not know when the run ends; what is drawn are the "
        "parameters at which gradients are taken.",
        {
            "Distance estimated in the run": _free("prodigy dadapt_adamw dog dowg"),
            "Bets, and the value of the loss": (
                Member("cocob()"),
                Member("momo()"),
                Member("momo_adam()"),
                Member("polyak_sgd()"),
            ),
            "Schedule-free": _rated("schedule_free_sgd schedule_free_adamw"),
        },
    ),
    Page(
        "line-searches",
        "Curvature and line searches",
        "L-BFGS looks at the loss several times for a step, beside gradient descent with as many steps. "
        "Line searches are not made for noise: there the value that is searched does not belong to the "
        "gradient. Sophia measures the curvature of each number every ten steps, and divides by it.",
        {
            "A line search": (Member("lbfgs()"), Member("sgd(RATE)")),
            "The curvature of each number": _rated("sophia adam"),
        },
    ),
]

_MATRICES = (
    "works on matrices; two numbers are a vector, which it gives to AdamW or refuses; its page "
    "shows what it makes of a matrix"
)
LEFT_OUT = {
    **dict.fromkeys(
        [
            *("muon", "normuon", "adamuon", "muown", "contra_muon", "aurora", "dion", "dion2", "scion"),
            *("shampoo", "soap", "kl_soap", "soap_muon", "kron", "splus", "galore"),
        ],
        _MATRICES,
    ),
    "dpsgd": "needs the gradient of each example",
}
"""The optimizers that no picture has, each with the reason."""


def members() -> list[Member]:
    return [one for page in PAGES for several in page.pictures.values() for one in several]
