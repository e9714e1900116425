"""What Optax has not: what their trajectories do not show of transforms that are only here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
import modern_references
import references
from trajectories import x64

FLAX = {
    "embed": {"embedding": (7, 4)},
    "attention": {
        "query": {"kernel": (4, 2, 3), "bias": (2, 3)},
        "key": {"kernel": (4, 2, 3)},
        "value": {"kernel": (4, 2, 3)},
        "out": {"kernel": (2, 3, 4)},
    },
    "dense": {"kernel": (4, 5), "bias": (5,)},
    "scale": (),
}
BLOCKS = {
    "embed": {"embedding": (7, 1)},
    "attention": {
        "query": {"kernel": (1, 2, 1), "bias": (1, 3)},
        "key": {"kernel": (1, 2, 1)},
        "value": {"kernel": (1, 2, 3)},
        "out": {"kernel": (1, 1, 4)},
    },
    "dense": {"kernel": (1, 5), "bias": (5,)},
    "scale": (),
}


def is_shape(x):
    return isinstance(x, tuple)


def test_adam_minis_blocks_are_tokens_heads_and_outputs_by_flaxs_names():
    params = jax.tree.map(jnp.zeros, FLAX, is_leaf=is_shape)
    nu = gradtx.adam_mini(1e-3).init(params)["slots"]["scale_by_adam_mini"]["nu"]
    assert jax.tree.map(jnp.shape, nu) == BLOCKS


def test_adam_minis_blocks_can_be_given_by_patterns():
    params = {"a": jnp.zeros((2, 3, 4)), "b": jnp.zeros((5, 6)), "c": jnp.zeros(3)}
    tx = gradtx.scale_by_adam_mini(blocks={"a": (0, -1), "c": 0})
    nu = tx.init(params)["slots"]["scale_by_adam_mini"]["nu"]
    assert jax.tree.map(jnp.shape, nu) == {"a": (2, 1, 4), "b": (1, 1), "c": (3,)}
    assert eval(repr(tx), vars(gradtx)) == tx


@pytest.mark.parametrize(
    "build, error, words",
    [
        (lambda: gradtx.adam_mini(0.1, blocks=3), TypeError, "blocks maps path patterns to axes"),
        (
            lambda: gradtx.adam_mini(0.1, blocks={"*": 2}).init({"w": jnp.zeros((2, 2))}),
            ValueError,
            r"'w' of shape \(2, 2\) has no axis 2",
        ),
        (lambda: gradtx.scale_by_leaf(2.0), TypeError, "must be a function of a leaf's path"),
        (
            lambda: gradtx.scale_by_leaf(lambda path, leaf: leaf).init({"w": jnp.zeros(2)}),
            TypeError,
            "must give a number for each leaf; for 'w'",
        ),
        (lambda: gradtx.half_life_schedule(0.0, 0.9, 10), ValueError, r"in \(0, 1\)"),
        (
            lambda: gradtx.warmup_stable_decay_schedule(0.0, 1.0, 1, 2, 3, shape="cosine", power=2.0),
            ValueError,
            "power is for shape='power'",
        ),
        (lambda: gradtx.scale_by_lion(mode="soft"), ValueError, "must be 'hard', 'smooth' or 'refined'"),
        (
            lambda: gradtx.chain(gradtx.ema_nesterov(gradtx.sgd(0.1), 0.5), gradtx.scale(2.0)).init(
                jnp.ones(2)
            ),
            ValueError,
            "changes the update",
        ),
    ],
)
def test_a_misuse_is_an_error(build, error, words):
    with pytest.raises(error, match=words):
        build()


def test_factors_by_leaf_are_in_the_state():
    """They are data: an equal structure with other factors goes on with those of its state."""
    params = {"hidden": jnp.ones((8, 2)), "bias": jnp.ones(2)}
    tx = gradtx.chain(
        gradtx.sgd(1.0), gradtx.scale_by_leaf(lambda path, x: 1 / x.shape[0] if path == "hidden" else 2.0)
    )
    state = tx.init(params)
    assert jax.tree.map(float, state["slots"]["scale_by_leaf"]["value"]) == {"bias": 2.0, "hidden": 0.125}
    updates, _ = tx.update(params, state, params)
    np.testing.assert_array_equal(updates["hidden"], -0.125)
    np.testing.assert_array_equal(updates["bias"], -2.0)


def test_ema_nesterov_evaluates_with_the_point_behind():
    beta = gradtx.linear_schedule(0.0, 0.6, 20)
    with x64():
        tx = gradtx.ema_nesterov(gradtx.sgd(0.05, momentum=0.9), beta, 0.8)
        late = modern_references.EmaNesterov(
            references.Sgd(0.05, momentum=0.9), lambda k: float(beta(max(k - 1, 0))), 0.8
        )
        y = {"w": jnp.array([1.0, -2.0, 3.0])}
        state, point = tx.init(y), [np.asarray(y["w"])]
        late.init(point)
        step = jax.jit(lambda y, state: gradtx.apply_gradients(tx, {"w": jnp.sin(y["w"])}, state, y))
        for _ in range(60):
            point = [
                p + u for p, u in zip(point, late.update([np.sin(p) for p in point], point), strict=True)
            ]
            y, state = step(y, state)
            np.testing.assert_allclose(y["w"], point[0], rtol=1e-6)
            np.testing.assert_allclose(
                gradtx.eval_params(state, y)["w"], late.eval_params(point)[0], rtol=1e-6, atol=1e-9
            )


def test_a_row_floor_keeps_a_unit_that_does_not_move():
    tx, theta = gradtx.row_floor(0.5), jnp.full((2, 3), 2.0)
    g = jnp.array([[0.0, 1e-30, 3.0], [0.0, 0.0, 3.0]])
    u = tx.update(g, tx.init(theta), theta)[0]
    size = np.linalg.norm(theta, axis=0)
    np.testing.assert_allclose(np.linalg.norm(u, axis=0), [0.0, 0.5 * size[1], np.sqrt(18)], rtol=1e-6)


def test_a_radial_brake_leaves_the_part_along_the_sphere():
    rng = np.random.default_rng(0)
    theta, g = (jnp.asarray(rng.normal(size=(4, 3)), jnp.float32) for _ in range(2))
    tx = gradtx.radial_brake(0.0, 0.0)
    u = tx.update(g, tx.init(theta), theta)[0]
    assert abs(float((u * theta).sum())) < 1e-5
    np.testing.assert_allclose(g - u, (g * theta).sum() / (theta * theta).sum() * theta, rtol=1e-4, atol=1e-6)


def test_the_power_cooldown_is_a_line_of_power_one():
    line, power = (
        gradtx.warmup_stable_decay_schedule(0.0, 1.0, 2, 4, 8, 0.1, shape=shape)
        for shape in ("linear", "power")
    )
    assert line == power and repr(power) == repr(line)
    other = gradtx.warmup_stable_decay_schedule(0.0, 1.0, 2, 4, 8, 0.1, shape="power", power=2.0)
    assert eval(repr(other), vars(gradtx)) == other and float(other(8)) == pytest.approx(0.1 + 0.9 * 0.25)


def test_a_lion_without_a_smooth_mode_has_no_number_for_it():
    plain, smooth = (
        gradtx.scale_by_lion(smooth_beta=3.0),
        gradtx.scale_by_lion(mode="smooth", smooth_beta=3.0),
    )
    assert set(gradtx.hyperparams(plain.init(jnp.ones(2)))) == {"b1", "b2"}
    assert gradtx.hyperparams(smooth.init(jnp.ones(2)))["smooth_beta"] == 3.0
    for tx in (plain, smooth):
        assert eval(repr(tx), vars(gradtx)) == tx
