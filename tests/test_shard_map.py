"""Inside of `jax.shard_map` a rule gives the answer of the whole tree, or an error that says what to do."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec

import gradtx
from catalogue import ALIASES, ENTRIES
from gradtx import testing
from gradtx.core.engine.transform import accepted
from gradtx.core.spec.spec import FACTORIES
from rotation import one_of

MESH = Mesh(np.array(jax.devices()[:2]), "x")
SHARD, WHOLE = PartitionSpec("x"), PartitionSpec()
# Of a model some leaves are shards, and small ones are whole everywhere.
PARAMS = testing.example_params()
SPECS = {"bias": WHOLE, "kernel": SHARD}
REFUSED = "inside shard_map"


def on_shards(fn, x, specs=SHARD, out_specs=None, mesh=MESH, **kwargs):
    """What a function gives that sees one shard of each leaf."""
    out_specs = specs if out_specs is None else out_specs
    return jax.jit(jax.shard_map(fn, mesh=mesh, in_specs=(specs,), out_specs=out_specs, **kwargs))(x)


def named(x, axis_name="x"):
    """A transform, and whatever is inside of it, that sums over an axis wherever it can."""
    if isinstance(x, tuple | list):
        return type(x)(named(part, axis_name) for part in x)
    if isinstance(x, dict):
        return {key: named(part, axis_name) for key, part in x.items()}
    if not isinstance(x, gradtx.Transform) or x._call()[0] not in FACTORIES:
        return x
    name, args, kwargs = x._call()
    given = {"axis_name": axis_name} if takes_axis_name(FACTORIES[name]) else {}
    return FACTORIES[name](*named(args, axis_name), **{**named(kwargs, axis_name), **given})


def takes_axis_name(make):
    return "axis_name" in inspect.signature(make).parameters


def trained(tx, extra, params, grads, state=None):
    """The parameters after some steps of both kinds."""
    state = tx.init(params) if state is None else state
    extra = accepted(tx.update, extra)

    def step(carry, g):
        updates, state = tx.update(g, carry[1], carry[0], **extra)
        params = gradtx.apply_updates(carry[0], updates)
        return gradtx.apply_gradients(tx, g, state, params, **extra), None

    return jax.lax.scan(step, (params, state), jax.tree.map(lambda *each: jnp.stack(each), *grads))[0][0]


def of_entry(name, steps):
    entry = ENTRIES[name]
    return entry.transform(), entry.extra, testing.example_grads(PARAMS, steps, positive=entry.positive)


OWN = [name for name, entry in ENTRIES.items() if entry.kind != "schedule" and name not in ALIASES]
TAKING = [name for name in OWN if takes_axis_name(getattr(gradtx, name, len))]
DRAWING = {"add_noise", "noisy_sgd"}
"""What draws another noise on a shard than for the whole."""


def test_every_place_that_takes_an_axis_is_known():
    """So that none is lost: what is measured of a leaf, and what is measured of the tree."""
    leaf = {
        "clip_by_block_rms",
        "normalize_by_block_rms",
        "scale_by_trust_ratio",
        "lamb",
        "novograd",
        "cautious",
    }
    tree = {"clip_by_global_norm", "normalize", "prodigy", "dog", "momo", "guard", "accumulate", "track"}
    assert leaf | tree <= {*TAKING}


@pytest.mark.by_turns(8)
@pytest.mark.parametrize("name", one_of(9, OWN))
def test_every_entry_runs_on_shards_or_is_refused(name):
    """JAX checks types: what is remembered varies as it did, and a leaf that is whole stays whole."""
    tx, extra, grads = of_entry(name, 2)

    def run(tx):
        specs = (SPECS, [SPECS] * 2)
        steps = jax.shard_map(
            functools.partial(trained, tx, extra), mesh=MESH, in_specs=specs, out_specs=SPECS
        )
        jax.eval_shape(steps, PARAMS, grads)

    if name in TAKING:
        with pytest.raises(ValueError, match=REFUSED):
            run(tx)
        run(named(tx))
        return
    for form in (tx, named(tx)):
        try:
            run(form)
        except ValueError as error:
            assert REFUSED in str(error), error


def compared(name, steps, **close):
    """Steps on shards beside the same on one device."""
    tx, extra, grads = of_entry(name, steps)
    expected = jax.jit(functools.partial(trained, tx, extra))(PARAMS, grads)
    steps = functools.partial(trained, named(tx), extra)
    sharded = jax.shard_map(steps, mesh=MESH, in_specs=(SPECS, [SPECS] * len(grads)), out_specs=SPECS)
    result = jax.jit(sharded)(PARAMS, grads)
    for path in SPECS:
        np.testing.assert_allclose(result[path], expected[path], **close, err_msg=path)


@pytest.mark.by_turns(4)
@pytest.mark.parametrize("name", one_of(2, TAKING))
def test_what_sums_over_shards_equals_the_unsharded(name):
    compared(name, 10, rtol=3e-5, atol=1e-6)


@pytest.mark.full
@pytest.mark.parametrize("name", [name for name in OWN if name not in DRAWING])
def test_every_entry_equals_the_unsharded_or_is_refused(name):
    try:
        compared(name, 3, rtol=1e-4, atol=1e-6)
    except ValueError as error:
        assert REFUSED in str(error), error


# What the engine finds out of rules, wrappers and functions of a user's own.


def rule(apply, **fields):
    """A rule of one's own."""
    annotations = {name: "str | None" for name in fields}
    body = {"apply": lambda self, g, slots, leaf: (apply(g, leaf), slots), "__annotations__": annotations}
    return type(
        "Own", (gradtx.Rule,), {**body, "rng_key": gradtx.Key(lambda rule: jax.random.key(7))}, name="own"
    )(**fields)


def step(tx, x, mesh=MESH, specs=SHARD, **kwargs):
    """One update of shards, whose state is made there too."""
    return on_shards(lambda x: tx.update(x, tx.init(x), x)[0], x, mesh=mesh, specs=specs, **kwargs)


@jax.custom_vjp
def halved(x):
    return x / 2


halved.defvjp(lambda x: (x / 2, None), lambda _, g: (g / 2,))
X = jnp.array([[3.0, -4.0], [1.0, 2.0], [-5.0, 0.5], [0.25, 6.0]])
BY_ELEMENT = {
    "arithmetic": lambda g, leaf: jnp.where(g > 0, jnp.sqrt(abs(g)), jnp.tanh(g) ** 3) + leaf.param,
    "many": lambda g, leaf: jnp.clip(g, -1, 1) * jnp.sign(g) + jnp.mod(g, 2.0) + jnp.exp2(g) + jax.nn.gelu(g),
    "dtypes": lambda g, leaf: g.astype(jnp.bfloat16).astype(g.dtype) + jnp.floor(g).astype(int),
    "axes of one": lambda g, leaf: jnp.reshape(g[None], (*g.shape, 1)).squeeze(-1),
    "a loop": lambda g, leaf: jax.lax.fori_loop(0, 3, lambda i, x: x / 2 + i, g),
    "a scan": lambda g, leaf: jax.lax.scan(lambda x, i: (x + i, None), g, jnp.arange(3.0))[0],
    "a branch": lambda g, leaf: jax.lax.cond(jnp.array(1.0) > 0, jnp.sin, lambda x: x * 0, g),
    "own derivatives": lambda g, leaf: halved(g) + jax.checkpoint(jnp.sin)(g),
    "a table": lambda g, leaf: g * jnp.sum(jnp.array([1.0, 2.0])),
}
OF_ALL = {
    "a sum": lambda g, leaf: g / jnp.sum(abs(g)),
    "a product": lambda g, leaf: g @ (g.T @ g),
    "a cumulated sum": lambda g, leaf: jnp.cumsum(g, 0),
    "a sort": lambda g, leaf: g - jnp.sort(g, 0),
    "a shift": lambda g, leaf: g - jnp.roll(g, 1, 0),
    "another form": lambda g, leaf: g + g.reshape(-1)[::-1].reshape(g.shape),
    "positions": lambda g, leaf: g * jnp.arange(g.shape[0], dtype=g.dtype)[:, None],
    "a loop": lambda g, leaf: jax.lax.while_loop(lambda x: x.max() > 1, lambda x: x / 2, g),
    "a scan": lambda g, leaf: jax.lax.scan(lambda s, x: (s + x, s), jnp.zeros_like(g[0]), g)[1],
    "a branch": lambda g, leaf: jax.lax.cond(jnp.any(g > 9), jnp.sin, jnp.cos, g),
    "a sum inside": lambda g, leaf: g * jax.checkpoint(lambda x: jnp.linalg.norm(x))(g),
    "half of a sum": lambda g, leaf: g / (jax.lax.psum(jnp.sum(g), "x") + jnp.max(g)),
    "the same noise": lambda g, leaf: g + jax.random.normal(jax.random.key(0), g.shape),
}


@pytest.mark.by_turns(4)
@pytest.mark.parametrize("name", BY_ELEMENT)
def test_what_works_on_each_element_is_let_pass(name):
    tx = rule(BY_ELEMENT[name])
    np.testing.assert_allclose(step(tx, X), tx.update(X, tx.init(X), X)[0], rtol=1e-6)


@pytest.mark.by_turns(5)
@pytest.mark.parametrize("name", OF_ALL)
def test_what_puts_elements_of_one_shard_together_is_refused(name):
    with pytest.raises(ValueError, match="own: inside shard_map the leaves vary over the axis x"):
        step(rule(OF_ALL[name]), X)


def test_what_is_summed_over_shards_is_let_pass():
    total = rule(lambda g, leaf: g / jax.lax.psum(jnp.sum(abs(g)), "x"))
    np.testing.assert_allclose(step(total, X), X / jnp.sum(abs(X)), rtol=1e-6)
    gathered = rule(lambda g, leaf: g / jnp.max(jax.lax.all_gather(g, "x")))
    np.testing.assert_allclose(step(gathered, X), X / 6, rtol=1e-6)


def test_an_error_names_the_leaf_and_the_remedy():
    def refusal(tx, match):
        with pytest.raises(ValueError, match=match) as raised:
            step(tx, {"a": {"kernel": X}})
        assert "This was raised for the leaf 'a/kernel'." in raised.value.__notes__

    outside = "update outside of shard_map, under jit"
    refusal(rule(OF_ALL["a sum"]), f"own: .*{outside}.*average the gradients over that axis first")
    refusal(rule(OF_ALL["a sum"], axis_name=None), "own: .*give axis_name='x'; otherwise average")
    refusal(rule(OF_ALL["a sum"], axis_name="y"), r"give axis_name=\('x', 'y'\)")
    refusal(gradtx.clip_by_block_rms(1.0), "clip_by_block_rms: .*give axis_name='x'")
    refusal(gradtx.clip_by_global_norm(1.0), "clip_by_global_norm: .*give axis_name='x'")
    refusal(gradtx.prodigy(), "scale_by_prodigy: .*give axis_name='x'")
    refusal(gradtx.adafactor(min_dim_size_to_factor=1), f"scale_by_factored_rms: .*{outside}")
    refusal(gradtx.cautious(gradtx.scale_by_adam()), "cautious: .*give axis_name='x'")
    refusal(gradtx.muon(0.1), "so that a leaf may be a shard, of which no matrix is whole")


def test_a_rule_may_say_that_it_knows():
    class Fused(gradtx.Rule, name="fused"):
        """What cannot be seen through, as a kernel of one's own."""

        knows_shards = True

        def apply(self, g, slots, leaf):
            return g + 0 * jnp.sum(g), slots

    np.testing.assert_array_equal(step(gradtx.guard(Fused(), axis_name="x"), X), X)


@pytest.mark.wide
def test_what_is_remembered_of_the_axes_of_a_leaf_is_refused():
    """A state that was made of the whole, and one whose form depends on the size of a shard."""
    tx = gradtx.scale_by_factored_rms(min_dim_size_to_factor=4)
    state, x = tx.init(X), jnp.ones((4, 4))
    with pytest.raises(ValueError, match="scale_by_factored_rms: inside shard_map"):
        step(tx, x)  # half of it is too small to be factored
    specs = jax.tree.map(lambda s: SHARD if s.shape == X.shape else WHOLE, state)

    def update(x, state):
        return tx.update(x, state)[0]

    plain = jax.shard_map(update, mesh=MESH, in_specs=(SHARD, specs), out_specs=SHARD)(X, state)
    np.testing.assert_allclose(plain, tx.update(X, state)[0], rtol=1e-6)
    rows = gradtx.scale_by_factored_rms(min_dim_size_to_factor=1)
    state = rows.init(X)
    specs = jax.tree.map(lambda s: WHOLE, state)
    with pytest.raises(ValueError, match="scale_by_factored_rms: inside shard_map"):
        jax.shard_map(
            lambda x, state: rows.update(x, state)[0], mesh=MESH, in_specs=(SHARD, specs), out_specs=SHARD
        )(X, state)

    class Begins(gradtx.Rule, name="begins"):
        """A slot that is measured where it begins."""

        size = gradtx.Slot(shape=lambda rule, shape: (), init=lambda rule, param: jnp.linalg.norm(param))

        def apply(self, g, slots, leaf):
            return g * slots.size, {"size": slots.size}

    with pytest.raises(ValueError, match="begins: inside shard_map"):
        step(Begins(), X)


@pytest.mark.wide
def test_what_another_library_measures_is_refused():
    with jax.numpy_dtype_promotion("standard"):
        adam = step(gradtx.chain(optax.scale_by_adam(), gradtx.scale(2.0)), X)
    np.testing.assert_allclose(adam, 2 * jnp.sign(X), rtol=1e-3)
    with pytest.raises(ValueError, match=r"\(foreign\): inside shard_map"):
        step(gradtx.chain(optax.clip_by_global_norm(1.0), gradtx.scale(2.0)), X)
    measure = gradtx.measure_with_ema(gradtx.global_norm, 0.5)
    with pytest.raises(ValueError, match="inside shard_map"):
        step(gradtx.monitor({"norm": measure}), X)


SQUARE = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("x", "y"))
OF_NORMS = {
    "tree": gradtx.clip_by_global_norm,
    "leaf": gradtx.clip_by_block_rms,
    "parameter": lambda eps, **given: gradtx.scale_by_trust_ratio(eps=eps, **given),
    "sums": lambda d, **given: gradtx.prodigy(estim_lr0=d, **given),
}


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("name", OF_NORMS)
def test_each_leaf_is_summed_over_the_axes_along_which_it_is_cut(name):
    make = OF_NORMS[name]
    tx, plain = make(0.1, axis_name=("x", "y")), make(0.1)
    params = {"both": X, "one": 2 * X, "none": 3 * X}
    expected = plain.update(params, plain.init(params), params)[0]
    specs = {"both": PartitionSpec("x", "y"), "one": PartitionSpec("y"), "none": WHOLE}
    # Where nobody says which leaves are whole all of them must be shards.
    for case, told in ((specs, True), (dict.fromkeys(specs, PartitionSpec("x", "y")), False)):
        result = step(tx, params, SQUARE, case, check_vma=told)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), result, expected)
    with pytest.raises(ValueError, match=r"vary over the axis y.*give axis_name=\('x', 'y'\)"):
        step(make(0.1, axis_name="x"), params, SQUARE, specs)


@pytest.mark.wide
def test_types_that_say_nothing_are_believed():
    """Under `pmap`, and with `check_vma=False`: what is whole needs no name; what has one is summed."""
    tx, summed = gradtx.clip_by_global_norm(1.0), gradtx.clip_by_global_norm(1.0, axis_name="x")
    expected = X / jnp.linalg.norm(X)
    alone = on_shards(
        lambda g: tx.update(jax.lax.pmean(g, "x"), tx.init(g))[0], X, specs=WHOLE, check_vma=False
    )
    np.testing.assert_allclose(alone, expected, rtol=1e-6)

    def update(tx, g):
        return tx.update(g, tx.init(g))[0]

    halves = X.reshape(2, 2, 2)
    by_pmap = functools.partial(jax.pmap, axis_name="x", devices=jax.devices()[:2])
    both = by_pmap(lambda g: update(tx, jax.lax.pmean(g, "x")))(jnp.stack([X, X]))
    np.testing.assert_allclose(both[1], expected, rtol=1e-6)
    parts = by_pmap(functools.partial(update, summed))(halves)
    np.testing.assert_allclose(parts.reshape(X.shape), expected, rtol=1e-6)


@pytest.mark.wide
def test_noise_differs_from_shard_to_shard():
    """And is the same on all devices for a leaf that is whole."""
    tx = gradtx.add_noise(1.0, 0.0, seed=3)
    params = {"bias": jnp.zeros(2), "kernel": jnp.zeros((4, 2))}
    noise = step(tx, params, specs=SPECS)
    assert not (noise["kernel"][:2] == noise["kernel"][2:]).any()
    np.testing.assert_array_equal(noise["bias"], tx.update(params, tx.init(params))[0]["bias"])
    both = step(tx, X, SQUARE, PartitionSpec("x", "y"))
    assert len({*both.ravel().tolist()}) == X.size

    def signs(x):
        """Estimates of the diagonal of a Hessian whose other elements show the signs."""
        estimate = gradtx.hutchinson_estimator_diag_hessian()
        return estimate.update(x, estimate.init(x), x, obj_fn=lambda x: jax.lax.psum(jnp.sum(x) ** 2, "x"))[0]

    found = on_shards(signs, jnp.ones((16, 8)))
    assert not (found[:8] == found[8:]).all()


@pytest.mark.wide
def test_a_loss_for_shards_is_not_looked_into():
    """Who writes it sums what must be summed: it may have products of shards."""
    tx = gradtx.accumulate(gradtx.sophia(0.1), 1, axis_name="x")
    data = jnp.arange(8.0).reshape(2, 4) / 8

    def loss(x, data):
        return jax.lax.psum(jnp.sum((data @ x) ** 2), "x")

    def update(x, data):
        return tx.update(x, tx.init(x), x, obj_fn=functools.partial(loss, data=data))[0]

    specs = SHARD, PartitionSpec(None, "x")
    assert (
        jax.jit(jax.shard_map(update, mesh=MESH, in_specs=specs, out_specs=SHARD))(X, data).shape == X.shape
    )
    with pytest.raises(ValueError, match="hutchinson_estimator_diag_hessian: the loss: inside shard_map"):
        on_shards(lambda x: tx.update(x, tx.init(x), x, obj_fn=jnp.sum)[0], X)


def test_a_number_that_varies_is_refused():
    for tx in (gradtx.polyak_sgd(axis_name="x"), gradtx.reduce_on_plateau()):
        with pytest.raises(
            ValueError, match=r"'value' varies over the axis x.*value=jax.lax.pmean\(value, 'x'\)"
        ):
            on_shards(lambda g, tx=tx: tx.update(g, tx.init(g), g, value=jnp.sum(g))[0], X)


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("form", ["update", "apply_gradients"])
def test_all_shards_drop_what_is_not_finite_on_one(form):
    tx = gradtx.accumulate(gradtx.adam(0.1), 2, axis_name="x")

    def steps(params, grads):
        state = tx.init(params)
        for g in grads:
            result, state = getattr(tx, form)(g, state, params)
            params = result if form == "apply_gradients" else gradtx.apply_updates(params, result)
        return params, gradtx.metrics(state)["skipped"]

    params = {"bias": jnp.ones(2), "kernel": X}
    bad = {"bias": jnp.ones(2), "kernel": X.at[3, 1].set(jnp.nan)}
    run = jax.shard_map(steps, mesh=MESH, in_specs=(SPECS, [SPECS] * 2), out_specs=(SPECS, WHOLE))
    result, skipped = jax.jit(run)(params, [params, bad])
    assert skipped == 1
    jax.tree.map(np.testing.assert_array_equal, result, params)
    with pytest.raises(ValueError, match="accumulate: inside shard_map"):
        step(gradtx.accumulate(gradtx.adam(0.1), 2), X)
    kept = gradtx.accumulate(gradtx.sgd(0.5), 1, non_finite="keep")
    np.testing.assert_allclose(step(kept, X), -0.5 * X)


@pytest.mark.wide
def test_metrics_are_those_of_the_whole():
    tx = gradtx.track(
        gradtx.chain(gradtx.clip_by_global_norm(1.0, axis_name="x"), gradtx.adam(0.1)), axis_name="x"
    )
    params = {"bias": jnp.ones(2), "kernel": X}

    def measured(params):
        return gradtx.metrics(tx.update(params, tx.init(params), params)[1])

    found = on_shards(measured, params, specs=SPECS, out_specs=WHOLE)
    plain = gradtx.track(gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(0.1)))
    expected = gradtx.metrics(plain.update(params, plain.init(params), params)[1])
    assert found.keys() == expected.keys()
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, err_msg=name)


@pytest.mark.wide
def test_a_vector_of_leaves_that_vary_otherwise_is_refused():
    with pytest.raises(ValueError, match="flatten: inside shard_map some leaves vary over axes"):
        step(gradtx.flatten(gradtx.adam(0.1)), PARAMS, specs=SPECS)
    tx = gradtx.flatten(gradtx.chain(gradtx.clip_by_global_norm(1.0, axis_name="x"), gradtx.sgd(1.0)))
    np.testing.assert_allclose(step(tx, X), -X / jnp.linalg.norm(X), rtol=1e-6)


def test_a_single_number_on_each_shard_is_no_single_number():
    tx = gradtx.scale_by_hyperball(0.1, axis_name="x")
    x = jnp.array([3.0, 4.0])
    plain = gradtx.scale_by_hyperball(0.1)
    np.testing.assert_allclose(step(tx, x), plain.update(x, plain.init(x), x)[0], rtol=1e-5)
    with pytest.raises(ValueError, match="scale_by_hyperball: inside shard_map"):
        step(plain, x)


@pytest.mark.wide
def test_a_matrix_that_is_whole_is_updated_beside_shards():
    params, specs = {"kernel": X, "scale": jnp.arange(1.0, 5.0)}, {"kernel": WHOLE, "scale": SHARD}
    plain = gradtx.guard(gradtx.muon(0.1, muon_weight_dimension_numbers={"kernel": gradtx.matrix_view("rc")}))
    expected = plain.update(params, plain.init(params), params)[0]
    result = step(named(plain), params, specs=specs)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4), result, expected)


@pytest.mark.wide
def test_micro_batches_are_gathered_on_shards():
    """The sums start as zeros that are the same everywhere, and the gradients vary."""

    def loss(w, x):
        return jnp.mean((x @ jax.lax.all_gather(w, "x", tiled=True)) ** 2)

    def both(w, x):
        value, grads = gradtx.accumulate_gradients(jax.value_and_grad(loss), 2)(w, x)
        return jax.lax.pmean(value, "x"), grads / 2  # the sum over shards of the gradients of their means

    w, x = jnp.array([1.0, -2.0, 3.0, 0.5]), jnp.arange(32.0).reshape(8, 4) / 32
    sharded = jax.shard_map(both, mesh=MESH, in_specs=(SHARD, SHARD), out_specs=(WHOLE, SHARD))
    expected = jax.value_and_grad(lambda w: jnp.mean((x @ w) ** 2))(w)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), jax.jit(sharded)(w, x), expected)
