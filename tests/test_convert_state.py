"""States in formats: brought into other ones, written down, read back, and known to what looks into them."""

from __future__ import annotations

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax import export

import gradtx

RNG = np.random.default_rng(0)
PARAMS = {"b": jnp.zeros(128), "none": None, "w": jnp.asarray(RNG.normal(size=(64, 128)), jnp.float32)}
NARROW = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)


def adamw(rate: Any = 1e-3):
    return gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(rate, weight_decay=0.1))


def gradients(params, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32).astype(x.dtype), params)


def advanced(tx, params, state, steps=3):
    step = jax.jit(lambda g, s, p: gradtx.apply_gradients(tx, g, s, p))
    for i in range(steps):
        params, state = step(gradients(params, i), state, params)
    return params, state


def same(a, b):
    """Bit for bit, of one structure."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(jax.tree_util.tree_flatten_with_path(a)[0], jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype and np.asarray(x).tobytes() == np.asarray(y).tobytes(), path


def slot(state, name):
    return state["slots"]["scale_by_adam"][name]["w"]


PLAIN = adamw()
P, S = advanced(PLAIN, PARAMS, PLAIN.init(PARAMS))


def test_float32_becomes_8_bits_and_float32_again():
    tx = gradtx.precision(adamw(5.0), "8bit")
    params, state, report = gradtx.convert_state(PLAIN, S, tx, P)
    same(params, P)
    assert int(state["step"]) == 3 and gradtx.hyperparams(state)["learning_rate"] == 1e-3
    assert slot(state, "mu").dtype == jnp.int8 and slot(state, "nu").dtype == jnp.uint8
    assert state["slots"]["scale_by_adam"]["mu"]["b"].dtype == jnp.float32
    assert [*report.changed] == ["scale_by_adam.mu", "scale_by_adam.nu"]
    assert 0 < report.slots["scale_by_adam.mu"].error <= 1 / 127
    change = report.slots["scale_by_adam.nu"]
    assert change.bytes_before == 4 * (64 * 128 + 128)
    assert (
        change.bytes_after == 64 * 128 + 4 * 128 + 4 * state["slots"]["scale_by_adam"]["nu_scales"]["w"].size
    )
    assert (change.before, change.after) == ("float32", "uint8_stochastic, float32")
    _, back, report = gradtx.convert_state(tx, state, PLAIN, params)
    assert report.slots["scale_by_adam.mu"].error == 0
    largest = float(jnp.max(jnp.abs(slot(S, "mu"))))
    np.testing.assert_allclose(slot(back, "mu"), slot(S, "mu"), rtol=0, atol=largest / 127)
    np.testing.assert_allclose(
        np.sqrt(slot(back, "nu")),
        np.sqrt(slot(S, "nu")),
        rtol=0,
        atol=float(jnp.max(slot(S, "nu"))) ** 0.5 / 255,
    )
    # What has been in the format already is not changed by going there once more, but for a square root.
    again = gradtx.convert_state(PLAIN, back, tx, params)[1]
    for name in ("mu", "mu_scales", "nu"):
        same(again["slots"]["scale_by_adam"][name], state["slots"]["scale_by_adam"][name])
    np.testing.assert_allclose(slot(again, "nu_scales"), slot(state, "nu_scales"), rtol=1e-6)


@pytest.mark.wide
def test_what_keeps_its_form_is_the_same_bit_for_bit():
    tx = gradtx.precision(adamw(), "7-bytes")
    params, state = advanced(tx, NARROW, tx.init(NARROW))
    for other in (tx, gradtx.precision(adamw(), "7-bytes", slots={"mu": "int8_stochastic"})):
        made, moved, report = gradtx.convert_state(tx, state, other, params)
        same((made, moved), (params, state))
        assert report.slots["scale_by_adam.nu"].error == 0
    assert not gradtx.convert_state(tx, state, tx, params)[2].changed


def test_nothing_is_shared_with_what_was_given():
    tx = gradtx.precision(adamw(), "7-bytes")
    made, moved, _ = gradtx.convert_state(PLAIN, S, tx, P, params_dtype="bfloat16")
    same_form, kept, _ = gradtx.convert_state(PLAIN, S, PLAIN, P)
    before = jax.tree.map(np.array, (P, S))
    for x in jax.tree.leaves((made, moved, same_form, kept)):
        x.delete()
    same(before, jax.tree.map(np.array, (P, S)))


HOWS = {"stochastic": 2.0**-8, "kahan": 2.0**-16, "master": 0.0, "split16": 0.0, "split8": 2.0**-16}


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("how", HOWS)
def test_parameters_change_their_form_and_what_they_stand_for_stays(how):
    tx = gradtx.precise_params(adamw(), how)
    params, state, report = gradtx.convert_state(PLAIN, S, tx, P, params_dtype=jnp.bfloat16)
    assert params["w"].dtype == jnp.bfloat16 and params["none"] is None
    assert jax.tree.structure(state) == jax.tree.structure(tx.init(params))
    inner = state["slots"]["precise_params"]["inner"]
    assert int(inner["step"]) == 3
    same(inner["slots"]["scale_by_adam"]["mu"], S["slots"]["scale_by_adam"]["mu"])
    assert report.params.error <= HOWS[how]
    back, again, _ = gradtx.convert_state(tx, state, PLAIN, params, params_dtype="float32")
    same(again, S)
    np.testing.assert_allclose(back["w"], P["w"], rtol=2 * HOWS[how], atol=0)
    # From each form into another one, through what both can hold.
    other = gradtx.precise_params(adamw(), "master")
    moved, there, _ = gradtx.convert_state(tx, state, other, params)
    np.testing.assert_array_equal(there["slots"]["precise_params"]["beside"]["w"], back["w"])
    np.testing.assert_array_equal(moved["w"], back["w"].astype(jnp.bfloat16))


def test_without_what_is_beside_them_parameters_are_what_they_look_like():
    tx = gradtx.precise_params(adamw(), "split8")
    params, state, _ = gradtx.convert_state(PLAIN, S, tx, P, params_dtype="bfloat16")
    dropped, _, report = gradtx.convert_state(tx, state, PLAIN, params)
    assert dropped["w"].dtype == jnp.bfloat16 and 0 < report.params.error < 2.0**-8
    assert (report.params.before, report.params.after) == ("bfloat16 + int8", "bfloat16")


def test_some_parameters_stay_wide():
    tx = gradtx.precision(adamw(), "7-bytes")
    params, state, _ = gradtx.convert_state(PLAIN, S, tx, P, params_dtype={"b": "float32", "*": "bfloat16"})
    assert (params["b"].dtype, params["w"].dtype) == (jnp.float32, jnp.bfloat16)
    assert state["slots"]["precise_params"]["beside"]["b"] is None


@pytest.mark.wide
def test_a_run_goes_on_as_it_would_have():
    """Of a format that loses nothing, bit for bit; and so from there on of one that does."""
    tx = gradtx.precise_params(adamw(), "split16")
    params, state, _ = gradtx.convert_state(PLAIN, S, tx, P, params_dtype="bfloat16")
    grads = gradients(P, 9)
    wide = gradtx.apply_gradients(PLAIN, grads, S, P)
    narrow = gradtx.apply_gradients(tx, grads, state, params)
    exact, _, _ = gradtx.convert_state(tx, narrow[1], PLAIN, narrow[0], params_dtype="float32")
    same(exact, wide[0])


@pytest.mark.wide
def test_groups_wrappers_and_matrices_are_converted_inside():
    def make(formats: dict[str, Any]):
        inner = gradtx.soap(1e-2, precondition_frequency=2)
        return gradtx.guard(gradtx.store(inner, **formats) if formats else inner)

    params = {"b": jnp.zeros(8), "w": P["w"]}
    tx, small = make({}), make({"mu": "int8", "nu": "uint4", "min_size": 64})
    state = tx.init(params)
    _, moved, report = gradtx.convert_state(tx, state, small, params)
    assert jax.tree.map(jnp.shape, moved) == jax.tree.map(jnp.shape, small.init(params))
    assert {x.after for x in report.changed.values()} == {"int8", "uint4"}
    jax.eval_shape(small.update, params, moved, params)


def refused(words, *args, error: Any = ValueError, **kwargs):
    with pytest.raises(error, match=words):
        gradtx.convert_state(*args, **kwargs)


def test_what_differs_in_more_than_formats_is_refused():
    refused(
        "trace of tx stands where old_tx has scale_by_adam",
        PLAIN,
        S,
        gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(1.0, momentum=0.9)),
        P,
    )
    refused(
        "scale_by_adam_1 of tx has no counterpart in old_tx",
        PLAIN,
        S,
        gradtx.chain(adamw(), gradtx.scale_by_adam()),
        P,
    )
    refused(
        "add_decayed_weights_1 of old_tx has no counterpart in tx",
        gradtx.chain(PLAIN, gradtx.add_decayed_weights(0.1)),
        gradtx.chain(PLAIN, gradtx.add_decayed_weights(0.1)).init(P),
        PLAIN,
        P,
    )
    refused(
        r"adamw of tx has the numbers .*schedule.* gradtx\.rebase",
        PLAIN,
        S,
        adamw(gradtx.cosine_decay_schedule(1.0, 9)),
        P,
    )
    refused("not this transform's", gradtx.adam(1.0), S, PLAIN, P)
    refused("shape .64, 128., and .32, 128. for these params", PLAIN, S, PLAIN, {**P, "w": P["w"][:32]})
    refused("real floating dtypes, got 'int8'", PLAIN, S, PLAIN, P, params_dtype="int8")


def test_what_is_no_state_with_values_is_refused():
    refused("gradtx transform", optax.adam(1.0), S, PLAIN, P, error=TypeError)
    abstract = jax.eval_shape(lambda: S)
    refused("outside of jit", PLAIN, abstract, PLAIN, P, error=TypeError)
    batch = jax.vmap(lambda rate: adamw(rate).init(P))(jnp.array([0.1, 0.2]))
    refused("batch of states", PLAIN, batch, PLAIN, P, error=TypeError)


def test_an_update_of_a_state_in_another_format_says_what_to_do():
    tx = gradtx.precision(adamw(), "8bit")
    small = gradtx.convert_state(PLAIN, S, tx, P)[1]
    with pytest.raises(ValueError, match=r"params, state, report = gradtx\.convert_state"):
        PLAIN.update(P, small, P)
    half = gradtx.store(adamw(), mu={"b": "float32", "*": "int8"}, nu="uint8", min_size=64)
    with pytest.raises(TypeError, match=r"mu of 'b' is int8 .* as float32.*gradtx\.convert_state"):
        half.update(P, gradtx.store(adamw(), mu="int8", nu="uint8", min_size=64).init(P), P)
    split8, split16 = (gradtx.precise_params(adamw(), how) for how in ("split8", "split16"))
    with pytest.raises(TypeError, match=r"the state has int8, and 'split16' keeps int16 .*convert_state"):
        split16.update(NARROW, split8.init(NARROW), NARROW)


FORMS = {
    "by name": lambda: gradtx.store(adamw(), mu="int8", nu="uint8"),
    "by pattern": lambda: gradtx.store(adamw(), mu={"b": "float32", "*": "int4"}, min_size=64),
    "of one transform": lambda: gradtx.store(adamw(), seed=3, **{"scale_by_adam.mu": "int8_stochastic"}),
    "by a dtype": lambda: gradtx.adamw(1e-3, mu_dtype="float8_e4m3"),
    "kahan": lambda: gradtx.precise_params(adamw(), "kahan", seed=2),
    "7-bytes": lambda: gradtx.precision(adamw(), "7-bytes"),
    "bf16": lambda: gradtx.precision(adamw(), "bf16"),
    "a policy": lambda: gradtx.precision(
        adamw(), "8bit", slots={"mu": {"b": "float32", "*": "bfloat16"}}, params="split16"
    ),
}


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("name", FORMS)
def test_it_is_known_to_what_looks_into_a_transform(name):
    tx = FORMS[name]()
    built = gradtx.from_config(json.loads(json.dumps(gradtx.to_config(tx))))
    assert built == tx and repr(built) == repr(tx)
    bare = gradtx.adamw(1e-3) if name == "by a dtype" else adamw()
    own, plain = (repr(gradtx.formula(x, NARROW, "w")) for x in (tx, bare))
    if "precise_params" in gradtx.to_config(tx)["call"] or "inner.t" in own:  # which steps by itself
        lines = [line for line in own.splitlines() if not line.startswith(("inner.t'", "at first"))]
        own = "\n".join(lines).replace("inner.t", "t")
    assert "".join(own.split()) == "".join(plain.split())


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("name", FORMS)
def test_a_state_goes_on_bit_for_bit_after_a_state_dict(name):
    tx = FORMS[name]()
    params, state = advanced(tx, NARROW, tx.init(NARROW), 2)
    restored, report = gradtx.from_state_dict(tx, params, gradtx.to_state_dict(state))
    assert report.is_complete and not report.cast
    same(restored, state)
    rebased, changes = gradtx.rebase(tx, state)
    assert not changes
    same(rebased, state)
    names = jax.tree.map(lambda x: "here", NARROW)
    mapped = gradtx.tree_map_params(tx, lambda slot, name: name, state, names)
    assert jax.tree.structure(mapped) == jax.tree.structure(state)
    assert "here" in jax.tree.leaves(mapped)


@pytest.mark.wide
def test_orbax_and_an_exported_step_go_on_bit_for_bit(tmp_path):
    tx = gradtx.precision(adamw(), "7-bytes", slots={"nu": "uint8_stochastic"})
    params, state = advanced(tx, NARROW, tx.init(NARROW), 2)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "state", jax.eval_shape(tx.init, params))
    same(restored, state)
    step = jax.jit(lambda g, s, p: gradtx.apply_gradients(tx, g, s, p))
    grads = gradients(params, 5)
    exported = export.deserialize(export.export(step)(grads, state, params).serialize())
    same(exported.call(grads, restored, params), step(grads, state, params))


def test_a_state_dict_in_other_formats_is_no_state_of_these():
    """Codes are no numbers: they are refused, also where a cast would be possible."""
    small = gradtx.store(adamw(), mu="float8_e4m3", nu="uint8")
    state = gradtx.convert_state(PLAIN, S, small, P)[1]
    d = gradtx.to_state_dict(state)
    other = gradtx.store(adamw(), mu="float8_e5m2", nu="uint8")
    for tx in (PLAIN, other):
        with pytest.raises(ValueError, match=r"(?s)mu/w as float8_e4m3fn.*gradtx\.convert_state") as error:
            gradtx.from_state_dict(tx, P, d)
        assert "nu/b" not in str(error.value)
        restored, report = gradtx.from_state_dict(tx, P, d, strict=False)
        assert "slots/scale_by_adam/mu/w" in report.reshaped
        assert "gradtx.convert_state" in repr(report)
        assert not np.any(np.asarray(slot(restored, "mu"), np.float32))
    split8, master = (gradtx.precise_params(adamw(), how) for how in ("split8", "master"))
    for old, new in (
        (split8, gradtx.precise_params(adamw(), "split16")),
        (master, gradtx.precise_params(adamw(), "kahan")),
    ):
        with pytest.raises(ValueError, match=r"(?s)beside/w as .*gradtx\.convert_state"):
            gradtx.from_state_dict(new, NARROW, gradtx.to_state_dict(old.init(NARROW)))


def test_other_libraries_states_are_moved_through_what_they_can_hold():
    params = {"w": P["w"]}
    with jax.numpy_dtype_promotion("standard"):
        base = optax.adamw(1e-3)
        theirs = base.init(params)
    plain, tx = gradtx.adamw(1e-3), gradtx.precision(gradtx.adamw(1e-3), "7-bytes")
    for small in (tx, gradtx.adamw(1e-3, mu_dtype="int8")):
        with pytest.raises(
            ValueError, match=r"no place for.*gradtx.convert_state\(plain_tx, state, tx, params"
        ):
            gradtx.from_optax_state(small, theirs, params)
        narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
        with pytest.raises(
            ValueError, match=r"no place for.*gradtx.convert_state\(tx, state, plain_tx, params"
        ):
            gradtx.to_optax_state(small, small.init(narrow), theirs)
        with pytest.raises(ValueError, match="torch has no place for"):
            gradtx.to_torch_state_dict(small, small.init(narrow), {}, {}, narrow)
    state = gradtx.from_optax_state(plain, theirs, params)
    _, moved, _ = gradtx.convert_state(plain, state, tx, params, params_dtype="bfloat16")
    assert moved["slots"]["precise_params"]["inner"]["slots"]["scale_by_adam"]["mu"]["w"].dtype == jnp.int8


@pytest.mark.wide
def test_eval_params_are_kept_as_they_are():
    tx = gradtx.precision(gradtx.schedule_free_adamw(1e-3), "8bit")
    params, state = advanced(tx, P, tx.init(P), 1)
    assert gradtx.eval_params(state, params)["w"].dtype == jnp.float32
    with pytest.raises(ValueError, match="eval_params"):
        gradtx.store(gradtx.schedule_free_adamw(1e-3), eval_params="int8")
