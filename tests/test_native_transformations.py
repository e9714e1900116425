"""Steps with loops of C under what JAX does with functions, beside the same steps by XLA."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import gradtx
from native import COMPILED_LOOP, compiles

TX = gradtx.adamw(1e-2)
PARAMS = {"a": jnp.linspace(-1.0, 1.0, 24).reshape(8, 3), "b": jnp.linspace(0.5, 2.0, 16), "c": jnp.ones(())}
GRADS = jax.tree.map(lambda p: jnp.cos(9 * p), PARAMS)
STATE = TX.init(PARAMS)
MOVES = ("all-gather", "all-reduce", "collective-permute", "all-to-all")


def step(params, state, grads):
    return gradtx.apply_gradients(TX, grads, state, params)


def of_rate(rate, state=STATE):
    return gradtx.set_hyperparams(state, learning_rate=rate)


def loss(grads, rate=1e-2):
    return sum(jnp.sum(x**2) for x in jax.tree.leaves(step(PARAMS, of_rate(rate), grads)[0]))


def stacked(n, tree, axis=0):
    """Several of a tree, which differ in their floats."""

    def one(x):
        more = [x * (1 + 0.25 * k) if jnp.issubdtype(x.dtype, jnp.floating) else x for k in range(n)]
        return jnp.stack(more, min(axis, x.ndim))

    return jax.tree.map(one, tree)


def scanned(params, state, grads):
    return jax.lax.scan(lambda carry, _: (step(*carry, grads), None), (params, state), length=5)[0]


def vmapped(tree, n, *ns):
    return stacked(n, vmapped(tree, *ns) if ns else tree)


def by_column(params, state, grads):
    state = TX.init({"a": params["a"][:, 0]})
    one = lambda w, g: step({"a": w}, state, {"a": g})[0]["a"]  # noqa: E731
    return jax.vmap(one, in_axes=(1, 1), out_axes=1)(params["a"], grads["a"])


PLAIN = PARAMS, STATE, GRADS
# A function, what it is called with, and whether a loop does it.
WAYS = {
    "jit": (step, PLAIN, True),
    "vmap": (jax.vmap(step), vmapped(PLAIN, 3), True),
    "vmap, one gradient": (jax.vmap(step, in_axes=(0, 0, None)), (*vmapped(PLAIN[:2], 3), GRADS), True),
    "vmap, one parameter": (jax.vmap(step, in_axes=(None, 0, 0)), (PARAMS, *vmapped(PLAIN[1:], 3)), True),
    "vmap, one state": (
        jax.vmap(step, in_axes=(0, None, 0)), (stacked(3, PARAMS), STATE, stacked(3, GRADS)), True,
    ),
    "vmap of rates": (
        jax.vmap(lambda r, p: step(p, of_rate(r), GRADS), in_axes=(0, None)), (jnp.arange(4.0), PARAMS), True,
    ),
    "vmap along another axis": (by_column, PLAIN, True),
    "vmap of vmap": (jax.vmap(jax.vmap(step)), vmapped(PLAIN, 2, 3), True),
    "vmap of vmap, mixed": (
        jax.vmap(jax.vmap(step, in_axes=(0, None, 0)), in_axes=(None, 0, None)),
        (stacked(3, PARAMS), stacked(2, STATE), stacked(3, GRADS)), True,
    ),
    "scan": (scanned, PLAIN, True),
    "vmap of scan": (jax.vmap(scanned), vmapped(PLAIN, 2), True),
    "loop": (lambda p, s, g: jax.lax.fori_loop(0, 3, lambda _, c: step(*c, g), (p, s)), PLAIN, True),
    "cond": (
        lambda q, p, s, g: jax.lax.cond(q, lambda p, s: step(p, s, g), lambda p, s: (p, s), p, s),
        (True, *PLAIN), True,
    ),
    "vmap of cond": (
        jax.vmap(lambda q: jax.lax.cond(q, lambda: step(*PLAIN)[0], lambda: PARAMS)),
        (jnp.array([True, False]),), None,
    ),
    "derivative": (jax.grad(loss), (GRADS,), False),
    "derivative by the rate": (jax.grad(loss, argnums=1), (GRADS, 0.1), False),
    "derivative through a scan": (
        jax.grad(lambda g: jnp.sum(scanned(PARAMS, STATE, g)[0]["a"] ** 2)), (GRADS,), False,
    ),
    "derivative with less memory": (jax.grad(jax.checkpoint(loss)), (GRADS,), False),
    "second derivative": (lambda g, t: jax.jvp(jax.grad(loss), (g,), (t,)), (GRADS, PARAMS), False),
    "jacobian": (jax.jacrev(lambda g: step(PARAMS, STATE, g)[0]["b"]), (GRADS,), False),
    "linearize": (lambda g: jax.linearize(loss, g)[1](g), (GRADS,), False),
    "vmap of derivatives": (jax.vmap(jax.grad(loss)), (stacked(3, GRADS),), False),
}  # fmt: skip


def assert_close(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert (a.dtype, a.shape, a.weak_type) == (b.dtype, b.shape, b.weak_type)
        np.testing.assert_allclose(a, b, rtol=5e-7, atol=2e-7)


@pytest.mark.by_turns(3)
@pytest.mark.parametrize("name", WAYS)
@compiles
def test_what_jax_does_with_steps(name):
    function, given, has_loops = WAYS[name]
    made = {}
    for kernels in ("native", "xla"):
        with gradtx.kernels(kernels):
            compiled = jax.jit(function).lower(*given).compile()
        if has_loops is not None:
            assert (COMPILED_LOOP in compiled.as_text()) == (has_loops and kernels == "native")
        made[kernels] = compiled(*given)
    assert_close(made["native"], made["xla"])


@pytest.mark.wide
@compiles
def test_eager_steps():
    """Without jit, without any compilation of whole steps, in 64 bits and as an eager derivative."""
    made = {}
    for kernels in ("native", "xla"):
        with gradtx.kernels(kernels):
            made[kernels] = [step(*PLAIN), jax.vmap(step)(*vmapped(PLAIN, 2)), jax.grad(loss)(GRADS)]
            with jax.disable_jit():
                made[kernels].append(step(*PLAIN))
            with jax.enable_x64(True):
                wide = jax.tree.map(lambda x: x.astype("float64"), PARAMS)
                made[kernels].append(jax.jit(step)(wide, TX.init(wide), wide))
    assert_close(made["native"], made["xla"])
    assert made["native"][-1][0]["a"].dtype == "float64"


@pytest.mark.parametrize(
    "tx",
    [TX, gradtx.lion(1e-2, mu_dtype=jnp.bfloat16), gradtx.precision(TX, "8bit", min_size=0)],
    ids=["adamw", "lion", "8 bits"],
)
@pytest.mark.by_turns(1)
@compiles
def test_a_donated_step_works_in_place(tx):
    """Every array of the parameters and of the state is written over, and no leaf is copied."""
    params = {"a": jnp.ones((256, 130)), "b": jnp.ones(4096)}
    grads = jax.tree.map(jnp.sin, params)
    with gradtx.kernels("native"):
        own = jax.jit(lambda p, s, g: gradtx.apply_gradients(tx, g, s, p), donate_argnums=(0, 1))
        given = jax.tree.map(lambda x: jnp.array(x, copy=True), (params, tx.init(params)))
        compiled = own.lower(*given, grads).compile()
        places = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(given)]
        made = compiled(*given, grads)
    assert COMPILED_LOOP in compiled.as_text()
    copied = re.findall(r"= (\w+\[[\d,]+\]).* copy\(", compiled.as_text())
    assert not [kind for kind in copied if re.search(r"\[\d", kind)], copied
    assert [x.unsafe_buffer_pointer() for x in jax.tree.leaves(made)] == places


@compiles
def test_arguments_that_are_not_donated_are_kept():
    before = jax.tree.map(lambda x: np.array(x, copy=True), PLAIN)
    with gradtx.kernels("native"):
        jax.jit(step)(*PLAIN), step(*PLAIN)
    jax.tree.map(np.testing.assert_array_equal, PLAIN, before)


@compiles
def test_one_array_as_parameter_and_gradient():
    """What is written over is also read as something else."""
    made = {}
    for kernels in ("native", "xla"):
        with gradtx.kernels(kernels):
            made[kernels] = jax.jit(lambda p, s: step(p, s, p))(PARAMS, STATE)
    assert_close(made["native"], made["xla"])


@compiles
def test_what_is_exported_has_no_loop():
    """An error, or what runs elsewhere: never a program that needs a library of this machine."""
    with gradtx.kernels("native"):
        with pytest.raises(ValueError, match="custom calls whose targets have no compatibility guarantees"):
            jax.export.export(jax.jit(step))(*PLAIN)
        other = jax.export.export(jax.jit(step), platforms=["tpu"])(*PLAIN)
        assert "custom_call @gradtx" not in other.mlir_module()
    with gradtx.kernels("xla"):
        assert_close(jax.export.export(jax.jit(step))(*PLAIN).call(*PLAIN), step(*PLAIN))


@compiles
def test_a_choice_is_a_part_of_what_jit_knows():
    """It traces again where another one is made, and finds what it has made where that is made again."""
    traced = []

    @jax.jit
    def counted(params, state, grads):
        traced.append(gradtx.core.loops.choice.chosen())
        return step(params, state, grads)

    for _ in range(2):
        for kernels in ("native", "xla"):
            with gradtx.kernels(kernels):
                counted(*PLAIN)
                with gradtx.kernels("xla"):
                    counted(*PLAIN)
                assert (COMPILED_LOOP in counted.lower(*PLAIN).compile().as_text()) == (kernels == "native")
        counted(*PLAIN)
    assert traced == ["native", "xla"]


@compiles
def test_a_hundred_settings_are_one_compilation():
    traced = []

    @jax.jit
    def counted(params, state, grads):
        traced.append(1)
        return step(params, state, grads)

    with gradtx.kernels("native"):
        rates = [counted(PARAMS, of_rate(0.01 * k), GRADS)[0]["c"] for k in range(100)]
    assert len(traced) == 1 and len({float(x) for x in rates}) == 100


def placed(tree, mesh, *spec):
    return jax.tree.map(
        lambda x: jax.device_put(
            jnp.array(x, copy=True), NamedSharding(mesh, PartitionSpec(*spec[: x.ndim]))
        ),
        tree,
    )


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
@pytest.mark.parametrize("of", ["sharded", "replicated", "shard_map", "settings"])
@pytest.mark.by_turns(1)
@compiles
def test_on_eight_devices(of, kind):
    """Each works on its own part, where it has one, and nothing is moved."""
    mesh = Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("x", "y"), axis_types=(kind,) * 2)
    params = {"a": jnp.linspace(-1.0, 1.0, 96).reshape(8, 12), "b": jnp.linspace(0.5, 2.0, 16)}
    spec = {"sharded": ("x", "y"), "shard_map": ("x",)}.get(of, ())
    params, state = placed(params, mesh, *spec), placed(TX.init(params), mesh, *spec)
    grads = jax.tree.map(jnp.cos, params)
    function = step
    if of == "settings":
        params, state, grads = (placed(stacked(4, tree), mesh, "x") for tree in (params, state, grads))
        function = jax.vmap(step)
    if of == "shard_map":
        specs = [
            jax.tree.map(lambda x: PartitionSpec(*spec[: x.ndim]), tree) for tree in (params, state, grads)
        ]
        function = jax.shard_map(step, mesh=mesh, in_specs=(*specs,), out_specs=(*specs[:2],))
    made = {}
    for kernels in ("native", "xla"):
        with gradtx.kernels(kernels):
            compiled = jax.jit(function).lower(params, state, grads).compile()
        text = compiled.as_text()
        assert not [name for name in MOVES if name in text]
        assert (COMPILED_LOOP in text) == (kernels == "native" and of != "settings")
        made[kernels] = compiled(params, state, grads)
        for a, b in zip(jax.tree.leaves(made[kernels]), jax.tree.leaves((params, state)), strict=True):
            assert a.sharding.is_equivalent_to(b.sharding, a.ndim)
    assert_close(made["native"], made["xla"])


class Doubled(gradtx.Rule):
    """u = 2 g"""

    def apply(self, u, slots, leaf):
        return 2 * u, {}


@compiles
@pytest.mark.clears_caches
@pytest.mark.wide
def test_clearing_the_caches_of_jax_forgets_loops(monkeypatch):
    """Whoever changes a rule by hand does that; a loop of the old rule would go on in silence."""
    tx, x = Doubled(), jnp.ones(3)
    with gradtx.kernels("native"):
        assert tx.update(x, tx.init(x))[0][0] == 2
        monkeypatch.setattr(Doubled, "apply", lambda self, u, slots, leaf: (3 * u, {}))
        jax.clear_caches()
        assert tx.update(x, tx.init(x))[0][0] == 3


@compiles
@pytest.mark.wide
def test_a_state_with_other_blocks_takes_xlas_way():
    """One scale for a whole leaf: the room for a block in C would be too small for it."""
    tx = gradtx.store(gradtx.trace(0.9), trace="int8", min_size=1)
    x = jnp.linspace(-1.0, 1.0, 8 * 64).reshape(8, 64)
    state = tx.init(x)
    state["slots"]["trace"]["trace_scales"] = jnp.ones((1, 1))
    expected = tx.update(x, state)[0]
    with gradtx.kernels("native"):
        np.testing.assert_array_equal(tx.update(x, state)[0], expected)
        assert "leaf_loop" not in str(jax.make_jaxpr(tx.update)(x, state))
        assert "leaf_loop" in str(jax.make_jaxpr(tx.update)(x, tx.init(x)))
