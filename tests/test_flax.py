"""Flax: its own TrainState and NNX Optimizer unmodified, and gradtx's, train models to the same numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.training import train_state

import gradtx
import gradtx.flax
from needy import Needy

X = jnp.array([[1.0, 2.0], [-1.0, 0.5], [0.5, -2.0]])
Y = jnp.array([[1.0], [-1.0], [0.5]])
TX = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-2, weight_decay=0.1))
OPTIMIZERS = {"nnx.Optimizer": nnx.Optimizer, "gradtx.flax.Optimizer": gradtx.flax.Optimizer}
TRAIN_STATES = {"Flax's": train_state.TrainState, "gradtx's": gradtx.flax.TrainState}


@pytest.fixture(autouse=True)
def promotion():
    """Flax's layers and Optax do not run under strict promotion."""
    with jax.numpy_dtype_promotion("standard"):
        yield


class Model(nnx.Module):
    """Two layers."""

    def __init__(self, rngs):
        self.first = nnx.Linear(2, 3, rngs=rngs)
        self.last = nnx.Linear(3, 1, rngs=rngs)

    def __call__(self, x):
        return self.last(jnp.tanh(self.first(x)))


def loss(model):
    return jnp.mean((model(X) - Y) ** 2)


@nnx.jit
def train_step(model, optimizer):
    value, grads = nnx.value_and_grad(loss)(model)
    optimizer.update(model, grads)
    return value


def trained(cls, tx, steps=5):
    model = Model(nnx.Rngs(0))
    optimizer = cls(model, tx, wrt=nnx.Param)
    return [float(train_step(model, optimizer)) for _ in range(steps)], model, optimizer


def by_hand(tx, steps=5):
    """The same training through the functional interface."""
    graph, params = nnx.split(Model(nnx.Rngs(0)))

    @jax.jit
    def step(params, state):
        value, grads = jax.value_and_grad(lambda p: loss(nnx.merge(graph, p)))(params)
        return *gradtx.apply_gradients(tx, grads, state, params), value

    state, values = tx.init(params), []
    for _ in range(steps):
        params, state, value = step(params, state)
        values.append(float(value))
    return values


@pytest.mark.wide
@pytest.mark.brief
@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_nnx_training_equals_the_functional_interface(cls):
    values, _, optimizer = trained(OPTIMIZERS[cls], TX)
    np.testing.assert_allclose(values, by_hand(TX), rtol=1e-6)
    assert values[-1] < values[0]
    assert int(optimizer.step[...]) == gradtx.step_count(optimizer) == 5


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_nnx_training_equals_optax(cls):
    theirs = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2, weight_decay=0.1))
    values, model, _ = trained(OPTIMIZERS[cls], TX)
    expected, other, _ = trained(nnx.Optimizer, theirs)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    np.testing.assert_allclose(model.last.kernel[...], other.last.kernel[...], rtol=1e-5)


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_nnx_trains_the_selected_variables_alone(cls):
    model = Model(nnx.Rngs(0))
    before = jax.tree.map(jnp.copy, nnx.state(model))
    bias = nnx.All(nnx.Param, nnx.PathContains("bias"))
    optimizer = OPTIMIZERS[cls](model, gradtx.sgd(0.1), wrt=bias)
    grads = nnx.grad(loss, argnums=nnx.DiffState(0, bias))(model)
    optimizer.update(model, grads)
    assert not jnp.array_equal(model.last.bias[...], before["last"]["bias"][...])
    assert jnp.array_equal(model.last.kernel[...], before["last"]["kernel"][...])


@pytest.mark.wide
def test_an_nnx_optimizer_keeps_bfloat16_moments():
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0), param_dtype=jnp.bfloat16)
    tx = gradtx.adam(1e-2, mu_dtype=jnp.bfloat16)
    optimizer = gradtx.flax.Optimizer(model, tx, wrt=nnx.Param)
    kinds = jax.tree.map(lambda x: x.dtype, nnx.state(optimizer))
    optimizer.update(model, nnx.grad(lambda m: m(X.astype(jnp.bfloat16)).sum())(model))
    assert jax.tree.map(lambda x: x.dtype, nnx.state(optimizer)) == kinds
    assert model.kernel.dtype == jnp.bfloat16


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_keyword_arguments_reach_the_transform_through_an_nnx_optimizer(cls):
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    before = model.bias[...]
    optimizer = OPTIMIZERS[cls](model, gradtx.chain(Needy(), gradtx.scale(-1.0)), wrt=nnx.Param)
    grads = nnx.grad(lambda m: m(X).sum())(model)
    optimizer.update(model, grads, value=jnp.float32(0.5))
    assert (before - model.bias[...]).tolist() == [1.5]


def test_keyword_arguments_reach_the_transform_through_a_train_state():
    tx = gradtx.chain(Needy(), gradtx.scale(-1.0))
    state = gradtx.flax.TrainState.create(apply_fn=None, params=jnp.ones(2), tx=tx)
    assert state.apply_gradients(grads=jnp.ones(2), value=jnp.float32(0.25)).params.tolist() == [0.75, 0.75]


DENSE = linen.Dense(1)


@pytest.mark.by_turns(1)
@pytest.mark.brief
@pytest.mark.parametrize("cls", TRAIN_STATES)
def test_linen_training_equals_optax(cls):
    def losses(cls, tx):
        params = DENSE.init(jax.random.key(0), X)
        state = cls.create(apply_fn=DENSE.apply, params=params, tx=tx)

        @jax.jit
        def step(state):
            def objective(params):
                return jnp.mean((state.apply_fn(params, X) - Y) ** 2)

            value, grads = jax.value_and_grad(objective)(state.params)
            return state.apply_gradients(grads=grads), value

        values = []
        for _ in range(5):
            state, value = step(state)
            values.append(float(value))
        assert state.step == 5
        return values

    values = losses(TRAIN_STATES[cls], gradtx.adamw(1e-2))
    np.testing.assert_allclose(values, losses(train_state.TrainState, optax.adamw(1e-2)), rtol=1e-5)
    assert values[-1] < values[0]


def test_a_train_state_of_gradtx_takes_optaxs_transforms():
    state = gradtx.flax.TrainState.create(apply_fn=None, params=jnp.ones(2), tx=optax.sgd(0.5))
    assert state.apply_gradients(grads=jnp.ones(2)).params.tolist() == [0.5, 0.5]


def test_a_train_state_of_gradtx_rounds_a_bfloat16_parameter_once():
    params, grads = jnp.full(1, 1.0, jnp.bfloat16), jnp.full(1, -(2.0**-8 + 2.0**-18), jnp.float32)
    state = gradtx.flax.TrainState.create(apply_fn=None, params=params, tx=gradtx.sgd(1.0))
    # The update is just over half of the spacing at 1; narrowed first it would be half, which rounds to even.
    assert float(state.apply_gradients(grads=grads).params[0]) == 1.0 + 2.0**-7


def test_overwrite_with_gradient_is_taken_as_flax_takes_it():
    overwrite = train_state.OVERWRITE_WITH_GRADIENT
    params = {"params": jnp.ones(2), overwrite: jnp.zeros(1)}
    grads = {"params": jnp.ones(2), overwrite: jnp.full(1, 7.0)}
    ours = gradtx.flax.TrainState.create(apply_fn=None, params=params, tx=gradtx.sgd(0.5))
    theirs = train_state.TrainState.create(apply_fn=None, params=params, tx=optax.sgd(0.5))
    moved = [s.apply_gradients(grads=grads).params for s in (ours, theirs)]
    assert jax.tree.map(lambda x: x.tolist(), moved[0]) == jax.tree.map(lambda x: x.tolist(), moved[1])


def test_states_that_differ_in_numbers_alone_are_one_static_structure():
    tree = {"a": jnp.ones(2), "b": jnp.ones(2)}

    def structure(tx):
        return jax.tree.structure(gradtx.flax.TrainState.create(apply_fn=None, params=tree, tx=tx))

    assert structure(gradtx.adam(1e-3)) == structure(gradtx.adam(3e-4, b1=0.5))
    assert structure(gradtx.adam(1e-3)) != structure(gradtx.adam(1e-3, nesterov=True))
    assert structure(gradtx.adamw(1e-3, mask="*a")) != structure(gradtx.adamw(1e-3, mask="*b"))


def test_the_held_transform_prints_as_its_code():
    state = gradtx.flax.TrainState.create(apply_fn=None, params=jnp.ones(2), tx=TX)
    assert repr(state.tx) == "chain(clip_by_global_norm(1.0), adamw(0.01, weight_decay=0.1))"


VIEW = gradtx.matrix_view("rc", column_blocks=3)


class Attention(nnx.Module):
    """A kernel of queries, keys and values, which no name tells apart, beside what names say enough of."""

    def __init__(self, rngs):
        init = nnx.initializers.lecun_normal()
        self.qkv = nnx.Param(init(rngs.params(), (4, 12)), matrix_view=VIEW)
        self.out = nnx.Linear(4, 4, kernel_init=nnx.with_metadata(init, matrix_view=None), rngs=rngs)
        self.up = nnx.Linear(4, 6, rngs=rngs)
        self.down = nnx.Linear(6, 4, rngs=rngs)

    def __call__(self, x):
        q, k, v = jnp.split(x @ self.qkv[...], 3, axis=-1)
        return self.down(jnp.tanh(self.up(x + self.out(jax.nn.softmax(q @ k.T) @ v))))


def quadratic(model):
    return jnp.mean((model(jnp.ones((3, 4))) - 1) ** 2)


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("given", ["model", "state", "abstract"])
def test_views_are_metadata_of_nnx(given):
    model = Attention(nnx.Rngs(0))
    state = nnx.state(nnx.eval_shape(lambda: Attention(nnx.Rngs(0))) if given == "abstract" else model)
    found = gradtx.flax.views(model if given == "model" else nnx.filter_state(state, nnx.Param))
    assert found == {"qkv": VIEW, "out/kernel": None}


@pytest.mark.wide
def test_a_model_of_nnx_is_trained_by_its_views():
    """Each third of the kernel is made orthogonal by itself, and what is said to be no matrix is AdamW's."""
    one, other = Attention(nnx.Rngs(0)), Attention(nnx.Rngs(0))
    written = {"qkv": VIEW, "out/kernel": None}
    states = []
    for model, views in ((one, gradtx.flax.views(one)), (other, written)):
        before = model.qkv[...]
        tx = gradtx.muon(0.1, muon_weight_dimension_numbers=views)
        optimizer = gradtx.flax.Optimizer(model, tx, wrt=nnx.Param)
        optimizer.update(model, nnx.grad(quadratic)(model))
        states.append(nnx.state(model, nnx.Param))
        assert not jnp.array_equal(model.qkv[...], before)
        slots = optimizer.opt_state["slots"]
        assert "matrices.scale_by_muon" in slots
    jax.tree.map(np.testing.assert_array_equal, *states)
    for third in jnp.split(one.qkv[...] - Attention(nnx.Rngs(0)).qkv[...], 3, axis=1):
        sizes = jnp.linalg.svd(third, compute_uv=False)
        assert sizes.max() < 0.1 * 1.3


def stacked(axis):
    @nnx.vmap(in_axes=0, out_axes=axis)
    def make(key):
        return Attention(nnx.Rngs(key))

    return make(jax.random.split(jax.random.key(0), 5))


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("axis, letters", [(0, "brc"), (1, "rbc")])
def test_views_of_layers_that_nnx_has_stacked(axis, letters):
    layers = stacked(axis) if axis == 0 else {"qkv": nnx.Param(jnp.ones((4, 5, 12)), matrix_view=VIEW)}
    tree = nnx.state(layers, nnx.Param) if axis == 0 else layers
    found = gradtx.flax.views(tree, layers=axis)
    assert found["qkv"] == gradtx.matrix_view(letters, column_blocks=3)
    with pytest.raises(ValueError, match=r"leaf 'qkv' of shape .* has more axes than its view .*layers=0"):
        gradtx.flax.views(tree)


def test_a_view_of_nnx_that_is_none_is_an_error():
    with pytest.raises(TypeError, match="the leaf 'kernel' has matrix_view='rc', which is no view"):
        gradtx.flax.views({"kernel": nnx.Param(jnp.ones((2, 2)), matrix_view="rc")})


def by_names(path, names):
    """Of what is called after where it leads; a vector says nothing."""
    letters = {"embed": "r", "mlp": "c", "layers": "b"}
    known = "".join(letters[name] for name in names)
    return gradtx.matrix_view(known) if {"r", "c"} <= {*known} else None


class Block(linen.Module):
    """A layer with a view, a view around names, names alone, and neither."""

    @linen.compact
    def __call__(self, x, _):
        init = linen.initializers.lecun_normal()
        named = linen.with_partitioning(init, ("embed", "mlp"))
        wide = linen.Dense(12, kernel_init=gradtx.flax.with_matrix_view(init, VIEW), name="qkv")(x)
        wide = linen.Dense(4, kernel_init=gradtx.flax.with_matrix_view(named, VIEW), name="both")(wide)
        wide = linen.Dense(6, kernel_init=named, name="named")(wide)
        return x + linen.Dense(4, name="plain")(jnp.tanh(wide)), None


class Scanned(linen.Module):
    """Three of them."""

    axis: int = 0

    @linen.compact
    def __call__(self, x):
        layers = linen.scan(
            Block,
            variable_axes={"params": self.axis},
            split_rngs={"params": True},
            length=3,
            metadata_params={linen.PARTITION_NAME: "layers"},
        )
        return layers(name="layers")(x, None)[0]


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("axis, letters", [(0, "brc"), (1, "rbc"), (-1, "rcb")])
def test_views_of_a_scanned_model_of_linen(axis, letters):
    x = jnp.ones((2, 4))
    boxed = jax.eval_shape(Scanned(axis).init, jax.random.key(0), x)["params"]
    thirds = gradtx.matrix_view(letters, column_blocks=3)
    assert gradtx.flax.views(boxed) == {"layers/qkv/kernel": thirds, "layers/both/kernel": thirds}


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("kept_in_boxes", [False, True])
def test_a_scanned_model_of_linen_is_trained_by_its_views(kept_in_boxes):
    x, model = jnp.ones((2, 4)), Scanned()
    boxed = model.init(jax.random.key(0), x)["params"]
    views = gradtx.flax.views(boxed, of_names=by_names)
    assert views == {
        "layers/qkv/kernel": gradtx.matrix_view("brc", column_blocks=3),
        "layers/both/kernel": gradtx.matrix_view("brc", column_blocks=3),
        "layers/named/kernel": gradtx.matrix_view("brc"),
    }
    views["layers/both/kernel"] = gradtx.matrix_view("brc")  # of 4 columns there are no thirds
    params = boxed if kept_in_boxes else linen.unbox(boxed)
    tx = gradtx.soap(0.1, views=views)
    state = gradtx.flax.TrainState.create(apply_fn=model.apply, params=params, tx=tx)
    table = str(gradtx.routing(tx, params))
    assert "layers/qkv/kernel    (3, 4, 12)" in table and "brc, columns 3  soap" in table

    @jax.jit
    def step(state):
        def loss(params):
            return jnp.mean((state.apply_fn({"params": params}, x) - 1) ** 2)

        value, grads = jax.value_and_grad(loss)(state.params)
        return state.apply_gradients(grads=grads), value

    values = []
    for _ in range(8):
        state, value = step(state)
        values.append(float(value))
    assert values[-1] < values[0]
    assert jax.tree.structure(state.params) == jax.tree.structure(params)


def test_a_box_of_linen_keeps_what_is_inside():
    named = linen.with_partitioning(linen.initializers.ones, ("embed", "mlp"))
    box = gradtx.flax.with_matrix_view(named, VIEW)(jax.random.key(0), (4, 12))
    spec = jax.sharding.PartitionSpec("embed", "mlp")
    assert linen.get_partition_spec({"kernel": box}) == {"kernel": spec}
    assert linen.unbox(box).shape == (4, 12)
    params = {linen.PARTITION_NAME: "layers"}
    for axis in (0, 1, 2):
        more = box.add_axis(axis, params)
        assert len(more.view.axes) == 3 and len(more.value.names) == 3
        assert jax.tree.structure(more.remove_axis(axis, params)) == jax.tree.structure(box)
    assert box.replace_boxed(0).value == 0
    metadata = box.to_nnx_metadata()
    assert metadata["matrix_view"] == VIEW
    plain = gradtx.flax.with_matrix_view(linen.initializers.ones, None)(jax.random.key(0), (4,))
    assert plain.add_axis(0, params).view is None and plain.remove_axis(0, params).view is None
    assert gradtx.flax.views({"bias": plain}) == {"bias": None}


def attended(q, k, v):
    """The output of an attention, and the largest logit of each head."""
    logits = jnp.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5
    return jnp.einsum("hqk,khd->qhd", jax.nn.softmax(logits), v), logits.max(axis=(1, 2))


class SownInLinen(linen.Module):
    """A layer of attention that sows its largest logits."""

    @linen.compact
    def __call__(self, x, _):
        q, k, v = (linen.DenseGeneral((2, 3), name=name)(x) for name in ("query", "key", "value"))
        out, largest = attended(4 * q, k, v)
        self.sow("intermediates", "max_logits", largest)
        return x + linen.DenseGeneral(4, axis=(-2, -1), name="out")(out), None


HEADS = {"*query/kernel": "query", "*query/bias": gradtx.heads("query", "hd")}
HEADS |= {"*key/kernel": "key", "*key/bias": gradtx.heads("key", "hd")}
SCANNED_HEADS = {
    f"*{role}/{leaf}": gradtx.heads(role, axes)
    for role in ("query", "key")
    for leaf, axes in (("kernel", "bihd"), ("bias", "bhd"))
}
TOKENS = jnp.linspace(-2.0, 2.0, 12).reshape(3, 4)


@pytest.mark.wide
def test_the_logits_that_a_scanned_model_of_linen_has_sown_are_bounded():
    axes = {"params": 0, "intermediates": 0}
    model = linen.scan(SownInLinen, variable_axes=axes, split_rngs={"params": True}, length=3)()
    params = model.init(jax.random.key(0), TOKENS, None)["params"]
    tau = 1e-2
    tx = gradtx.chain(gradtx.sgd(0.0), gradtx.qk_clip(SCANNED_HEADS, tau))
    state = gradtx.flax.TrainState.create(apply_fn=model.apply, params=params, tx=tx)

    def loss(params):
        (out, _), sown = state.apply_fn({"params": params}, TOKENS, None, mutable=["intermediates"])
        return jnp.mean(out**2), sown["intermediates"]

    def largest(params):
        return loss(params)[1]["max_logits"][0]

    grads, sown = jax.grad(loss, has_aux=True)(params)
    assert sown["max_logits"][0].shape == (3, 2)
    after = state.apply_gradients(grads=grads, max_logits=sown)
    # The input of a layer is what those before it give, so that the first alone is scaled exactly.
    before = largest(params)[0]
    assert before.max() > tau
    expected = jnp.where(before > tau, tau, before)
    np.testing.assert_allclose(largest(after.params)[0], expected, rtol=1e-5)


class SownInNnx(nnx.Module):
    """The same for NNX."""

    def __init__(self, rngs):
        for name in ("query", "key", "value"):
            setattr(self, name, nnx.LinearGeneral(4, (2, 3), rngs=rngs))

    def __call__(self, x):
        out, largest = attended(4 * self.query(x), self.key(x), self.value(x))
        self.sow(nnx.Intermediate, "max_logits", largest)
        return out


@pytest.mark.wide
@pytest.mark.filterwarnings("ignore:Using 'Module.sow:DeprecationWarning")  # in new versions of Flax
def test_the_logits_that_a_model_of_nnx_has_sown_are_bounded():
    model = SownInNnx(nnx.Rngs(0))
    tau = 1e-2
    tx = gradtx.chain(gradtx.sgd(0.0), gradtx.qk_clip(HEADS, tau))
    optimizer = gradtx.flax.Optimizer(model, tx, wrt=nnx.Param)

    def loss(model):
        return jnp.mean(model(TOKENS) ** 2)

    found = []
    for _ in range(2):
        grads = nnx.grad(loss)(model)
        sown = nnx.pop(model, nnx.Intermediate)
        found.append(jax.tree.leaves(sown)[0])
        optimizer.update(model, grads, max_logits=sown)
    assert found[0].max() > tau
    np.testing.assert_allclose(found[1], jnp.where(found[0] > tau, tau, found[0]), rtol=1e-5)
