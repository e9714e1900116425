"""Specs: the repr is the code, equality is by value, the hash is of the structure; nothing changes them."""

from __future__ import annotations

import ast
import inspect
import math
import pickle
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import DECLARED

EMPTY = inspect.Parameter.empty
INF, NAN = float("inf"), float("nan")


def module_level_schedule(step):
    return 0.1


def module_level_mask(path, leaf):
    return leaf.ndim > 1


REBUILT = [
    gradtx.sgd(0.1),
    gradtx.sgd(1, momentum=0, nesterov=True, accumulator_dtype="bfloat16"),
    gradtx.adam(1e-3, b2=0.999999, eps=1e-30, mu_dtype=jnp.bfloat16),
    gradtx.adamw(3e-4, weight_decay=0.1, mask=("!*bias", "!*norm*")),
    gradtx.adamw(
        gradtx.warmup_cosine_decay_schedule(0.0, 1e-3, 10, 100), mask={"w": True, "layers": [False, True]}
    ),
    gradtx.chain(),
    gradtx.chain(gradtx.clip_by_global_norm(INF), gradtx.scale(-1e38), gradtx.sgd(1e38)),
    gradtx.named_chain(("a", gradtx.trace(0.9)), ("b", gradtx.chain(gradtx.scale(2.0), gradtx.scale(-1e-3)))),
    gradtx.masked(gradtx.adam(1e-3), "*kernel", outside="zero"),
    gradtx.ratio(
        gradtx.identity(), gradtx.chain(gradtx.square(), gradtx.ema(0.9), gradtx.sqrt(), gradtx.offset(1e-8))
    ),
    gradtx.add(gradtx.scale(1.0), gradtx.sign()),
    gradtx.sgd(module_level_schedule),
    gradtx.masked(gradtx.sgd(0.1), module_level_mask),
    gradtx.sgd(
        gradtx.join_schedules(
            [gradtx.constant_schedule(1.0), 0.5, gradtx.linear_schedule(1.0, 0.0, 3)], [2, 4]
        )
    ),
    gradtx.scale_by_schedule(gradtx.piecewise_constant_schedule(1.0, {3: 0.5, 7: 0.1})),
    gradtx.scale_by_schedule(gradtx.exponential_decay(1.0, 10, 0.5)),
    gradtx.prodigy(betas=(0.8, 0.95), weight_decay=0.1),
    gradtx.adafactor(None, min_dim_size_to_factor=2, momentum=0.9),
    gradtx.noisy_sgd(0.1, key=3),
    gradtx.noisy_sgd(0.1, key=jax.random.key(7)),
    gradtx.adagrad(jnp.float32(0.1)),
    gradtx.adadelta(np.float64(1.0)),
    gradtx.linear_schedule(0.0, 1.0, 5),
]


def scope():
    return {**{name: getattr(gradtx, name) for name in gradtx.__all__}, __name__: sys.modules[__name__]}


@pytest.mark.brief
@pytest.mark.parametrize("tx", REBUILT, ids=repr)
def test_the_repr_rebuilds_an_equal_object(tx):
    rebuilt = eval(repr(tx), scope())
    assert rebuilt == tx
    assert hash(rebuilt) == hash(tx)
    assert repr(rebuilt) == repr(tx)


@pytest.mark.parametrize("tx", REBUILT, ids=repr)
def test_a_pickle_is_equal(tx):
    copy = pickle.loads(pickle.dumps(tx))
    assert copy == tx and hash(copy) == hash(tx)


def test_a_pickle_of_what_has_run_is_equal_and_runs():
    tx = gradtx.adam(0.1)
    state = tx.init(jnp.ones(2))
    hash(tx)
    copy = pickle.loads(pickle.dumps(tx))
    assert copy.update(jnp.ones(2), state)[0].tolist() == tx.update(jnp.ones(2), state)[0].tolist()


def test_nan_is_a_number_that_equals_itself_where_it_may_stand():
    schedules = [gradtx.piecewise_constant_schedule(1.0, {2: x}) for x in (1e38, 0.5)]
    assert schedules[0] == gradtx.piecewise_constant_schedule(1.0, {2: 1e38}) != schedules[1]
    raw = gradtx.GradientTransformation(module_level_schedule, module_level_mask)
    one = gradtx.masked(raw, {"w": NAN})
    rebuilt = eval(repr(one), scope())
    assert "float('nan')" in repr(one)
    assert rebuilt == one and math.isnan(rebuilt.mask["w"])


def test_defaults_are_left_out():
    assert repr(gradtx.adam(1e-3, b1=0.9, eps=1e-8)) == "adam(0.001)"
    assert repr(gradtx.chain(gradtx.chain(gradtx.sgd(0.1)), gradtx.scale(2))) == "chain(sgd(0.1), scale(2))"


def test_numbers_compare_by_value_and_the_hash_is_of_the_structure():
    a, b = gradtx.adam(1e-3), gradtx.adam(3e-4, b1=0.5)
    assert a == gradtx.adam(1e-3) and a != b
    assert hash(a) == hash(b)
    assert hash(a) != hash(gradtx.adam(1e-3, nesterov=True))
    assert hash(a) != hash(gradtx.sgd(1e-3))


def test_an_argument_of_another_kind_differs():
    assert gradtx.sgd(0.1) != gradtx.sgd(gradtx.constant_schedule(0.1))
    assert gradtx.sgd(0.1) != gradtx.sgd(0.1, momentum=0.0)
    assert gradtx.sgd(0.1) != "sgd(0.1)"


def test_a_lambda_prints_as_what_cannot_be_rebuilt_and_compares_by_identity():
    f, g = (lambda step: 0.1), (lambda step: 0.1)
    assert "<lambda>" in repr(gradtx.sgd(f)) and repr(gradtx.sgd(f)).startswith("sgd(<")
    assert gradtx.sgd(f) == gradtx.sgd(f)
    assert gradtx.sgd(f) != gradtx.sgd(g)


def test_a_function_inside_a_function_cannot_be_rebuilt():
    def inner(step):
        return 0.1

    assert repr(gradtx.sgd(inner)).startswith("sgd(<test_a_function_inside_a_function")


@pytest.mark.parametrize("tx", [REBUILT[0], REBUILT[2], REBUILT[5], REBUILT[8], REBUILT[-1]], ids=repr)
def test_it_cannot_be_changed_and_says_what_can(tx):
    with pytest.raises(
        AttributeError, match=r"is immutable: 'b1' cannot be assigned\. .*gradtx\.set_hyperparams"
    ):
        tx.b1 = 0.5


def test_traced_numbers_compare_by_identity():
    seen = []

    @jax.jit
    def f(rate):
        a, b = gradtx.sgd(rate), gradtx.sgd(rate)
        c = gradtx.sgd(rate + 1)
        seen.append((a == b, a == c, hash(a) == hash(c), repr(a)))
        return rate

    f(0.1)
    assert seen == [(True, False, True, "sgd(<array float32[]>)")]


def test_building_comparing_hashing_and_printing_read_no_device():
    rate = jnp.float32(0.1)
    tx = gradtx.adam(rate)
    with jax.transfer_guard("disallow"):
        other = gradtx.adam(0.1)
        assert tx == other
        assert hash(tx) == hash(other)
        assert repr(tx) == "adam(0.1)"
        assert pickle.loads(pickle.dumps(tx)) == tx


@pytest.mark.parametrize("value", [jnp.float32(3e-4), np.float32(3e-4), np.array(3e-4, np.float32)], ids=type)
def test_an_array_is_kept_as_the_number_that_it_prints_as(value):
    tx = gradtx.sgd(value)
    assert repr(tx) == "sgd(0.0003)"
    assert tx == gradtx.sgd(3e-4)


@pytest.mark.parametrize(
    "value", [jnp.bfloat16(0.1), jnp.float16(0.1), jnp.int32(1)], ids=lambda v: v.dtype.name
)
def test_an_array_of_another_dtype_is_a_number_too(value):
    assert gradtx.sgd(value) == gradtx.sgd(float(str(np.asarray(value))))


def test_unpacking_gives_the_two_functions():
    init, update = gradtx.sgd(0.5)
    assert update(jnp.ones(2), init(jnp.ones(2)))[0].tolist() == [-0.5, -0.5]


@pytest.mark.parametrize(
    "dtype", [jnp.bfloat16, np.dtype(jnp.bfloat16), "bfloat16"], ids=lambda d: type(d).__name__
)
def test_a_dtype_is_kept_by_name(dtype):
    assert repr(gradtx.adam(0.1, mu_dtype=dtype)) == "adam(0.1, mu_dtype='bfloat16')"
    assert repr(gradtx.trace(0.9, accumulator_dtype=dtype)) == "trace(0.9, accumulator_dtype='bfloat16')"


def test_a_key_is_kept_by_its_data():
    assert repr(gradtx.noisy_sgd(0.1, key=jax.random.key(7))) == "noisy_sgd(0.1, key=(0, 7))"


class Halved(gradtx.Rule, name="halved"):
    """u = g / 2 ** times."""

    times: gradtx.Number


def test_a_constructor_and_its_class_have_the_same_arguments():
    def halved(time: float, times_: float = 1.0): ...

    differ = "their arguments differ: only halved has time, times_; only Halved has times"
    with pytest.raises(TypeError, match=f"^halved builds Halved, and {differ}.$"):
        builds(Halved)(halved)


def test_a_default_stands_in_the_constructor_alone():
    class Thirded(Halved, name="thirded"):
        times: gradtx.Number = 2.0

    def thirded(times: float = 1.0): ...

    with pytest.raises(TypeError, match=r"^Thirded: the default of 'times' is for thirded to give; take it"):
        builds(Thirded)(thirded)
    own = [cls for cls in DECLARED if cls.__module__.startswith("gradtx.")]
    given = {f"{c.__name__}.{f.name}" for c in own for f in c._fields.values() if f.default is not EMPTY}
    assert len(own) > 50 and not given


@pytest.mark.wide
def test_a_constructor_without_a_body_has_none():
    """A line in it would never run."""
    found = 0
    for path in Path(gradtx.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            decorators = getattr(node, "decorator_list", [])
            if any(ast.unparse(d).startswith("builds(") for d in decorators):
                found += 1
                _, *body = map(ast.unparse, node.body)
                assert body == ["..."], f"{path}: {node.name}"
    assert found > 40
