"""State that is sharded over the devices that share a batch: the same numbers, and what moves is counted."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import gradtx
from compiled_exchanges import exchanges

DEVICES = np.array(jax.devices()[:8])
SHAPES = {"up": (64, 128), "down": (128, 32), "wide": (8, 1024), "odd": (33, 35), "bias": (32,)}


def mesh_of(kind, **axes):
    return Mesh(DEVICES.reshape(*axes.values()), tuple(axes), axis_types=(kind,) * len(axes))


def filled(seed=0):
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.normal(size=s) * 0.1, jnp.float32) for k, s in SHAPES.items()}


def placed(tree, mesh, specs=None):
    """Parameters on a mesh, in the form in which a compiled step gives them back."""

    def spec(name, x):
        parts = [*(specs or {}).get(name, PartitionSpec())]
        if AxisType.Explicit in mesh.axis_types:
            return PartitionSpec(*parts, *[None] * (x.ndim - len(parts)))
        while parts and parts[-1] is None:
            parts.pop()
        return PartitionSpec(*parts)

    return {k: jax.device_put(x, NamedSharding(mesh, spec(k, x))) for k, x in tree.items()}


def loss(params, x):
    hidden = jnp.tanh(x @ params["up"])
    out = hidden @ params["down"] + params["bias"][None]
    rest = jnp.sum(params["wide"] ** 2) + jnp.sum(params["odd"] ** 2)
    return jnp.mean(out**2) + 0.01 * rest


def shardings(tree):
    return jax.tree.map(lambda x: x.sharding, tree)


def step_of(tx):
    def step(params, state, x):
        return gradtx.apply_gradients(tx, jax.grad(loss)(params, x), state, params)

    return step


OPTIMIZERS = {
    "adamw": gradtx.adamw(1e-2, weight_decay=0.1),
    "clipped": gradtx.chain(gradtx.clip_by_global_norm(0.1), gradtx.adamw(1e-2)),
    "accumulated": gradtx.accumulate(gradtx.adamw(1e-2), 2),
    "guarded": gradtx.guard(gradtx.adamw(1e-2)),
    "adafactor": gradtx.adafactor(1e-2, min_dim_size_to_factor=16),
    "muon": gradtx.muon(1e-2, muon_weight_dimension_numbers={"bias": None, "*": gradtx.matrix_view("rc")}),
    "optax": gradtx.chain(optax.sgd(1e-2, momentum=0.9)),
}


EVERY = [(name, kind) for name in OPTIMIZERS for kind in (AxisType.Auto, AxisType.Explicit)]
IN_CI = [("adamw", AxisType.Auto), ("muon", AxisType.Auto), ("guarded", AxisType.Explicit)]


@pytest.mark.by_turns(2)
@pytest.mark.parametrize(
    ("name", "kind"),
    [pytest.param(*pair, marks=() if pair in IN_CI else pytest.mark.full) for pair in EVERY],
    ids=lambda value: getattr(value, "name", value),
)
def test_it_makes_the_same_numbers_and_stays_where_it_is(name, kind):
    mesh, inner = mesh_of(kind, data=8), OPTIMIZERS[name]
    tx = gradtx.shard_state(inner, mesh, "data")
    expected, state_alone = filled(), inner.init(filled())
    batches = [jnp.asarray(np.random.default_rng(i).normal(size=(16, 64)), jnp.float32) for i in range(6)]
    with jax.set_mesh(mesh):
        params = placed(filled(), mesh)
        state = tx.init(params)
        assert jax.tree.structure(state) == jax.tree.structure(state_alone)
        jitted = jax.jit(tx.init)(params)
        jax.tree.map(
            lambda a, b: np.testing.assert_equal(a.sharding.is_equivalent_to(b.sharding, a.ndim), True),
            state,
            jitted,
        )
        before, step = shardings(state), jax.jit(step_of(tx))
        alone = jax.jit(step_of(inner))
        for x in batches:
            expected, state_alone = alone(expected, state_alone, x)
            x = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data", None)))
            params, state = step(params, state, x)
        assert step._cache_size() == 1
        assert shardings(state) == before
        assert all(p.sharding.is_fully_replicated for p in params.values())
        for k, p in params.items():
            np.testing.assert_allclose(p, expected[k], rtol=1e-5, atol=2e-6)
        mu = next(
            x for path, x in jax.tree_util.tree_leaves_with_path(state) if "up" in str(path[-1]) and x.ndim
        )
        assert not mu.sharding.is_fully_replicated
        updates, after = tx.update(jax.grad(loss)(params, x), state, params)
        assert shardings(after) == before and updates["up"].sharding.is_fully_replicated


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=lambda kind: kind.name)
def test_gradients_are_summed_once_and_parameters_gathered_once(kind):
    """A CPU sums a gradient on every device and cuts it; elsewhere XLA makes a reduce-scatter of both."""
    mesh, shapes = mesh_of(kind, data=8), {"up": (512, 512), "down": (512, 256), "bias": (256,)}
    tx = gradtx.shard_state(gradtx.adamw(1e-3), mesh, "data")
    params = placed({k: jnp.ones(s) for k, s in shapes.items()}, mesh)

    def step(params, state, x):
        def loss(p):
            return jnp.mean((jnp.tanh(x @ p["up"]) @ p["down"] + p["bias"][None]) ** 2)

        return gradtx.apply_gradients(tx, jax.grad(loss)(params), state, params)

    with jax.set_mesh(mesh):
        x = jax.device_put(jnp.ones((16, 512)), NamedSharding(mesh, PartitionSpec("data", None)))
        state = tx.init(params)
        found = exchanges(jax.jit(step).lower(params, state, x).compile().as_text())
    size = sum(p.nbytes for p in params.values())
    summed = [n for kind, n in found if kind in ("all-reduce", "reduce-scatter")]
    gathered = [n for kind, n in found if kind == "all-gather"]
    assert len(summed) == 3 and sum(summed) == size
    assert len(gathered) == 2 and sum(gathered) <= 1.02 * size
    assert len(found) == 5
    leaves = jax.tree.leaves(state)
    on_one = sum(int(np.prod(x.sharding.shard_shape(x.shape))) * x.dtype.itemsize for x in leaves)
    assert on_one <= 1.02 * sum(x.nbytes for x in leaves) / 8


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=lambda kind: kind.name)
def test_a_step_of_fsdp_exchanges_nothing_and_a_clip_single_numbers(kind):
    mesh = mesh_of(kind, data=8)
    params = placed({k: jnp.ones((64, 32)) for k in "ab"}, mesh, dict.fromkeys("ab", PartitionSpec("data")))

    def compiled(tx):
        step = jax.jit(lambda g, s, p: gradtx.apply_gradients(tx, g, s, p))
        return step.lower(params, tx.init(params), params).compile().as_text()

    with jax.set_mesh(mesh):
        assert exchanges(compiled(gradtx.adamw(1e-3))) == []
        clipped = compiled(gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3)))
    assert {*exchanges(clipped)} == {("all-reduce", 4)}
    # One operation in each step, of a number for each leaf; another one where the norm may have overflowed.
    step = clipped[clipped.index("\nENTRY") :]
    assert step.count(" all-reduce(") + step.count(" all-reduce-start(") == 1


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=lambda kind: kind.name)
def test_what_is_sharded_otherwise_is_sharded_further(kind):
    mesh = mesh_of(kind, data=4, model=2)
    specs = {
        "up": PartitionSpec("model", None),
        "down": PartitionSpec(None, "data"),
        "wide": PartitionSpec(None, "model"),
        "odd": PartitionSpec(None, None),
        "bias": PartitionSpec(None),
    }
    tx = gradtx.shard_state(gradtx.adam(1e-2), mesh, "data", specs=specs)
    with jax.set_mesh(mesh):
        params = placed(filled(), mesh, specs)
        state = tx.init(params)
        mu = {k: x.sharding for k, x in state["slots"]["scale_by_adam"]["mu"].items()}
        wanted = {
            "up": PartitionSpec("model", "data"),
            "down": specs["down"],
            "wide": PartitionSpec("data", "model"),
            "odd": PartitionSpec(),
            "bias": PartitionSpec(),
        }
        for k, spec in wanted.items():
            assert mu[k].is_equivalent_to(NamedSharding(mesh, spec), len(SHAPES[k])), k
        before = shardings((params, state))
        step = jax.jit(step_of(tx))
        x = jnp.asarray(np.random.default_rng(0).normal(size=(16, 64)), jnp.float32)
        for _ in range(2):
            params, state = step(params, state, x)
        after = shardings((params, state))
        jax.tree.map(
            lambda x, a, b: np.testing.assert_(a.is_equivalent_to(b, x.ndim)), (params, state), before, after
        )
    alone = gradtx.adam(1e-2)
    expected, own = filled(), alone.init(filled())
    for _ in range(2):
        expected, own = jax.jit(step_of(alone))(expected, own, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), params, expected)


def test_it_says_what_stays_whole_and_prints_as_code():
    mesh = mesh_of(AxisType.Auto, data=8)
    tx = gradtx.shard_state(gradtx.adam(1e-2), mesh, "data", min_size=64)
    said = str(gradtx.describe(tx, filled()))
    assert "the state is in shards over 'data', of 8: a device keeps" in said
    assert "not sharded further, since they divide no axis of it: odd" in said
    assert "not sharded further, since it has fewer than 64 elements: bias" in said
    assert eval(repr(tx), {**vars(gradtx), "jax": jax}) == tx
    swapped = gradtx.shard_state(gradtx.adam(1e-2), mesh, "data")
    assert swapped != tx


MESH = mesh_of(AxisType.Auto, data=8)
TWO = mesh_of(AxisType.Auto, data=4, model=2)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (
            lambda: gradtx.shard_state(gradtx.sgd(0.1), "data", "data"),
            TypeError,
            "mesh must be a jax.sharding",
        ),
        (lambda: gradtx.shard_state(gradtx.sgd(0.1), MESH, 0), TypeError, "axis must be the name of an axis"),
        (
            lambda: gradtx.shard_state(gradtx.sgd(0.1), MESH, "dat"),
            ValueError,
            "no axis 'dat'. There are 'data'",
        ),
        (
            lambda: gradtx.chain(gradtx.shard_state(gradtx.sgd(0.1), MESH, "data")),
            ValueError,
            r"chain was given shard_state\(...\), which must be around the whole optimizer",
        ),
        (
            lambda: gradtx.shard_state(gradtx.adam(0.1), TWO, "data").init(placed(filled(), MESH)),
            ValueError,
            "the leaf 'bias' is on a mesh of 8 'data', and the state is to be on a mesh of 4 'data' x 2 'mod",
        ),
        (
            lambda: gradtx.shard_state(gradtx.adam(0.1), TWO, "data").init(
                placed(filled(), TWO, {"up": PartitionSpec("model")})
            ),
            ValueError,
            r"the leaf 'up' is sharded as P.*'model'.*and shard_state was told P.*specs=",
        ),
        (
            lambda: gradtx.shard_state(gradtx.adam(0.1), MESH, "data", specs={"*": "data"}).init(filled()),
            TypeError,
            "the spec of the leaf 'bias' must be a PartitionSpec, got 'data'",
        ),
        (
            lambda: gradtx.shard_state(
                gradtx.adam(0.1), TWO, "data", specs={"odd": PartitionSpec("model")}
            ).init(filled()),
            ValueError,
            r"the leaf 'odd' of shape \(33, 35\) cannot be sharded as P.*do not divide its axis 0, of 33",
        ),
        (
            lambda: gradtx.shard_state(
                gradtx.adam(0.1), TWO, "data", specs={"odd": PartitionSpec("modle")}
            ).init(filled()),
            ValueError,
            r"the leaf 'odd' .* the mesh has no axis 'modle'. It has 'data', 'model'",
        ),
        (
            lambda: gradtx.shard_state(
                gradtx.adam(0.1), TWO, "data", specs={"bias": PartitionSpec(None, "model")}
            ).init(filled()),
            ValueError,
            r"the leaf 'bias' of shape \(32,\) has fewer axes than P",
        ),
        (
            lambda: gradtx.shard_state(
                gradtx.adam(0.1), TWO, "data", specs={"up": PartitionSpec("model", "model")}
            ).init(filled()),
            ValueError,
            r"the leaf 'up' of shape \(64, 128\) cannot be sharded as P",
        ),
        (
            lambda: gradtx.shard_state(gradtx.sgd(0.1), TWO, ("data", "data")),
            ValueError,
            "axis has one axis of the mesh twice",
        ),
        (
            lambda: gradtx.shard_state(gradtx.adam(0.1), MESH, "data").update(
                {"up": jnp.ones((64, 128))}, gradtx.adam(0.1).init(filled()), filled()
            ),
            ValueError,
            "The params and the gradients are different trees",
        ),
        (
            lambda: jax.eval_shape(
                jax.shard_map(
                    lambda p: gradtx.shard_state(gradtx.adam(0.1), MESH, "data").init(p)["step"],
                    mesh=MESH,
                    in_specs=PartitionSpec(),
                    out_specs=PartitionSpec(),
                ),
                filled(),
            ),
            ValueError,
            "inside of jax.shard_map an array is a shard already",
        ),
    ],
)
def test_bad_input_is_an_error(make, error, words):
    with pytest.raises(error, match=words):
        make()
