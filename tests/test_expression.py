"""Expressions: what simplifies, how they are written, and what is read from a traced function."""

import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.formulas.expression import intern, number, rewrite, symbol, within
from gradtx.formulas.interpret import interpret
from gradtx.formulas.notation import lines, source, text
from gradtx.formulas.numeric import Evaluator, is_opaque
from gradtx.formulas.runs import runs
from gradtx.formulas.simplify import make

X, Y, Z, N = (symbol(name) for name in "xyzn")
TWO = number(2)


def evaluate(expression, values):
    return Evaluator([expression])(values)[0]


def of(code):
    """An expression from Python code, simplified as it is made."""

    class Number:
        def __init__(self, e):
            self.e = e

        def binary(op, swapped=False):
            def method(self, other):
                other = other.e if isinstance(other, Number) else number(other)
                return Number(make(op, *((other, self.e) if swapped else (self.e, other))))

            return method

        __add__, __radd__ = binary("add"), binary("add", True)
        __sub__, __rsub__ = binary("sub"), binary("sub", True)
        __mul__, __rmul__ = binary("mul"), binary("mul", True)
        __truediv__, __rtruediv__ = binary("div"), binary("div", True)
        __pow__ = binary("pow")
        __lt__, __ge__ = binary("lt"), binary("ge")

        def __neg__(self):
            return Number(make("neg", self.e))

    def function(op):
        return lambda *args: Number(make(op, *(a.e if isinstance(a, Number) else number(a) for a in args)))

    names = {name: Number(symbol(name)) for name in ("b1", "g", "mu", "n", "x", "y", "z")}
    names["t"] = Number(symbol("t", counts=True))
    ops = ("abs", "expm1", "log1p", "max", "min", "sqrt", "where", "logical_not", "logical_and", "logical_or")
    functions = {op: function(op.removeprefix("logical_")) for op in ops}
    result = eval(code, {**names, **functions})
    return result.e if isinstance(result, Number) else number(result)


def test_equal_expressions_are_one_object():
    assert of("b1 * mu + (1 - b1) * g") is of("b1 * mu + (1 - b1) * g")
    assert of("x + y") is not of("y + x"), "nothing is put in another order"
    assert pickle.loads(pickle.dumps(of("sqrt(x) / 2"))) is of("sqrt(x) / 2")
    assert number(1) is number(1.0) and number(True) is not number(1)


@pytest.mark.parametrize(
    ("code", "simpler"),
    {
        "0 + x": "x",
        "x - x": "0",
        "0 - x": "-x",
        "x * 1": "x",
        "x * 0": "0",
        "-1 * x": "-x",
        "x * x": "x^2",
        "-(-x)": "x",
        "1 - (1 - x)": "x",
        "(x - 1) + 1": "x",
        "(x + 1) - 1": "x",
        "x + (-y)": "x - y",
        "x - (-y)": "x + y",
        "2 * 3 + 1": "7",
        "-expm1(t * log1p(-(1 - b1)))": "-(b1^t - 1)",
        "x / max(y, 2.0**-126)": "x / y",
        "max(y, 1e-30)": "max(y, 1e-30)",
        "where(x < 1, y, y)": "y",
        "where(logical_not(x < 1), y, z)": "where(x < 1, z, y)",
        "logical_and(x < 1, x < 1)": "x < 1",
        "t - 1 < 2": "t < 3",
        "where(x < 1, 0, where(y < 1, 1, 2)) < 1": "x < 1",
        "x * (y + z)": "x (y + z)",
    }.items(),
)
def test_what_simplifies(code, simpler):
    assert text(of(code)) == simpler


@pytest.mark.parametrize(
    ("code", "written"),
    {
        "b1 * mu + (1 - b1) * g": "b1 mu + (1 - b1) g",
        "x - (y + z)": "x - (y + z)",
        "x - y - z": "x - y - z",
        "x / y / z": "x / y / z",
        "x / (y * z)": "x / (y z)",
        "x / y * z": "x / y * z",
        "x * (y / z)": "x y / z",
        "x * 2": "x * 2",
        "2 * x": "2 x",
        "(x * y) ** 2": "(x y)^2",
        "b1 ** (t + 1)": "b1^(t + 1)",
        "-(x * y)": "-x y",
        "-(x + y)": "-(x + y)",
        "(-x) ** 2": "(-x)^2",
        "abs(x) / sqrt(y)": "|x| / sqrt(y)",
        "where(x < y + 1, x, 0.1)": "where(x < y + 1, x, 0.1)",
        "logical_and(logical_or(x < 1, y < 1), z < 1)": "(x < 1 or y < 1) and z < 1",
    }.items(),
)
def test_how_it_is_written(code, written):
    assert text(of(code)) == written


def random_expression(rng, make, depth):
    """An expression over x, y and z, the same for the same generator whatever makes it."""
    if depth == 0:
        leaf = rng.integers(5)
        return (X, Y, Z, number(1), number(0))[leaf]
    op = rng.choice(["add", "sub", "mul", "div", "neg", "max", "where", "pow", "expm1", "sqrt"])
    a, b, c, d = (random_expression(rng, make, depth - 1) for _ in range(4))
    if op == "where":
        return make("where", make(rng.choice(["lt", "ge"]), a, b), c, d)
    if op == "div":  # by what is not near 0
        return make("div", a, make("add", number(1), make("pow", b, TWO)))
    if op == "pow":
        return make("pow", a, TWO)
    if op == "sqrt":
        return make("sqrt", make("abs", a))
    if op == "expm1":
        inner = make("mul", b, make("log1p", make("neg", make("div", a, make("add", TWO, make("abs", a))))))
        return make("expm1", make("min", inner, number(3)))
    return make(op, *((a,) if op == "neg" else (a, b)))


def test_simplification_changes_no_value_and_source_says_the_same():
    """Also of what a person would never write."""
    values = {"x": 0.7, "y": -1.3, "z": 2.1}
    python = {
        **values,
        **{"Abs": abs, "Max": max, "Min": min, "exp": math.exp, "log": math.log, "sqrt": math.sqrt},
        "Lt": lambda a, b: a < b,
        "Ge": lambda a, b: a >= b,
        "Not": lambda a: not a,
        "And": lambda a, b: a and b,
        "Or": lambda a, b: a or b,
        "Piecewise": lambda *cases: next(value for value, condition in cases if condition),
        "True": True,
        "False": False,
    }
    for seed in range(60):
        plain = random_expression(np.random.default_rng(seed), intern, 3)
        simple = random_expression(np.random.default_rng(seed), make, 3)
        expected = evaluate(plain, values)
        np.testing.assert_allclose(
            evaluate(simple, values), expected, rtol=1e-9, atol=1e-12, err_msg=text(plain)
        )
        np.testing.assert_allclose(float(eval(source(simple), python)), expected, rtol=1e-9, atol=1e-12)
        assert rewrite([simple], {})[0] is simple


def test_long_parts_that_occur_often_have_a_line():
    long = of("sqrt(x * y + 1) / (sqrt(x) + sqrt(y) + 2)")
    shown = lines([("u", make("mul", long, make("sub", X, long))), ("v", make("neg", long))])
    assert shown == [("x1", text(long)), ("u", "x1 (x - x1)"), ("v", "-x1")]


def test_writing_is_linear_in_the_graph():
    """The text of a graph in which each part occurs twice would have 2^200 characters."""
    node = X
    for i in range(200):
        node = make("mul", make("add", node, number(i + 2)), make("sub", node, Y))
    assert sum(len(body) for _, body in lines([("u", node)])) < 20_000
    assert len(within([node])) < 1_000


def test_a_value_that_is_missing_is_named():
    with pytest.raises(KeyError, match="no value for 'y', only for x"):
        evaluate(of("x + y"), {"x": 1.0})


@jax.custom_vjp
def tripled(x):
    return 3 * x


tripled.defvjp(lambda x: (3 * x, None), lambda _, g: (3 * g,))


@jax.jit
def many(x, y, v):
    """Most ways in which numbers are packed, chosen and called."""
    a, b, c = jnp.split(jnp.stack([x, y, x * y]), 3)
    chosen = jnp.select([x > 3.0, y > 0.0], [x, y], v[1])
    switched = jax.lax.switch(jnp.int32(x > 0.0) + jnp.int32(y > 0.0), [jnp.sin, jnp.cos, jnp.exp], x)
    nested = jax.lax.cond(x > y, lambda u: jax.checkpoint(jnp.tanh)(u), lambda u: tripled(u), v[0])
    packed = jax.lax.slice(jnp.concatenate([a, b, jnp.zeros(2), c]), (0,), (5,), (2,))
    sums = packed.sum() + jnp.prod(jnp.array([2.0])) + v[1:].max() - v.min()
    rows = jnp.full((4, 3), x).sum(1, keepdims=True) * jnp.full((4, 3), y)
    return chosen + switched * nested + sums + rows.mean() + jax.lax.rsqrt(x**2 + x**3) + jnp.floor(7 * x)


def test_reading_is_running():
    v = np.array([0.3, -0.8, 1.9], np.float32)
    traced = jax.make_jaxpr(many)(0.0, 0.0, v)
    (read,) = interpret(traced, [X, Y, runs([(symbol(f"v{i}"), 1) for i in range(3)])])
    compute = Evaluator([read])
    for x, y in [(0.6, 0.2), (0.6, -0.2), (0.1, 0.5), (4.5, 5.0)]:
        given = {"x": np.float32(x), "y": np.float32(y)} | {f"v{i}": float(e) for i, e in enumerate(v)}
        np.testing.assert_allclose(compute(given)[0], many(x, y, v), rtol=2e-6)


def test_what_has_no_reading_is_a_function():
    """A loop has its name and what goes into it; its value is not known."""
    loop = jax.make_jaxpr(lambda x: 2 * jax.lax.while_loop(lambda c: c < 9, lambda c: c * c, x))(2.0)
    (read,) = interpret(loop, [X])
    assert text(read) == "2 while(x)"
    assert is_opaque(read) and np.isnan(evaluate(read, {"x": 2.0}))


def test_a_change_of_position_is_no_zero():
    """What one element is at another place is another thing; a scalar is the same everywhere."""

    def moved(v, x):
        filled = jnp.full(4, x)
        ends = jnp.concatenate([v, filled])[2:6]
        other = [v - v[::-1], v[1:] - v[:-1], jnp.outer(v, v)[0] - v * v, ends - ends[::-1]]
        return [*other, filled - filled[::-1], v.sum() - v.sum()[None]]

    read = interpret(jax.make_jaxpr(moved)(np.ones(4, np.float32), 0.0), [Y, X])
    assert [text(e) for e in read[:2]] == ["y - rev(y)", "slice[1:4](y) - slice[0:3](y)"]
    assert not {"0", "y^2 - y^2"} & {text(e) for e in read[2:4]}
    assert [text(e) for e in read[4:]] == ["0", "0"]
