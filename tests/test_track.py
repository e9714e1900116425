"""Tracking: the metrics are those of a numpy model, and measuring changes nothing."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
import gradtx.flax

PARAMS = {"body": {"kernel": jnp.full((3, 2), 0.5)}, "head": jnp.array([3.0, -4.0])}
RATE = gradtx.linear_schedule(0.5, 0.1, 10)


def gradients(steps, scale=1.0):
    rng = np.random.default_rng(0)
    return [
        jax.tree.map(lambda p: jnp.asarray(scale * rng.normal(size=p.shape), p.dtype), PARAMS)
        for _ in range(steps)
    ]


def run(tx, grads, params=PARAMS):
    """Parameters and metrics after each step."""
    step = jax.jit(lambda p, s, g: gradtx.apply_gradients(tx, g, s, p), donate_argnums=(0, 1))
    params, state, found = jax.tree.map(jnp.copy, params), tx.init(params), []
    for g in grads:
        params, state = step(params, state, g)
        found.append((jax.device_get(params), gradtx.metrics(state)))
    return found


def norm(*leaves):
    return np.sqrt(sum(float(np.sum(np.asarray(x, np.float64) ** 2)) for x in leaves))


@pytest.mark.wide
def test_the_metrics_are_those_of_a_model():
    grads = gradients(8, scale=0.5)
    tx = gradtx.track(
        gradtx.chain(gradtx.clip_by_global_norm(1.2), gradtx.sgd(RATE)),
        every=1,
        groups={"head": "head", "body": lambda path, leaf: path.startswith("body")},
    )
    params, clipped = jax.device_get(PARAMS), 0
    for t, (g, (after, found)) in enumerate(zip(grads, run(tx, grads), strict=True)):
        whole = norm(g["body"]["kernel"], g["head"])
        rate, factor = 0.5 + (0.1 - 0.5) * t / 10, min(1.0, 1.2 / whole)
        clipped += factor < 1
        expected = {
            "learning_rate": rate,
            "gradient_norm": whole,
            "gradient_norm/head": norm(g["head"]),
            "update_norm": rate * factor * whole,
            "update_norm/body": rate * factor * norm(g["body"]["kernel"]),
            "parameter_norm": norm(params["body"]["kernel"], params["head"]),
            "parameter_norm/head": norm(params["head"]),
            "update_ratio/head": rate * factor * norm(g["head"]) / norm(params["head"]),
            "clip_fraction": clipped / (t + 1),
            "measured_at": t,
        }
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=2e-6, err_msg=f"{name} at {t}")
        params = after
    assert 0 < clipped < 8


@pytest.mark.wide
def test_it_measures_every_so_often_from_the_first_update_on():
    grads = gradients(8)
    found = [m for _, m in run(gradtx.track(gradtx.sgd(0.1), every=3), grads)]
    assert [m["measured_at"] for m in found] == [0, 0, 0, 3, 3, 3, 6, 6]
    for t, m in enumerate(found):
        whole = norm(*jax.tree.leaves(grads[t - t % 3]))
        np.testing.assert_allclose(m["gradient_norm"], whole, rtol=1e-6)


def test_how_often_is_set_in_the_state():
    tx = gradtx.track(gradtx.sgd(0.1))
    step = jax.jit(tx.update)
    state = tx.init(PARAMS)
    _, state = step(PARAMS, state, PARAMS)
    state = gradtx.set_hyperparams(state, every=1)
    for _ in range(4):
        _, state = step(PARAMS, state, PARAMS)
    assert gradtx.metrics(state)["measured_at"] == 4
    assert step._cache_size() == 1


@pytest.mark.wide
@pytest.mark.parametrize(
    "inner",
    [
        gradtx.chain(gradtx.clip_by_global_norm(0.1), gradtx.adamw(0.1)),
        gradtx.prodigy(1.0),
        gradtx.noisy_sgd(0.1),
        gradtx.accumulate(gradtx.adam(0.1), 2),
    ],
    ids=str,
)
@pytest.mark.parametrize("every", [2, pytest.param(1, marks=pytest.mark.full)])
def test_measuring_changes_no_bit(inner, every):
    grads = gradients(6)
    for (tracked, _), (plain, _) in zip(
        run(gradtx.track(inner, every=every), grads), run(inner, grads), strict=True
    ):
        # Noise depends on the place of its key in no way: the inner state is the same.
        jax.tree.map(np.testing.assert_array_equal, tracked, plain)


@pytest.mark.wide
def test_what_is_donated_is_not_copied():
    params = {f"w{i}": jnp.ones((64, 8)) for i in range(4)}
    tx = gradtx.track(gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(0.1)))
    step = jax.jit(lambda p, s, g: gradtx.apply_gradients(tx, g, s, p), donate_argnums=(0, 1))
    compiled = step.lower(params, tx.init(params), params).compile().as_text()
    entry = compiled[compiled.index("ENTRY") :]
    assert not re.findall(r"f32\[64,8\]\S* copy\(", entry)


@pytest.mark.wide
def test_names_are_told_apart_by_their_place():
    tx = gradtx.named_chain(
        ("slow", gradtx.track(gradtx.sgd(0.1))), ("fast", gradtx.track(gradtx.scale(3.0)))
    )
    found = gradtx.metrics(tx.init(PARAMS))
    assert {"slow.track/gradient_norm", "fast.track/gradient_norm", "learning_rate"} <= set(found)
    several = gradtx.track(gradtx.chain(gradtx.sgd(0.1), gradtx.sgd(0.2)))
    _, state = several.update(PARAMS, several.init(PARAMS), PARAMS)
    assert gradtx.metrics(state)["learning_rate/sgd"] == 0.1
    assert gradtx.metrics(state)["learning_rate/sgd_1"] == 0.2


@pytest.mark.wide
def test_inside_accumulation_it_counts_updates():
    tx = gradtx.accumulate(gradtx.track(gradtx.sgd(RATE), every=1), 2)
    grads = gradients(6)
    (*_, (_, found)) = run(tx, grads)
    assert found["measured_at"] == 2 and found["skipped"] == 0
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *grads[4:])
    np.testing.assert_allclose(found["gradient_norm"], norm(*jax.tree.leaves(mean)), rtol=1e-6)
    np.testing.assert_allclose(found["learning_rate"], 0.5 - 0.4 * 2 / 10, rtol=1e-6)


@pytest.mark.wide
def test_around_accumulation_the_rate_is_that_of_the_next_update():
    tx = gradtx.track(gradtx.accumulate(gradtx.sgd(RATE), 2), every=1)
    found = [m for _, m in run(tx, gradients(4))]
    np.testing.assert_allclose([m["learning_rate"] for m in found], [0.5, 0.5, 0.46, 0.46], rtol=1e-6)
    assert [m["update_norm"] > 0 for m in found] == [False, True, False, True]


def test_metrics_are_read_from_what_holds_a_state():
    tx = gradtx.track(gradtx.sgd(0.5), every=1)
    state = gradtx.flax.TrainState.create(apply_fn=None, params=PARAMS, tx=tx)
    state = state.apply_gradients(grads=PARAMS)
    assert gradtx.metrics(state)["learning_rate"] == 0.5
    chained = optax.chain(optax.clip(1.0), optax.GradientTransformationExtraArgs(*tx))
    assert "update_ratio" in gradtx.metrics(chained.init(PARAMS))
    assert gradtx.metrics(gradtx.sgd(0.1).init(PARAMS)) == {}


@pytest.mark.wide
def test_metrics_are_arrays_when_traced_and_for_a_batch():
    tx = gradtx.track(gradtx.sgd(0.5), every=1)

    @jax.jit
    def measured(state):
        _, state = tx.update(PARAMS, state, PARAMS)
        return gradtx.metrics(state)["update_norm"]

    np.testing.assert_allclose(measured(tx.init(PARAMS)), 0.5 * norm(*jax.tree.leaves(PARAMS)), rtol=1e-6)
    states = jax.vmap(lambda rate: gradtx.track(gradtx.sgd(rate), every=1).init(PARAMS))(jnp.arange(3.0))
    _, states = jax.vmap(lambda s: tx.update(PARAMS, s, PARAMS))(states)
    np.testing.assert_allclose(gradtx.metrics(states)["learning_rate"], [0.0, 1.0, 2.0])
    assert gradtx.metrics(states)["measured_at"].tolist() == [0, 0, 0]


def test_a_group_that_matches_nothing_is_an_error():
    tx = gradtx.track(gradtx.sgd(0.1), groups={"tail": "tail*"})
    with pytest.raises(ValueError, match="track: tail: the mask's pattern 'tail\\*' matches no leaf"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)


@pytest.mark.wide
def test_reverse_mode_passes_through_unmeasured():
    tx = gradtx.track(gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(0.1)), every=1)
    plain = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(0.1))

    def final(tx, params):
        state = tx.init(PARAMS)
        for g in gradients(1):
            updates, state = tx.update(jax.tree.map(jnp.multiply, g, params), state, params)
            params = gradtx.apply_updates(params, updates)
        return sum(jnp.sum(x**2) for x in jax.tree.leaves(params))

    one, other = (jax.grad(lambda p, tx=tx: final(tx, p))(PARAMS) for tx in (tx, plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), one, other)


@pytest.mark.wide
def test_what_rounding_loses_of_updates_and_of_slots():
    """Those of a numpy model: which elements stay as they are, and what a format makes of the exact slot."""
    params = {"body": jnp.linspace(0.5, 2.0, 256, dtype=jnp.bfloat16).reshape(2, 128), "head": jnp.ones(4)}
    inner = gradtx.store(gradtx.sgd(0.01, momentum=0.9), trace="int8", min_size=128)
    tx = gradtx.track(inner, every=1, groups={"head": "head"}, rounding=True)
    state = tx.init(params)
    assert gradtx.metrics(state)["slot_error/trace.trace"] == 0
    step = jax.jit(lambda p, s, g: gradtx.apply_gradients(tx, g, s, p))
    rng, before = np.random.default_rng(0), np.zeros((2, 128))
    for _ in range(3):
        grads = jax.tree.map(
            lambda p: jnp.asarray(rng.normal(size=p.shape) * (rng.random(p.shape) > 0.2), p.dtype), params
        )
        new, state = step(params, state, grads)
        found = gradtx.metrics(state)
        exact = 0.9 * before + np.asarray(grads["body"], np.float64)
        kept = gradtx.slots_by_leaf(tx, params, state)["track"]["inner"]["trace"]["trace"]
        before = np.asarray(kept["body"], np.float64)
        assert found["slot_error/trace.trace"] == pytest.approx(norm(before - exact) / norm(exact), rel=1e-4)
        moved = {"body": exact != 0, "head": np.asarray(kept["head"]) != 0}
        stays = {k: moved[k] & np.asarray(new[k] == params[k]) for k in params}
        share = sum(x.sum() for x in stays.values()) / sum(x.sum() for x in moved.values())
        assert found["stalled_fraction"] == pytest.approx(share, rel=1e-6) and 0 < share < 1
        assert found["stalled_fraction/head"] == 0
        params = new


@pytest.mark.wide
def test_nothing_stalls_around_precise_params_and_slots_are_measured_where_they_are_wrapped():
    params = {"w": jnp.ones((32, 128), jnp.bfloat16)}
    grads = [{"w": jax.random.normal(jax.random.key(i), (32, 128), jnp.bfloat16)} for i in range(2)]
    inner = gradtx.precision(gradtx.adam(1e-4))
    tx = gradtx.track(gradtx.accumulate(inner, 1), every=1, rounding=True)
    found = run(tx, grads, params)[-1][1]
    place = "slot_error/accumulate.inner.precise_params.inner.scale_by_adam"
    assert found["stalled_fraction"] == 0
    assert 0.001 < found[f"{place}.mu"] < 0.02 and 0.001 < found[f"{place}.nu"] < 0.02
    plain = gradtx.track(gradtx.adam(1e-4), every=1, rounding=True)
    assert run(plain, grads, params)[-1][1]["stalled_fraction"] > 0.99


def test_rounding_costs_nothing_where_it_is_not_asked_for():
    params = {"w": jax.ShapeDtypeStruct((64, 128), jnp.bfloat16)}
    inner = gradtx.store(gradtx.adam(1e-3), mu="int8", nu="uint8_stochastic")

    def step(**options):
        tx = gradtx.track(inner, **options)
        state = tx.init(params)
        assert {"stalled_fraction" in gradtx.metrics(state)} == {bool(options.get("rounding"))}
        return str(jax.make_jaxpr(tx.update)(params, state, params))

    assert step(rounding=False) == step()
    assert len(step(rounding=True)) > len(step())
