"""States as flat dicts: each comes back bit for bit, and what is damaged or does not fit is refused."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training import train_state
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

import gradtx
from catalogue import ENTRIES
from gradtx.interop.archive import HEADER, _checksum, pack, unpack

PARAMS = {
    "layers": [{"w": jnp.ones((2, 3))}, {"w": jnp.full(2, 0.5, jnp.float32)}],
    "scale": jnp.float32(2.0),
    "frozen": None,
}
GRADS = jax.tree.map(lambda p: 0.3 * p + 0.1, PARAMS)
RANDOM = np.random.default_rng(0)


def filled(state):
    """A state of the same form with other bits, as if it had run."""

    def fill(x):
        inexact = jnp.issubdtype(x.dtype, jnp.inexact)
        host = RANDOM.uniform(0.1, 0.9, x.shape) if inexact else np.asarray(x) ^ 1
        return jnp.array(np.asarray(host, x.dtype))

    return jax.tree.map(fill, state)


def assert_same(a, b, like=None):
    """The same trees bit for bit, placed like a third one."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y, z in zip(*map(jax.tree.leaves, (a, b, b if like is None else like)), strict=True):
        assert (x.dtype, x.shape, x.weak_type) == (z.dtype, z.shape, z.weak_type)
        assert (x.sharding, x.committed) == (z.sharding, z.committed)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def npz(d):
    """What is read of an `.npz` file."""
    return np.load(io.BytesIO(file_of(d)))


def file_of(d):
    buffer = io.BytesIO()
    np.savez(buffer, **d)
    return buffer.getvalue()


@pytest.mark.by_turns(6)
@pytest.mark.parametrize("entry", ENTRIES.values(), ids=list(ENTRIES))
def test_every_state_of_the_catalogue_comes_back_bit_for_bit(entry):
    for variant in ["", *entry.variants, *entry.layouts]:
        tx = entry.transform(variant)
        fresh = tx.init(PARAMS)
        state = filled(fresh)
        d = gradtx.to_state_dict(state)
        for read in (d, npz(d), load_safetensors(save_safetensors(d))):
            restored, report = gradtx.from_state_dict(tx, PARAMS, read)
            assert_same(restored, state, fresh)
            assert report.is_complete and len(report.kept) == len(jax.tree.leaves(state)) == len(d) - 1


@pytest.mark.parametrize(
    "name", ["adamw", *(pytest.param(name, marks=pytest.mark.full) for name in ENTRIES if name != "adamw")]
)
def test_the_next_update_is_the_same(name):
    tx = ENTRIES[name].transform()
    _, state = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    restored, _ = gradtx.from_state_dict(tx, PARAMS, gradtx.to_state_dict(state))
    assert_same(tx.update(GRADS, restored, PARAMS), tx.update(GRADS, state, PARAMS))


def test_the_keys_are_paths():
    tx = gradtx.accumulate(gradtx.adamw(gradtx.linear_schedule(0.1, 0.0, 9), mask="*w"), 2)
    keys = set(gradtx.to_state_dict(tx.init(PARAMS)))
    assert {
        "gradtx",
        "step",
        "numbers/accumulate/every",
        "slots/accumulate/inner/step",
        "slots/accumulate/inner/numbers/adamw/learning_rate/linear_schedule",
        "slots/accumulate/inner/slots/scale_by_adam/mu/layers/0/w",
    } <= keys
    assert not any("frozen" in key for key in keys)


DTYPES = ["bool", "int8", "uint64", "float16", "float32", "float64", "complex64", "complex128"]
DTYPES += ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4", "uint4"]


@pytest.mark.parametrize("shape", [(), (3,), (0, 2), (2, 1, 3)])
def test_every_dtype_comes_back_from_every_container(shape):
    bits = {name: RANDOM.integers(0, 2, shape).astype(np.dtype(name)) for name in DTYPES}
    d = pack(bits)
    for read in (d, npz(d), load_safetensors(save_safetensors(d))):
        found = unpack(read)
        assert list(found) == DTYPES
        for name, x in bits.items():
            assert (found[name].dtype, found[name].shape) == (x.dtype, shape)
            assert found[name].tobytes() == x.tobytes()


class Typed:
    """A transform whose state holds a typed key and a Python number."""

    def init(self, params):
        return {"key": jax.random.key(3), "rate": 0.5, "of": [jax.tree.map(jnp.zeros_like, params)]}

    def update(self, updates, state, params=None):
        return updates, state


def test_states_of_other_libraries():
    tx = gradtx.chain(optax.scale_by_adam(), Typed(), gradtx.sgd(0.1))
    state = tx.init(PARAMS)
    state["slots"]["foreign"] = filled(state["slots"]["foreign"])
    state["slots"]["foreign_1"]["key"] = jax.random.key(7)
    d = gradtx.to_state_dict(state)
    assert {"slots/foreign/mu/layers/0/w", "slots/foreign/count", "slots/foreign_1/key"} <= set(d)
    restored, _ = gradtx.from_state_dict(tx, PARAMS, npz(d))
    keys = [s["slots"]["foreign_1"].pop("key") for s in (restored, state)]
    assert keys[0].dtype == keys[1].dtype and jax.random.key_data(keys[0]).tolist() == [0, 7]
    assert restored["slots"]["foreign_1"].pop("rate") == state["slots"]["foreign_1"].pop("rate")
    assert_same(restored, state)
    alone = filled(optax.adam(0.1).init(PARAMS))
    assert_same(gradtx.from_state_dict(optax.adam(0.1), PARAMS, gradtx.to_state_dict(alone))[0], alone)


def test_states_that_flax_holds():
    tx, model = gradtx.adamw(0.1), nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    variables = nnx.state(model, nnx.Param)
    pure = nnx.to_pure_dict(variables)
    linen = train_state.TrainState.create(apply_fn=None, params=pure, tx=tx)
    linen = linen.replace(opt_state=filled(linen.opt_state))
    d = gradtx.to_state_dict(linen)
    assert "slots/scale_by_adam/mu/kernel" in d
    restored, _ = gradtx.from_state_dict(tx, pure, d)
    assert_same(restored, linen.opt_state)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    nnx.update(optimizer.opt_state, nnx.state(restored))
    again = gradtx.to_state_dict(optimizer)
    assert list(again) == list(d) and all(np.array_equal(again[key], d[key]) for key in d)
    in_variables, _ = gradtx.from_state_dict(tx, variables, d)
    assert in_variables["slots"]["scale_by_adam"]["mu"]["kernel"][...].shape == (2, 1)


@pytest.mark.wide
def test_sharded_states_are_gathered_and_sharded_again():
    mesh = Mesh(np.array(jax.devices()[:4]), ("x",))
    sharding = NamedSharding(mesh, PartitionSpec("x"))
    params = {"w": jax.device_put(jnp.ones((8, 4)), sharding), "b": jnp.ones(3)}
    tx = gradtx.chain(gradtx.adafactor(0.1, min_dim_size_to_factor=2), gradtx.trace(0.9))
    fresh = tx.init(params)
    state = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), filled(fresh), fresh)
    d = gradtx.to_state_dict(state)
    assert all(type(x) is np.ndarray for x in d.values())
    abstract = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=p.sharding), params)
    for of in (params, abstract):
        restored, _ = gradtx.from_state_dict(tx, of, d)
        assert jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), restored, state))
        assert restored["slots"]["trace"]["trace"]["w"].sharding == sharding
        for x, like in zip(jax.tree.leaves(restored), jax.tree.leaves(tx.init(of)), strict=True):
            assert like.sharding is None or x.sharding == like.sharding
    batch = jax.vmap(lambda rate: gradtx.sgd(rate, 0.9).init(params))(jnp.array([0.1, 0.2]))
    restored, _ = gradtx.from_state_dict(gradtx.sgd(0.1, 0.9), params, gradtx.to_state_dict(batch))
    assert restored["slots"]["trace"]["trace"]["w"].sharding.spec == PartitionSpec(None, "x")


def test_a_batch_of_states():
    batch = filled(jax.vmap(lambda rate: gradtx.adam(rate).init(PARAMS))(jnp.array([0.1, 0.2, 0.3])))
    d = gradtx.to_state_dict(batch)
    assert d["step"].shape == (3,)
    assert_same(gradtx.from_state_dict(gradtx.adam(0.1), PARAMS, d)[0], batch)
    tx = gradtx.chain(gradtx.adam(0.1), gradtx.trace(0.9))
    restored, _ = gradtx.from_state_dict(tx, PARAMS, d, strict=False)
    assert restored["slots"]["trace"]["trace"]["layers"][0]["w"].shape == (3, 2, 3)


def test_nothing_is_shared_and_everything_can_be_donated():
    tx = gradtx.adamw(0.1)
    params = jax.device_put(jax.tree.map(lambda p: p + 0, PARAMS), jax.devices()[0])
    state = filled(tx.init(params))
    d = gradtx.to_state_dict(state)
    before = {key: x.copy() for key, x in d.items()}
    restored, _ = gradtx.from_state_dict(tx, params, d)
    kept = jax.tree.map(np.array, restored)
    for x in d.values():
        x[...] = 0
    assert jax.tree.all(jax.tree.map(lambda x, y: bool((np.asarray(x) == y).all()), restored, kept))
    given = gradtx.to_state_dict(restored)
    moved = jax.jit(lambda s: jax.tree.map(lambda x: x + jnp.ones((), x.dtype), s), donate_argnums=0)(
        restored
    )
    assert all(x.is_deleted() for x in jax.tree.leaves(restored))
    assert all(np.array_equal(given[key], before[key]) for key in before)
    assert int(moved["step"]) == 2


def test_the_numbers_of_the_dict_are_in_force_until_rebase():
    d = gradtx.to_state_dict(gradtx.adam(0.1, b1=0.8).init(PARAMS))
    tx = gradtx.adam(jnp.float32(0.3))
    state, _ = gradtx.from_state_dict(tx, PARAMS, d)
    assert gradtx.hyperparams(state)["learning_rate"] == 0.1
    state, changes = gradtx.rebase(tx, state)
    assert changes == {"learning_rate": (0.1, 0.3), "b1": (0.8, 0.9)}


@jax.tree_util.register_pytree_with_keys_class
class Twice:
    """A node that gives two leaves one name."""

    def __init__(self, a, b):
        self.a, self.b = a, b

    def tree_flatten_with_keys(self):
        name = jax.tree_util.GetAttrKey("x")
        return ((name, self.a), (name, self.b)), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


OLD = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(0.1), gradtx.trace(0.9))
NEW = gradtx.chain(gradtx.adamw(0.1, mu_dtype="bfloat16"), gradtx.ema(0.9), gradtx.scale(2.0))
WIDER = {**PARAMS, "layers": [{"w": jnp.ones((2, 4))}, {"w": jnp.full(2, 0.5)}]}


def test_what_does_not_match_is_one_error_that_lists_it():
    d = gradtx.to_state_dict(OLD.init(PARAMS))
    with pytest.raises(ValueError) as error:
        gradtx.from_state_dict(NEW, WIDER, d)
    assert str(error.value) == (
        "This state dict is not of this transform and these parameters. It\n"
        "  lacks numbers/ema\n"
        "  lacks numbers/scale\n"
        "  lacks slots/ema (3 entries)\n"
        "  has numbers/clip_by_global_norm, which the transform has no place for\n"
        "  has numbers/trace (2 entries), which the transform has no place for\n"
        "  has slots/trace (3 entries), which the transform has no place for\n"
        "  has slots/scale_by_adam/mu/layers/0/w as float32[2, 3], which is bfloat16[2, 4] here\n"
        "  has slots/scale_by_adam/nu/layers/0/w as float32[2, 3], which is float32[2, 4] here\n"
        "Pass the transform and the parameters that it was made with, or strict=False to restore what "
        "matches."
    )


@pytest.mark.wide
def test_a_changed_chain_restores_what_matches_and_says_the_rest():
    state = filled(OLD.init(PARAMS))
    restored, report = gradtx.from_state_dict(NEW, WIDER, gradtx.to_state_dict(state), strict=False)
    assert (
        repr(report)
        == str(report)
        == "\n".join(
            [
                "kept      11 entries",
                "cast      slots/scale_by_adam/mu/layers/1, float32 to bfloat16",
                "          slots/scale_by_adam/mu/scale, float32 to bfloat16",
                "new       numbers/ema",
                "          numbers/scale",
                "          slots/ema (3 entries)",
                "dropped   numbers/clip_by_global_norm",
                "          numbers/trace (2 entries)",
                "          slots/trace (3 entries)",
                "reshaped  slots/scale_by_adam/mu/layers/0, float32[2, 3] and now bfloat16[2, 4], anew",
                "          slots/scale_by_adam/nu/layers/0, float32[2, 3] and now float32[2, 4], anew",
                "          New slots start at step 1. Where the step corrects them, as it does",
                "          Adam's moments, the first updates may be several times too large.",
            ]
        )
    )
    assert int(restored["step"]) == 1
    adam = restored["slots"]["scale_by_adam"]
    assert not adam["mu"]["layers"][0]["w"].any()
    assert adam["nu"]["scale"] == state["slots"]["scale_by_adam"]["nu"]["scale"]
    assert adam["mu"]["scale"].dtype == jnp.bfloat16
    NEW.update(jax.tree.map(jnp.ones_like, WIDER), restored, WIDER)


FALLING = gradtx.linear_schedule(1.0, 0.0, 3)


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        (gradtx.adamw(1e-3), gradtx.adamw(FALLING), "numbers/adamw/learning_rate"),
        (gradtx.adamw(FALLING), gradtx.adamw(1e-3), "numbers/adamw/learning_rate"),
    ],
    ids=["a leaf that becomes a subtree", "a subtree that becomes a leaf"],
)
def test_a_constant_may_become_a_schedule_and_a_leaf_a_subtree(old, new, changed):
    params = {"w": jnp.ones(2)}
    d = gradtx.to_state_dict(old.init(params))
    with pytest.raises(ValueError, match=f"lacks {changed}(.|\n)*has {changed}"):
        gradtx.from_state_dict(new, params, d)
    state, report = gradtx.from_state_dict(new, params, d, strict=False)
    assert "New slots" not in str(report) and changed in str(report)
    assert jax.tree.structure(state) == jax.tree.structure(new.init(params))
    deeper = {"w": {"a": jnp.ones(2), "b": jnp.ones(2)}}
    for before, after in ((params, deeper), (deeper, params)):
        d = gradtx.to_state_dict(old.init(before))
        _, report = gradtx.from_state_dict(old, after, d, strict=False)
        assert "slots/scale_by_adam/mu/w" in str(report)


def test_what_starts_anew_needs_the_parameters():
    d = gradtx.to_state_dict(gradtx.sgd(0.1).init(PARAMS))
    abstract = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), PARAMS)
    words = r"^numbers/sgd/dampening is not in the dict and starts from .* abstract\. Pass arrays\."
    with pytest.raises(ValueError, match=words):
        gradtx.from_state_dict(gradtx.sgd(0.1, 0.9), abstract, d, strict=False)


def test_an_integer_that_does_not_fit_is_not_cut():
    tx = SimpleNamespace(init=lambda params: {"count": jnp.zeros((), jnp.int32)}, update=None)
    for count, fits in [(2**31 - 1, True), (2**31, False)]:
        d = gradtx.to_state_dict({"count": np.int64(count)})
        _, report = gradtx.from_state_dict(tx, (), d, strict=False)
        assert report.is_complete == fits


def test_a_number_that_would_become_infinite_starts_anew():
    tx = SimpleNamespace(init=lambda params: {"nu": jnp.zeros(2)}, update=None)
    for nu, fits in [((1e30, np.inf), True), ((1e300, 1.0), False)]:
        d = gradtx.to_state_dict({"nu": np.array(nu)})
        state, report = gradtx.from_state_dict(tx, (), d, strict=False)
        assert report.is_complete == fits and bool(state["nu"].any()) == fits


def test_what_is_no_transform_is_refused():
    d = gradtx.to_state_dict(gradtx.sgd(0.1).init(PARAMS))
    for tx, params in [(None, PARAMS), (PARAMS, gradtx.sgd(0.1))]:
        with pytest.raises(TypeError, match="takes the transform first, then the parameters; got"):
            gradtx.from_state_dict(tx, params, d)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (gradtx.adam(0.1), r"takes the state of an optimizer, whose leaves are arrays; got adam\(0\.1\)"),
        (gradtx.adam(0.1).init(jax.ShapeDtypeStruct((), jnp.float32)), "numbers/adam/eps is abstract"),
        (
            [{"1": jnp.ones(())}, Twice(jnp.ones(()), jnp.ones(()))],
            "Two leaves of the state have the path '1/x'",
        ),
        (SimpleNamespace(opt_state={"gradtx": jnp.ones(())}), "cannot have an entry 'gradtx'"),
    ],
    ids=["a transform", "an abstract state", "two of a path", "the header"],
)
def test_what_cannot_be_a_state_dict(state, words):
    with pytest.raises((TypeError, ValueError), match=words):
        gradtx.to_state_dict(state)


def test_a_traced_state_is_refused():
    with pytest.raises(TypeError, match="step is traced: call to_state_dict outside of jit"):
        jax.jit(lambda step: gradtx.to_state_dict({"step": step}))(0)


TX = gradtx.chain(gradtx.adamw(gradtx.linear_schedule(0.1, 0.0, 9), mu_dtype="bfloat16"), gradtx.trace(0.9))
STATE = filled(TX.init(PARAMS))
GOOD = gradtx.to_state_dict(STATE)


def with_header(**changes):
    """The dict under another header, with its own checksum."""
    header = json.loads(GOOD[HEADER].tobytes())
    del header["checksum"]
    header |= changes
    return {**GOOD, HEADER: as_bytes(header | {"checksum": _checksum(header)})}


def as_bytes(x):
    return np.frombuffer(json.dumps(x).encode(), np.uint8)


def damaged_dicts():
    """Dicts that are wrong, each with what the error must name."""
    for key, x in GOOD.items():
        flipped = x.copy()
        flipped.reshape(-1).view(np.uint8)[-1] ^= 16
        yield {**GOOD, key: flipped}, "header" if key == HEADER else key
        yield {k: v for k, v in GOOD.items() if k != key}, key
        if key == HEADER:
            continue
        yield {(f"{k}x" if k == key else k): v for k, v in GOOD.items()}, key
        yield {**GOOD, key: x.reshape(1, *x.shape)}, key
        yield {**GOOD, key: x.view(np.uint8)[..., :-1] if x.ndim else x.astype(np.int8)}, key
        yield {**GOOD, key: None}, key
        yield {**GOOD, key: np.array([None])}, key
    mu, nu = "slots/scale_by_adam/mu/scale", "slots/scale_by_adam/nu/scale"
    yield {**GOOD, mu: GOOD[nu], nu: GOOD[mu]}, mu
    yield {**GOOD, "params/w": np.ones(3)}, "params/w"
    yield {**GOOD, "../../etc/passwd": np.ones(3)}, "passwd"
    yield {**GOOD, 3: np.ones(3)}, "not 3"
    entries = json.loads(GOOD[HEADER].tobytes())["entries"]
    for dtype in ["O", "object", "os.system", "float32,float32", "V4", "complex64", "float64", "\x00"]:
        yield with_header(entries={**entries, mu: {**entries[mu], "dtype": dtype}}), mu
    yield with_header(version=2), "version 2"
    yield with_header(version=True), HEADER
    for wrong in [
        None,
        3,
        [],
        list(entries),
        {**entries, mu: "x"},
        {**entries, mu: {}},
        {**entries, mu: {"digest": 3}},
    ]:
        yield with_header(entries=wrong), HEADER
    for version in [0, -1, None, "1", 1.5, [], True]:
        yield {**GOOD, HEADER: as_bytes({"format": "gradtx state", "version": version})}, HEADER
    for header in [None, 3, "gradtx", [], {}, {"format": "other"}, {"format": "gradtx state"}]:
        yield {**GOOD, HEADER: as_bytes(header)}, HEADER
    deep = np.frombuffer(b"[" * 100_000, np.uint8)
    for header in [np.zeros(9, np.uint8), np.ones(3), np.uint8(7), deep, np.zeros(0, np.uint8)]:
        yield {**GOOD, HEADER: header}, HEADER
    yield {}, "nothing"
    yield {"model.weight": np.ones(3)}, "model.weight"


def test_a_damaged_dict_is_an_error_that_names_the_entry():
    count, structure = 0, TX.init(PARAMS)
    for d, words in damaged_dicts():
        before = dict(d)
        for strict in (True, False):
            with pytest.raises(ValueError) as error:
                gradtx.from_state_dict(TX, PARAMS, d, strict=strict)
            assert words in str(error.value) and len(str(error.value)) < 1_000, (words, str(error.value))
        assert list(before) == list(d) and all(before[key] is d[key] for key in d)
        count += 1
    assert count > 100
    assert_same(gradtx.from_state_dict(TX, PARAMS, GOOD)[0], STATE, structure)


def is_refused_or_whole(path):
    """Whether a file is refused; if not, what it gives is what was saved."""
    try:
        found = unpack(path)
    except ValueError as error:
        assert str(path) in str(error)
        return True
    assert list(found) == [key for key in GOOD if key != HEADER]
    assert all(np.array_equal(found[key], x) for key, x in unpack(GOOD).items())
    return False


@pytest.mark.wide
def test_a_damaged_file_is_an_error_or_gives_what_was_saved(tmp_path):
    path, whole = tmp_path / "state.npz", file_of(GOOD)
    refused = 0
    for at in np.linspace(0, len(whole) - 1, 40).astype(int):
        path.write_bytes(whole[:at])
        assert is_refused_or_whole(path)
    for at in np.linspace(0, len(whole) - 1, 120).astype(int):
        bits = bytearray(whole)
        bits[at] ^= 1 << int(at) % 8
        path.write_bytes(bits)
        refused += is_refused_or_whole(path)
        assert path.read_bytes() == bytes(bits)
    assert refused > 80
    path.write_bytes(whole)
    assert_same(gradtx.from_state_dict(TX, PARAMS, path)[0], STATE)
    assert_same(gradtx.from_state_dict(TX, PARAMS, str(path))[0], STATE)


def test_what_is_no_npz_file_is_refused(tmp_path):
    path = tmp_path / "state.npz"
    with pytest.raises(FileNotFoundError):
        gradtx.from_state_dict(TX, PARAMS, path)
    np.save(path.with_suffix(".npy"), np.ones(3))
    np.savez(tmp_path / "pickled.npz", gradtx=np.array([{}], object))
    (tmp_path / "text.npz").write_text("step: 3")
    for name, words in [
        ("state.npy", "holds one array"),
        ("pickled.npz", "'gradtx' is damaged or cut off"),
        ("text.npz", r"is no \.npz file"),
        ("state.safetensors", r"read it first .*safetensors\.numpy\.load_file"),
    ]:
        with pytest.raises(ValueError, match=words):
            gradtx.from_state_dict(TX, PARAMS, tmp_path / name)
    with pytest.raises(
        TypeError, match=r"mapping of names to arrays, or the path of an \.npz file; got a list"
    ):
        gradtx.from_state_dict(TX, PARAMS, [GOOD])


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=4), st.floats(0, 1), st.booleans())
def test_a_mutated_file_is_refused_or_gives_what_was_saved(tmp_path_factory, data, where, inserted):
    whole = file_of(GOOD)
    at = int(where * (len(whole) - 1))
    path = tmp_path_factory.getbasetemp() / "mutated.npz"
    path.write_bytes(whole[:at] + data + whole[at + (0 if inserted else len(data)) :])
    is_refused_or_whole(path)


ARRAYS = hnp.arrays(
    st.sampled_from([np.dtype(name) for name in ("float32", "int32", "bool", "complex64", "bfloat16")]),
    hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=2),
    elements=st.just(1),
)


TEXTS = st.text("a/%.0\x00é", max_size=3)


def trees(inner):
    tables = [st.dictionaries(names, inner, max_size=3) for names in (TEXTS, st.integers(0, 2))]
    return st.one_of(*tables, st.lists(inner, max_size=3), st.tuples(inner, st.none()))


@pytest.mark.wide
@settings(max_examples=40, deadline=None)
@given(st.recursive(ARRAYS, trees, max_leaves=5))
def test_any_tree_of_slots_comes_back(tree):
    tree = jax.tree.map(jnp.asarray, {"slots": tree})
    d = npz(gradtx.to_state_dict(tree))
    restored, report = gradtx.from_state_dict(SimpleNamespace(init=lambda params: tree), (), d)
    assert_same(restored, tree)
    assert report.is_complete
