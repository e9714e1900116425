"""print(tx): valid code over several lines, one transform a line where there are several."""

import functools
import sys

import optax
import pytest

import gradtx
from catalogue import forms

COSINE = gradtx.warmup_cosine_decay_schedule(0.0, 3e-4, 100, 1000)


@pytest.mark.parametrize("entry, variant", forms())
def test_what_is_printed_evaluates_to_an_equal_object(entry, variant):
    built = entry.build(variant)
    text = str(built)
    assert max(map(len, text.splitlines())) <= 100
    if "<" not in text:
        assert eval(text, {**sys.modules, **vars(gradtx)}) == built


def test_what_is_flat_is_one_line():
    assert str(gradtx.adamw(1e-3, weight_decay=0.1)) == "adamw(0.001, weight_decay=0.1)"
    assert str(gradtx.accumulate(gradtx.sgd(0.1), 4)) == "accumulate(sgd(0.1), 4)"
    assert str(gradtx.chain(gradtx.sgd(0.1))) == "chain(sgd(0.1))"
    assert str(COSINE) == repr(COSINE)


def test_each_member_of_a_chain_has_a_line():
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(COSINE))
    assert str(tx) == (
        "chain(\n"
        "    clip_by_global_norm(1.0),\n"
        "    adamw(warmup_cosine_decay_schedule(0.0, 0.0003, 100, 1000)),\n"
        ")"
    )
    assert "\n" not in repr(tx)


def test_another_librarys_member_has_a_line_too():
    tx = gradtx.chain(gradtx.clip(1.0), optax.clip(1.0), optax.scale(-1.0))
    assert str(tx) == "chain(\n    clip(1.0),\n    <optax.clip>,\n    <optax.scale>,\n)"
    nameless = optax.GradientTransformation(lambda params: (), functools.partial(lambda *args: args[:2]))
    assert repr(gradtx.chain(nameless)) == "chain(<GradientTransformation>)"


def test_nested_wrappers_and_groups_are_indented():
    tx = gradtx.accumulate(
        gradtx.partition({"a": gradtx.sgd(0.1), "b": gradtx.set_to_zero()}, {"*bias": "a", "*": "b"}), 4
    )
    assert str(tx) == (
        "accumulate(\n"
        "    partition(\n"
        "        {\n"
        "            'a': sgd(0.1),\n"
        "            'b': set_to_zero(),\n"
        "        },\n"
        "        {'*bias': 'a', '*': 'b'},\n"
        "    ),\n"
        "    4,\n"
        ")"
    )


def test_a_long_line_is_broken_at_its_arguments():
    rate = gradtx.join_schedules(
        [gradtx.linear_schedule(0.0, 1e-3, 1000), gradtx.cosine_decay_schedule(1e-3, 10_000, 0.1)], [1000]
    )
    assert str(gradtx.sgd(rate, momentum=0.9)) == (
        "sgd(\n"
        "    join_schedules(\n"
        "        (linear_schedule(0.0, 0.001, 1000), cosine_decay_schedule(0.001, 10000, alpha=0.1)),\n"
        "        (1000,),\n"
        "    ),\n"
        "    momentum=0.9,\n"
        ")"
    )
