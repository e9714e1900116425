"""Loops of C do what XLA does: in steps of the catalogue, at special numbers, and of random functions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import gradtx
from catalogue import ENTRIES
from gradtx import testing
from gradtx.core.engine import leaf_loops
from native import COMPILED_LOOP, EXACT, LOOP, assert_same, by_xla, compiles, flushed, loop_of
from rotation import one_of

FLOATS = ["float32", "bfloat16", "float16", "float64"]
WHOLES = [f"{sign}int{width}" for sign in ("", "u") for width in (8, 16, 32, 64)]

SUM = "reduce_sum is not done element by element"
LARGEST = "reduce_max is not done element by element"
ALONG_AXES = "reduce_sum makes something of another shape"
OTHER_SHAPE = "what is remembered of a leaf has another shape than the leaf"
ONE_NUMBER = "it makes one number of a leaf"
NOTHING = "it computes nothing"
# Why XLA updates leaves of some entries; of the others loops alone do.
LEFT = {
    (SUM,): (
        "clip_by_block_rms scale_by_novograd scale_by_trust_ratio scale_by_param_block_norm scale_by_fromage "
        "normalize_by_block_rms scale_by_param_block_rms cautious scale_by_hyperball reduce_variance "
        "scale_by_stable_adam radial_brake scale_by_distance_over_gradients lars lamb fromage novograd mars "
        "stable_adamw scion"
    ),
    (SUM, OTHER_SHAPE): "scale_by_came scale_by_adam_mini adafactor came adam_mini by_matrix",
    (LARGEST, OTHER_SHAPE): "sm3 scale_by_sm3",
    (SUM, ALONG_AXES): "row_floor adaptive_grad_clip",
    (NOTHING,): (
        "scale_by_sophia sophia orthogonalize scale_by_soap soap scale_by_matrix_size scale_by_dion2 dion2 "
        "scale_by_shampoo shampoo scale_by_soap_muon soap_muon scale_by_muown muown scale_by_kl_soap kl_soap "
        "scale_by_splus splus"
    ),
    (ALONG_AXES,): "centralize",
    (OTHER_SHAPE,): "scale_by_factored_rms",
    (ONE_NUMBER,): "scale_by_leaf",
}
LEFT = {name: {*why} for why, names in LEFT.items() for name in names.split()}
# A step of these has no loop at all: the first ones draw random numbers.
WITHOUT = {
    *("add_noise", "noisy_sgd", "clip_by_block_rms", "scale_by_novograd", "scale_by_trust_ratio"),
    *("scale_by_param_block_norm", "scale_by_fromage", "normalize_by_block_rms"),
    *("scale_by_param_block_rms", "cautious", "reduce_variance", "scale_by_stable_adam"),
    *("radial_brake", "lars", "lamb", "fromage", "scale_by_distance_over_gradients", "novograd"),
    *("mars", "stable_adamw", "scale_by_came", "came", "scale_by_adam_mini", "adam_mini", "adafactor"),
    *("sm3", "scale_by_sm3", "row_floor", "adaptive_grad_clip"),
}


def step_of(entry):
    tx = entry.transform()
    return tx, lambda p, s, g: gradtx.apply_gradients(tx, g, s, p, **entry.extra)


def example(entry, steps):
    params = testing.example_params()
    return params, testing.example_grads(params, steps, positive=entry.positive)


def ulps(got, want, start=0.0):
    """By how many steps of its dtype an array is off, at most; those of a sum are as large as its terms'."""
    if not jnp.issubdtype(got.dtype, jnp.floating):
        return 0 if (np.asarray(got) == np.asarray(want)).all() else np.inf
    a, b, start = (np.asarray(x).astype(float) for x in (got, want, start))
    np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
    least, eps = float(jnp.finfo(got.dtype).tiny), float(jnp.finfo(got.dtype).eps)
    size = np.maximum(np.maximum(np.abs(b), np.abs(start)), least)
    return np.where(np.isnan(b) | (a == b), 0.0, np.abs(a - b) / (eps * size)).max(initial=0.0)


def reasons(monkeypatch, entry):
    """How many loops a step of an entry has, and why the leaves that are left are."""
    found = set()
    loop_of_leaf = leaf_loops._loop_of

    def noted(*args):
        arrays, made = loop_of_leaf(*args)
        if isinstance(made, str):
            found.add(made)
        return arrays, made

    monkeypatch.setattr(leaf_loops, "_loop_of", noted)
    tx, step = step_of(entry)
    params, (grads,) = example(entry, 1)
    with gradtx.kernels("native"):
        return str(jax.make_jaxpr(step)(params, tx.init(params), grads)).count("leaf_loop["), found


@pytest.mark.by_turns(6)
@pytest.mark.parametrize("name", one_of(2, ENTRIES))
@compiles
def test_what_is_done_by_loops_and_why_the_rest_is_not(name, monkeypatch):
    """Of the catalogue no entry stops to be updated by loops unseen."""
    loops, found = reasons(monkeypatch, ENTRIES[name])
    assert found == LEFT.get(name, set())
    assert bool(loops) == (name not in WITHOUT)


@pytest.mark.by_turns(3)
@pytest.mark.parametrize("name", one_of(12, [n for n in ENTRIES if n not in WITHOUT]))
@compiles
def test_steps_are_those_of_xla(name):
    """Over a dozen steps, and the compiled program has the loops that the trace has."""
    tx, step = step_of(ENTRIES[name])
    params, grads = example(ENTRIES[name], 12)
    made = {}
    for choice in ("native", "xla"):
        with gradtx.kernels(choice):
            compiled = jax.jit(step).lower(params, tx.init(params), grads[0]).compile()
        assert (COMPILED_LOOP in compiled.as_text()) == (choice == "native")
        made[choice] = params, tx.init(params)
        for g in grads:
            made[choice] = compiled(*made[choice], g)
    assert jax.tree.structure(made["native"]) == jax.tree.structure(made["xla"])
    ends = (jax.tree.leaves(made[choice][0]) for choice in ("native", "xla"))
    for got, want, start in zip(*ends, jax.tree.leaves(params), strict=True):
        assert got.dtype == want.dtype
        # Products of matrices, which XLA makes in both, enlarge what came in.
        assert ulps(got, want, start) <= (16 if "muon" in name or "lbfgs" in name else 4)


def special(dtype):
    """Numbers at which operations of a dtype are special."""
    if dtype == "bool":
        return np.array([False, True])
    if dtype in WHOLES:
        least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
        wanted = {0, 1, 2, 3, 7, 8, 15, 31, 32, 63, 64, 100, most, most - 1, least, least + 1, -1, -2, -7}
        return np.array(sorted(x for x in wanted if least <= x <= most), dtype)
    info = jnp.finfo(dtype)
    edges = [float(x) for x in (info.max, info.max / 2, info.tiny, info.tiny / 2, info.smallest_subnormal)]
    powers = [2.0**k for k in (7, 8, 15, 16, 31, 32, 63, 64, -3)]
    plain = [0.0, 1.0, 0.3, 0.5, 1.5, 2.5, 3.5, 127.5, 255.4, 300.0, 65535.7, 2.0**31 - 128, np.inf]
    with np.errstate(over="ignore"):
        both = np.array([sign * x for x in (*plain, *edges, *powers) for sign in (1, -1)] + [np.nan])
        return both.astype(jnp.dtype(dtype))


def pairs(a, b):
    return [x.ravel() for x in np.meshgrid(a, b, indexing="ij")]


def exact_operations(dtype):
    """Operations on two numbers of a dtype whose result is the nearest number there is."""
    found = {
        "max": lax.max, "min": lax.min, "select": lambda x, y: lax.select(x == x, x, y),
        **{name: getattr(lax, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    }  # fmt: skip
    if dtype not in FLOATS:
        for name in ("bitwise_and", "bitwise_or", "bitwise_xor"):
            found[name] = getattr(lax, name)
        found["not"] = lambda x, y: lax.bitwise_not(x)
    if dtype in WHOLES:
        for name in ("shift_left", "shift_right_logical", "shift_right_arithmetic"):
            found[name] = getattr(lax, name)
    if dtype in FLOATS:
        found |= {
            "div": lax.div, "is_finite": lambda x, y: lax.is_finite(x), "floor": lambda x, y: lax.floor(x),
            "ceil": lambda x, y: lax.ceil(x), "sqrt": lambda x, y: lax.sqrt(x),
            "max with -0": lambda x, y: jnp.maximum(x, jnp.asarray(-0.0, dtype)),
            "max with NaN": lambda x, y: jnp.maximum(jnp.asarray(np.nan, dtype), x),
            "min with infinity": lambda x, y: jnp.minimum(x, jnp.asarray(np.inf, dtype)),
            **{f"round {way.name}": lambda x, y, way=way: lax.round(x, way) for way in lax.RoundingMethod},
            **{f"power {k}": lambda x, y, k=k: lax.integer_pow(x, k) for k in (0, 1, 2, 3, 5, -1, -2)},
        }  # fmt: skip
    if dtype != "bool":  # XLA has no clamp of them
        zero, one = (np.asarray(k, jnp.dtype(dtype)) for k in (0, 1))
        found["max with 0"] = lambda x, y: jnp.maximum(x, zero)
        found["min with 1"] = lambda x, y: jnp.minimum(one, x)
        found["clamp"] = lambda x, y: lax.clamp(lax.min(x, y), y, x)
        for name in ("add", "sub", "mul"):
            found[name] = getattr(lax, name)
        for name in ("neg", "sign", "square", *([] if dtype.startswith("uint") else ["abs"])):
            found[name] = lambda x, y, name=name: getattr(lax, name)(x)
    return found


def in_64_bits(test):
    """A test of a dtype, with JAX's 64 bits where it is of those."""

    @functools.wraps(test)
    def run(dtype, *args, **kwargs):
        with jax.enable_x64("64" in dtype):
            test(dtype, *args, **kwargs)

    return run


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("dtype", [*FLOATS, *WHOLES, "bool"])
@compiles
@in_64_bits
def test_special_numbers_of_exact_operations(dtype):
    """NaN, infinities, signed zeros, subnormals, the largest numbers, and shifts by more than all bits."""
    operations = exact_operations(dtype)
    given = [jnp.asarray(x) for x in pairs(special(dtype), special(dtype))]

    def function(x, y):
        return [operation(x, y) for operation in operations.values()]

    assert_same(loop_of(function, *given)(*given), by_xla(function)(*given), [*operations], given)


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("dtype", [*FLOATS, *WHOLES, "bool"])
@compiles
def test_conversions_to_all_dtypes(dtype):
    with jax.enable_x64(True):
        x = jnp.asarray(special(dtype))
        others = [other for other in (*FLOATS, *WHOLES, "bool") if other != dtype]
        alike = [d for d in others if jnp.dtype(d).itemsize == x.dtype.itemsize and "bool" not in (d, dtype)]

        def function(x):
            whole = [lax.convert_element_type(x, other) for other in others]
            return [*whole, *(lax.bitcast_convert_type(x, other) for other in alike)]

        names = [*others, *(f"bits as {other}" for other in alike)]
        assert_same(loop_of(function, x)(x), by_xla(function)(x), names, [x])


OF_C = [
    *(
        "acos",
        "acosh",
        "asin",
        "asinh",
        "atan",
        "atanh",
        "cbrt",
        "cos",
        "cosh",
        "exp",
        "exp2",
        "expm1",
        "log",
    ),
    *("log1p", "sin", "sinh", "tan", "tanh"),
]


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("dtype", FLOATS)
@compiles
@in_64_bits
def test_functions_that_are_not_exact(dtype):
    """At zeros, infinities and NaN they are XLA's; elsewhere as near to what is true as the dtype allows."""
    functions = {name: getattr(lax, name) for name in OF_C}
    x = special(dtype)
    x = x[(flushed(x) != 0) | (x == 0)]
    given = jnp.asarray(x)

    def function(x):
        return [*(one(x) for one in functions.values()), lax.rsqrt(x), lax.logistic(x), lax.erf(x)]

    got, xla = loop_of(function, given)(given), by_xla(function)(given)
    edge = np.isnan(x) | np.isinf(x) | (x == 0)
    assert_same(
        [y[edge] for y in got], [y[edge] for y in xla], [*OF_C, "rsqrt", "logistic", "erf"], [x[edge]]
    )
    with np.errstate(all="ignore"):
        wide = x.astype(np.longdouble)
        numpys = {"acos": "arccos", "acosh": "arccosh", "asin": "arcsin", "asinh": "arcsinh"}
        numpys |= {"atan": "arctan", "atanh": "arctanh"}
        true = [getattr(np, numpys.get(name, name))(wide) for name in OF_C]
        true += [1 / np.sqrt(wide), 1 / (1 + np.exp(-wide))]
        for name, y, t in zip([*OF_C, "rsqrt", "logistic"], got, true, strict=False):
            t = flushed(t.astype(jnp.dtype(dtype)))
            assert ulps(flushed(y), t) <= 2, (name, x[np.asarray(y) != t], t)


class Random:
    """A random function of arrays, element by element, whose every operation is exact.

    With `any_function` it has operations too in which C and XLA differ by a few steps of the dtype.
    """

    def __init__(self, rng, dtypes, *, any_function=False):
        self.rng, self.given, self.dtypes, self.steps = rng, len(dtypes), [*dtypes], []
        for _ in range(rng.integers(4, 18)):
            self.steps.append(self._step(any_function))
            self.dtypes.append(self.steps[-1][2])
        self.results = sorted({len(self.dtypes) - 1, *rng.integers(self.given, len(self.dtypes), 3).tolist()})

    def _step(self, any_function):
        """An operation, what it takes, and the dtype of what it gives."""
        rng = self.rng
        i = int(rng.integers(len(self.dtypes)))
        dtype = self.dtypes[i]
        alike = [k for k, other in enumerate(self.dtypes) if other == dtype]
        j, bools = int(rng.choice(alike)), [k for k, other in enumerate(self.dtypes) if other == "bool"]
        known = [d for d in (*FLOATS, *WHOLES, "bool") if jax.config.jax_enable_x64 or "64" not in d]
        kinds = ["convert", "compare", "constant", "exact", "exact", "exact", *(["select"] if bools else [])]
        kind = rng.choice([*kinds, "function"] if any_function and dtype in FLOATS else kinds)
        if kind == "convert":
            other = str(rng.choice(known))
            return lambda x: lax.convert_element_type(x, other), (i,), other
        if kind == "compare":
            return getattr(lax, str(rng.choice(["eq", "ne", "lt", "le", "gt", "ge"]))), (i, j), "bool"
        if kind == "select":
            return lax.select, (int(rng.choice(bools)), i, j), dtype
        if kind == "constant":  # not added: XLA adds two of them first
            number = rng.choice(special(dtype))
            return lambda x: lax.max(x, jnp.full_like(x, number)), (i,), dtype
        if kind == "function":
            return (
                getattr(lax, str(rng.choice(["exp", "tanh", "log1p", "sin", "cbrt", "rsqrt"]))),
                (i,),
                dtype,
            )
        found = exact_operations(dtype)
        name = str(rng.choice([*found]))
        return (
            found[name],
            (i, j),
            "bool" if name in ("eq", "ne", "lt", "le", "gt", "ge", "is_finite") else dtype,
        )

    def __call__(self, *arrays):
        known = [*arrays]
        for operation, takes, _ in self.steps:
            known.append(operation(*(known[k] for k in takes)))
        return [known[k] for k in self.results]


SHAPES = [(), (1,), (7,), (3, 5), (2, 1, 3), (13, 11), (0,), (2, 0, 3), (50_001,), (3, 17_000)]


def random_arrays(rng, dtypes, shape):
    """Half of their elements are special numbers."""
    found = []
    for dtype in dtypes:
        plain = rng.normal(size=shape) * 10.0 ** rng.integers(-3, 4, shape)
        x = plain > 0 if dtype == "bool" else np.clip(plain, 0 if dtype.startswith("u") else -99, 99)
        x = np.where(rng.random(shape) < 0.5, rng.choice(special(dtype), shape), x.astype(jnp.dtype(dtype)))
        found.append(jnp.asarray(x.astype(jnp.dtype(dtype))))
    return found


@pytest.mark.by_turns(3)
@pytest.mark.parametrize("seed", one_of(15, range(300)))
@compiles
def test_random_functions(seed):
    """They are XLA's bit for bit, and no element knows where it stands."""
    rng = np.random.default_rng(seed)
    with jax.enable_x64(bool(seed % 3 == 2)):
        known = [d for d in (*FLOATS, *WHOLES, "bool") if seed % 3 == 2 or "64" not in d]
        dtypes = [*map(str, rng.choice(known, rng.integers(1, 5)))]
        function, shape = Random(rng, dtypes), SHAPES[(seed + seed // 15) % len(SHAPES)]
        given = random_arrays(rng, dtypes, shape)
        loop = loop_of(function, *given)
        got = loop(*given)
        assert_same(got, by_xla(function)(*given), given=given)
        order = rng.permutation(given[0].size)
        moved = loop(*(jnp.reshape(x.ravel()[order], shape) for x in given))
        for a, b in zip(moved, got, strict=True):
            assert np.asarray(a).tobytes() == np.asarray(b).ravel()[order].tobytes()


def own_rule(function):
    """A user's own rule of a number, the gradient, the parameter and two slots."""

    class Own(gradtx.Rule, name="own"):
        a: gradtx.Number
        m, n = gradtx.Slot(init=lambda rule, p: p), gradtx.Slot(dtype=lambda rule, dtype: "bfloat16")
        needs = ("params",)

        def apply(self, g, slots, leaf):
            given = g, jnp.full_like(g, self.a), leaf.param, slots.m, slots.n
            made = [x.astype(g.dtype) for x in function(*(x.astype(g.dtype) for x in given))]
            return made[-1], {"m": made[0], "n": made[len(made) // 2]}

    return Own(a=0.3)


def assert_steps_same(tx, params, grads, *, one_by_one=False):
    """With `one_by_one` XLA does each operation by itself: of several it makes others with other zeros."""
    made = {}
    for kernels in ("native", "xla"):
        with gradtx.kernels(kernels):
            step = jax.jit(lambda p, s, g: gradtx.apply_gradients(tx, g, s, p), compiler_options=EXACT)
            made[kernels] = params, tx.init(params)
            assert (LOOP in step.lower(*made[kernels], grads[0]).as_text()) == (kernels == "native")
            with jax.disable_jit(one_by_one and kernels == "xla"):
                for g in grads:
                    made[kernels] = step(*made[kernels], g)
    assert_same(made["native"], made["xla"])


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("seed", one_of(20, range(120)))
@compiles
def test_random_rules(seed):
    rng = np.random.default_rng(seed)
    tx = gradtx.chain(own_rule(Random(rng, ["float32"] * 5)), gradtx.scale(-0.1))
    shapes = [SHAPES[k] for k in rng.integers(len(SHAPES) - 2, size=3)]
    dtypes = rng.choice(["float32", "bfloat16", "float16"], 3)
    leaves = [
        random_arrays(rng, [str(dtype)] * 2, shape) for dtype, shape in zip(dtypes, shapes, strict=True)
    ]
    params, grads = [x for x, _ in leaves] + [jnp.ones(3)], [x for _, x in leaves] + [jnp.ones(3)]
    assert_steps_same(tx, params, [grads] * 2, one_by_one=True)


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(
    "tx",
    [
        gradtx.adamw(1e-2),
        gradtx.lion(1e-2, mu_dtype=jnp.bfloat16),
        gradtx.sgd(0.1, momentum=0.9, nesterov=True),
        gradtx.precision(gradtx.adamw(1e-2), "8bit", min_size=0),
        gradtx.store(gradtx.adamw(1e-2), min_size=0, mu="bfloat16", nu="uint8"),
        gradtx.chain(gradtx.zero_nans(), gradtx.clip(1.0), gradtx.rmsprop(0.1)),
    ],
    ids=["adamw", "lion", "sgd", "8 bits", "two formats", "guarded"],
)
@compiles
def test_special_numbers_in_steps(tx, dtype):
    """They come as parameters and gradients, and what they make of slots comes back in later steps."""
    a, b = map(jnp.asarray, pairs(special(dtype), special(dtype)))
    assert_steps_same(tx, {"w": a, "v": b}, [{"w": b, "v": a}, {"w": b, "v": b}, {"w": a, "v": a}])
