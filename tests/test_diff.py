"""`diff` names where two optimizers part and what is responsible, for every pair of conventions and mutants."""

import ast
import functools
import inspect
import itertools

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from catalogue import ENTRIES
from gradtx.core.numerics import abs_sq, divide, sqrt
from gradtx.inspect.changes import Comparison
from gradtx.schedules.linear import LinearSchedule
from gradtx.transforms.adam import ScaleByAdam
from gradtx.transforms.lion import ScaleByLion
from gradtx.transforms.momentum import Trace
from test_founding_formulas import PUBLIC, ROWS

ALIKE = [
    {"full-batch", "one-sample", "mini-batch"},
    {"momentum", "momentum-by-parts"},
    {"adam", "linear-adam"},
    {"adamw", "linear-adamw"},
    {"adadelta", "linear-adadelta"},
]
"""Rows that are one optimizer, in other words or on other data."""


@functools.cache
def convention(name):
    return eval(ROWS[name].ours, PUBLIC)


def arguments(name):
    """The function that a row calls, and its arguments by name."""
    call = ast.parse(ROWS[name].ours, mode="eval").body
    signature = inspect.signature(PUBLIC[call.func.id])
    given = signature.bind(
        *map(ast.unparse, call.args), **{k.arg: ast.unparse(k.value) for k in call.keywords}
    )
    defaults = {k: repr(p.default) for k, p in signature.parameters.items() if p.default is not p.empty}
    return call.func.id, {**defaults, **given.arguments}


def check_pair(one, other):
    found = gradtx.diff(convention(one), convention(other))
    assert bool(found) != any({one, other} <= rows for rows in ALIKE)
    if not found:
        assert found.causes == ()
        return
    assert found.causes and found.first.leaf is not None
    (f, ours), (g, theirs) = arguments(one), arguments(other)
    if f == g != "chain":
        changed = {k for k in theirs if ours.get(k) != theirs[k]}
        for cause in found.causes:
            assert (cause.name if cause.place == f else cause.place.split(".")[1]) in changed | {
                "linear_schedule",
                "warmup_cosine_decay_schedule",
            }
    for cause in found.causes:
        assert cause.a != cause.b


def neighbours():
    """Rows that follow each other, and what each is compared with most: the plain form of its kind."""
    names = list(ROWS)
    plain = ["momentum-plain", "adam", "adamw"]
    return sorted({*itertools.pairwise(names), *((p, n) for p in plain for n in names if n.startswith(p[:4]) and n != p)})


@pytest.mark.parametrize("one, other", neighbours())
def test_the_cause_is_an_argument_in_which_two_conventions_differ(one, other):
    check_pair(one, other)


@pytest.mark.full
@pytest.mark.parametrize("one, other", itertools.combinations(ROWS, 2))
def test_every_pair_of_conventions(one, other):
    check_pair(one, other)


