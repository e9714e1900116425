"""How a state is sharded, as `state_sharding` says it before there is one."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

import gradtx
import gradtx.flax
from catalogue import ENTRIES
from rotation import one_of

DEVICES = np.array(jax.devices()[:8])
MESHES = {
    f"{len(form)}-D {kind.name}": Mesh(DEVICES.reshape(form), axes, axis_types=(kind,) * len(form))
    for form, axes in (((8,), ("data",)), ((4, 2), ("data", "model")))
    for kind in (AxisType.Auto, AxisType.Explicit)
}
MESH = MESHES["2-D Auto"]
SHAPES = {"bias": (128,), "kernel": (128, 64), "layers": {"kernel": (4, 64, 128)}, "scale": ()}
AXES = {"bias": "m", "kernel": "dm", "layers": {"kernel": "-md"}, "scale": ""}
"""Along which axis of a mesh each axis of a leaf is sharded: its first or its last one, or none."""

# For each eighth entry one mesh, and with --full for each all.
EACH = [
    pytest.param(entry, mesh, marks=() if i % 8 == 0 and (i // 8 - j) % 4 == 0 else pytest.mark.full)
    for i, entry in enumerate(ENTRIES)
    for j, mesh in enumerate(MESHES)
]


@pytest.fixture(autouse=True)
def promotion():
    """Optax does not run under strict promotion."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def spec(letters, mesh):
    names = {"d": mesh.axis_names[0], "m": mesh.axis_names[-1] if len(mesh.axis_names) > 1 else None}
    return PartitionSpec(*(names.get(letter) for letter in letters))


def specs(mesh):
    return jax.tree.map(lambda letters: spec(letters, mesh), AXES)


def shapes(mesh, factor=1):
    """Abstract parameters on a mesh; the sides of matrices may be larger."""

    def shape(sizes, letters):
        sizes = tuple(n if letter == "-" else n * factor for n, letter in zip(sizes, letters, strict=True))
        return jax.ShapeDtypeStruct(sizes, jnp.float32, sharding=NamedSharding(mesh, spec(letters, mesh)))

    return jax.tree.map(shape, SHAPES, AXES, is_leaf=lambda x: isinstance(x, tuple))


def arrays(mesh):
    """The same with values."""
    return jax.tree.map(
        lambda x: jax.device_put(
            np.linspace(0.5, 1.0, x.size, dtype=np.float32).reshape(x.shape), x.sharding
        ),
        shapes(mesh),
    )


PARAMS = {name: arrays(mesh) for name, mesh in MESHES.items()}


def shardings_of(tree):
    return jax.tree.map(lambda x: x.sharding, tree)


def compiled(tx, params, shardings):
    return jax.jit(tx.init, out_shardings=shardings).lower(params).compile()


COLLECTIVE = r"\b(all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)"


@pytest.mark.by_turns(6)
@pytest.mark.parametrize("entry, mesh", EACH)
def test_they_are_those_that_init_gives(entry, mesh):
    tx = ENTRIES[entry].transform()
    state = tx.init(PARAMS[mesh])
    said = gradtx.state_sharding(tx, PARAMS[mesh])
    assert said == shardings_of(state)
    abstract = tx.init(shapes(MESHES[mesh]))
    assert said == shardings_of(abstract)
    assert all(x.committed for x in jax.tree.leaves(state))


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("entry, mesh", EACH)
def test_a_state_is_made_in_shards(entry, mesh):
    """No device talks to another one, and none has more in memory than its own part at any time."""
    tx = ENTRIES[entry].transform()
    said = gradtx.state_sharding(tx, PARAMS[mesh])
    program = compiled(tx, PARAMS[mesh], said)
    assert not re.search(COLLECTIVE, program.as_text())
    state = program(PARAMS[mesh])
    assert shardings_of(state) == said
    every = jax.tree.leaves(state)
    own = sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in every)
    memory = program.memory_analysis()
    # What a program gives is a table of addresses too; a tenth of the smallest matrix is 3 kB.
    assert own <= memory.output_size_in_bytes <= own + 64 * len(every)
    assert memory.temp_size_in_bytes < 3_000


def test_what_is_replicated_first_is_seen():
    """The check above finds what it looks for."""
    tx = gradtx.ema_params(gradtx.sgd(0.1), 0.9)
    params = PARAMS["2-D Auto"]
    whole = jax.tree.map(lambda s: NamedSharding(MESH, PartitionSpec()), gradtx.state_sharding(tx, params))
    assert re.search(COLLECTIVE, compiled(tx, params, whole).as_text())


STEPS = {
    "adafactor": gradtx.adafactor(0.1),
    "muon": gradtx.muon(0.1, muon_weight_dimension_numbers={"layers/*": gradtx.matrix_view("brc")}),
    "averages": gradtx.ema_params(gradtx.adam(0.1), 0.9),
    "foreign": gradtx.chain(optax.scale_by_adam(), gradtx.accumulate(optax.sgd(0.1, momentum=0.9), 2)),
    "Optax's": optax.adamw(0.1),
}


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("mesh", ["2-D Auto", "2-D Explicit"])
def test_a_step_is_compiled_once(name, mesh):
    tx, params = STEPS[name], PARAMS[mesh]
    said = gradtx.state_sharding(tx, params)
    state = jax.jit(tx.init, out_shardings=said)(params)
    step = jax.jit(lambda g, s, p: tx.update(g, s, p))
    for _ in range(2):
        _, state = step(params, state, params)
    assert step._cache_size() == 1
    assert shardings_of(state) == said


def test_the_form_is_that_of_what_a_compiled_step_gives():
    """Where types say how arrays are sharded, each axis has its part: others compile again."""
    mesh, tx = MESHES["2-D Explicit"], gradtx.ema_params(gradtx.adafactor(0.1, min_dim_size_to_factor=2), 0.9)
    short = NamedSharding(mesh, PartitionSpec("data"))
    params = {"w": jax.device_put(jnp.ones((8, 4)), short), "free": jnp.ones((4, 4))}
    said = gradtx.state_sharding(tx, params)
    assert said == shardings_of(tx.init(params))
    slots = said["slots"]
    assert slots["ema_params"]["eval_params"]["w"].spec == PartitionSpec("data", None)
    assert slots["ema_params"]["eval_params"]["free"].spec == PartitionSpec(None, None)
    assert slots["scale_by_factored_rms"]["v_row"]["free"].spec == PartitionSpec(None)


def equations(jaxpr):
    """What a traced function computes, also inside of the functions that it calls."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def largest(init, params):
    """The size in bytes of the largest array that an `init` makes, and the state."""
    made = []
    traced = jax.make_jaxpr(lambda: made.append(init(params)))()
    results = [v.aval for e in equations(traced.jaxpr) for v in e.outvars]
    constants = [jax.typeof(x) for x in traced.consts]
    return max((math.prod(x.shape) * x.dtype.itemsize for x in [*results, *constants]), default=0), made[0]


HUGE = {
    kind: AbstractMesh((64, 64), ("data", "model"), axis_types=(kind,) * 2)
    for kind in AxisType
    if kind != AxisType.Manual
}


@pytest.mark.by_turns(6)
@pytest.mark.parametrize("entry", one_of(20, ENTRIES))
@pytest.mark.parametrize("kind", HUGE, ids=lambda kind: kind.name)
def test_a_state_of_shapes_is_of_shapes_and_nothing_is_made(kind, entry):
    """On 4,096 devices, with leaves of terabytes."""
    tx, params = ENTRIES[entry].transform(), shapes(HUGE[kind], 2**13)
    size, state = largest(tx.init, params)
    assert size <= 1_000
    assert {type(x) for x in jax.tree.leaves(state)} == {jax.ShapeDtypeStruct}
    assert all(isinstance(s, NamedSharding) for s in jax.tree.leaves(shardings_of(state)))


FOREIGN = {
    "chain": gradtx.chain(optax.adam(0.1), gradtx.scale(0.5)),
    "mask": gradtx.masked(optax.adam(0.1), "*kernel"),
    "groups": gradtx.partition({"a": optax.sgd(0.1, 0.9), "b": gradtx.adam(0.1)}, {"*kernel": "a", "*": "b"}),
    "wrapper": gradtx.accumulate(optax.adam(0.1), 2),
    "vectors": gradtx.flatten(optax.adam(0.1)),
    "injected": gradtx.inject_hyperparams(lambda rate: optax.adam(rate))(rate=0.1),
    "two functions": gradtx.GradientTransformation(
        lambda params: {"like": jax.tree.map(lambda p: jnp.zeros(p.shape), params), "count": jnp.zeros(3)},
        lambda updates, state, params=None: (updates, state),
    ),
}


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("mesh", ["2-D Auto", "2-D Explicit"])
def test_another_librarys_state_inside_of_ours(mesh, name):
    tx, params = FOREIGN[name], PARAMS[mesh]
    said = gradtx.state_sharding(tx, params)
    state = tx.init(params)
    assert said == shardings_of(state)
    assert not re.search(COLLECTIVE, compiled(tx, params, said).as_text())
    size, abstract = largest(tx.init, shapes(HUGE[AxisType.Auto], 2**13))
    assert size <= 1_000
    assert jax.tree.structure(abstract) == jax.tree.structure(state)
    assert {type(x) for x in jax.tree.leaves(abstract)} == {jax.ShapeDtypeStruct}


def test_what_makes_arrays_of_shapes_is_seen():
    """The check above finds what it looks for."""
    assert largest(optax.adam(0.1).init, shapes(HUGE[AxisType.Auto], 2**13))[0] > 2**40


OPTAX = {
    "adamw": (optax.adamw(0.1), (2, 2)),
    "momentum": (optax.sgd(optax.linear_schedule(0.1, 0.0, 3), momentum=0.9), (1, 1)),
    "adafactor": (optax.adafactor(0.1, momentum=0.9), (2, 2)),
    "novograd": (optax.novograd(0.1), (1, 1)),
    "masked": (optax.masked(optax.adam(0.1), {**jax.tree.map(bool, AXES), "bias": False}), (2, 2)),
    "groups": (
        optax.multi_transform(
            {"a": optax.adam(0.1), "b": optax.sgd(0.1)},
            {"bias": "b", "kernel": "a", "layers": "b", "scale": "a"},
        ),
        (2, 0),
    ),
    "MultiSteps": (optax.MultiSteps(optax.adam(0.1), 2), (3, 3)),
    "inject_hyperparams": (optax.inject_hyperparams(optax.adam)(0.1), (2, 2)),
    "muon": (optax.contrib.muon(0.1), (1, 2)),
    "noise": (optax.chain(optax.add_noise(0.1, 0.5, 0), optax.ema(0.9)), (1, 1)),
}


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("name", OPTAX)
def test_a_state_of_optax(name):
    """Each array that is like a kernel is sharded as the kernel, and all else is replicated."""
    (tx, copies), params = OPTAX[name], PARAMS["2-D Auto"]
    said = gradtx.state_sharding(tx, params)
    assert jax.tree.structure(said) == jax.tree.structure(jax.eval_shape(tx.init, params))
    found = [s.spec for s in jax.tree.leaves(said)]
    assert tuple(found.count(spec(letters, MESH)) for letters in ("dm", "-md")) == copies
    assert not re.search(COLLECTIVE, compiled(tx, params, said).as_text())


def test_leaves_of_one_name_and_several_shapes():
    """The whole path of a parameter counts, and its shape."""
    mesh, other = NamedSharding(MESH, PartitionSpec("data")), NamedSharding(MESH, PartitionSpec("model"))
    params = {
        "w": jax.ShapeDtypeStruct((8,), jnp.float32, sharding=mesh),
        "inner": {"w": jax.ShapeDtypeStruct((8,), jnp.float32, sharding=other)},
    }
    assert gradtx.state_sharding(optax.trace(0.9), params).trace == {"w": mesh, "inner": {"w": other}}
    assert gradtx.state_sharding(optax.ema(0.9), params["w"]).ema == mesh


SPECS = {
    "shapes": lambda: jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), shapes(MESH)),
    "arrays": lambda: jax.tree.map(lambda x: jnp.ones(x.shape), shapes(MESH)),
    "numpy": lambda: jax.tree.map(lambda x: np.ones(x.shape, np.float32), shapes(MESH)),
    "arrays elsewhere": lambda: PARAMS["1-D Auto"],
}


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("mesh", [MESH, MESH.abstract_mesh], ids=["mesh", "abstract mesh"])
def test_specs_beside_the_parameters(mesh, name):
    tx = gradtx.adafactor(0.1)
    said = gradtx.state_sharding(tx, SPECS[name](), specs(MESH), mesh)
    expected = gradtx.state_sharding(tx, shapes(mesh))
    assert jax.tree.map(lambda s: (s.mesh, s.spec), said) == jax.tree.map(
        lambda s: (s.mesh, s.spec), expected
    )


def test_an_abstract_mesh_is_enough_where_jit_knows_the_devices():
    tx = gradtx.adamw(0.1)
    said = gradtx.state_sharding(tx, SPECS["shapes"](), specs(MESH), MESH.abstract_mesh)
    with jax.set_mesh(MESH):
        state = jax.jit(tx.init, out_shardings=said)(PARAMS["2-D Auto"])
    assert shardings_of(state) == gradtx.state_sharding(tx, PARAMS["2-D Auto"])


def test_parameters_that_are_whole_have_a_state_in_shards():
    """The specs go before what the parameters have; a prefix does, and None keeps it."""
    tx, whole = gradtx.adam(0.1), NamedSharding(MESH, PartitionSpec())
    params = jax.tree.map(lambda x: jax.device_put(x, whole), arrays(MESH))
    said = {
        "bias": None,
        "kernel": PartitionSpec("data"),
        "layers": PartitionSpec(None, "model"),
        "scale": None,
    }
    mu = gradtx.state_sharding(tx, params, said)["slots"]["scale_by_adam"]["mu"]
    assert jax.tree.map(lambda s: s.spec, mu) == {
        **said,
        "bias": whole.spec,
        "layers": {"kernel": said["layers"]},
        "scale": whole.spec,
    }
    assert gradtx.state_sharding(tx, params, NamedSharding(MESH, PartitionSpec()))["step"] == whole


def test_what_has_no_sharding_is_free_or_replicated():
    params = {"a": jnp.ones(8), "b": None, "c": 1.0}
    tx = gradtx.adam(0.1)
    free = gradtx.state_sharding(tx, params)
    assert jax.tree.leaves(free) == []
    state = jax.jit(tx.init, out_shardings=free)(params)
    assert jax.tree.structure(state) == jax.tree.structure(tx.init(params))
    on_mesh = gradtx.state_sharding(tx, params, mesh=MESH)
    assert {s.spec for s in jax.tree.leaves(on_mesh)} == {PartitionSpec()}
    beside = {**params, "d": PARAMS["2-D Auto"]["kernel"]}
    said = gradtx.state_sharding(tx, beside)
    assert said == shardings_of(tx.init(beside))
    assert said["slots"]["scale_by_adam"]["mu"]["a"].spec == PartitionSpec()


def test_parameters_on_one_device():
    device = jax.devices()[3]
    params = jax.device_put({"w": jnp.ones((4, 4))}, device)
    said = gradtx.state_sharding(gradtx.adafactor(0.1), params)
    assert said == shardings_of(gradtx.adafactor(0.1).init(params))
    assert {*jax.tree.leaves(said)} == {SingleDeviceSharding(device)}


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("name", ["adafactor", "muon", "averages"])
def test_what_waits_in_the_memory_of_the_host_has_a_state_there(name, compiled):
    tx, params = STEPS[name], PARAMS["2-D Auto"]
    moved = jax.tree.map(lambda x: jax.device_put(x, x.sharding.with_memory_kind("pinned_host")), params)
    said = gradtx.state_sharding(tx, moved)
    assert {s.memory_kind for s in jax.tree.leaves(said)} == {"pinned_host"}
    init = jax.jit(tx.init, out_shardings=said) if compiled else tx.init
    assert shardings_of(init(moved)) == said == gradtx.state_sharding(tx, params, memory_kind="pinned_host")
    some = {**params, "bias": moved["bias"]}
    kinds = jax.tree.map(lambda s: s.memory_kind, gradtx.state_sharding(gradtx.adam(0.1), some))
    assert kinds["step"] == "device"
    assert kinds["slots"]["scale_by_adam"]["mu"]["bias"] == "pinned_host"


TWO = {
    "a": jax.ShapeDtypeStruct((8,), jnp.float32, sharding=NamedSharding(MESH, PartitionSpec("data"))),
    "b": jax.ShapeDtypeStruct((8,), jnp.float32, sharding=NamedSharding(MESHES["1-D Auto"], PartitionSpec())),
}
LEAVES = {"b": jax.ShapeDtypeStruct((6,), jnp.float32), "w": jax.ShapeDtypeStruct((16, 8), jnp.float32)}
BAD = {
    "an axis that the mesh has not": (
        (LEAVES, {"b": None, "w": PartitionSpec("batch")}, MESH),
        r"leaf 'w' of shape \(16, 8\) .* the mesh has no axis 'batch'. It has 'data', 'model'",
    ),
    "an axis twice": (
        (LEAVES, {"b": None, "w": PartitionSpec("data", "data")}, MESH),
        r"leaf 'w' of shape \(16, 8\) cannot be sharded as .*duplicate",
    ),
    "a spec that is too long": (
        (LEAVES, {"b": PartitionSpec("model", "data"), "w": None}, MESH),
        r"leaf 'b' of shape \(6,\) has fewer axes than .*Give one part for each axis, or fewer",
    ),
    "a spec that does not divide": (
        (LEAVES, {"b": PartitionSpec("data"), "w": None}, MESH),
        r"leaf 'b' of shape \(6,\) .* along 'data' .* do not divide its axis 0, of 6 elements. Shard another",
    ),
    "one of two axes that does not divide": (
        (LEAVES, {"b": PartitionSpec(("model", "data")), "w": None}, MESH),
        r"leaf 'b' of shape \(6,\) .* along \('model', 'data'\) .* do not divide its axis 0",
    ),
    "a sharding that does not divide": (
        (LEAVES, NamedSharding(MESH, PartitionSpec("data"))),
        r"leaf 'b' of shape \(6,\) .* do not divide its axis 0",
    ),
    "specs of another tree": (
        (LEAVES, {"w": PartitionSpec("data")}, MESH),
        r"specs has nothing for 'b'. Give a tree like the parameters, or a prefix",
    ),
    "a leaf too many": (
        (LEAVES, {"b": None, "w": None, "z": PartitionSpec()}, MESH),
        r"specs has 'z', which the parameters do not have",
    ),
    "a tuple": (
        (LEAVES, {"b": None, "w": ("data", "model")}, MESH),
        r"specs has 'w/0', .*PartitionSpec\('data', None\), and no tuple",
    ),
    "specs without a mesh": (
        (LEAVES, {"b": PartitionSpec("data"), "w": None}),
        r"leaf 'b' of shape \(6,\) .* without a mesh. Give it, as in state_sharding\(tx, params, mesh=me",
    ),
    "several meshes": ((TWO,), r"leaf 'b' of shape \(8,\) is on .* Put all parameters on one mesh"),
    "another mesh": (
        (TWO, {"a": None, "b": PartitionSpec()}, MESHES["2-D Explicit"]),
        r"leaf 'a' of shape \(8,\) is on .* one that was given, is .* or give specs for all",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_sharded_is_named(name):
    given, words = BAD[name]
    with pytest.raises(ValueError, match=f"state_sharding: .*{words}"):
        gradtx.state_sharding(gradtx.adam(0.1), *given)


def test_what_is_no_spec_or_no_transform_is_an_error():
    with pytest.raises(TypeError, match="specs has 'data' for the leaf 'b'"):
        gradtx.state_sharding(gradtx.adam(0.1), LEAVES, "data", MESH)
    with pytest.raises(TypeError, match="takes the transform first, then the parameters"):
        gradtx.state_sharding(LEAVES, gradtx.adam(0.1))
    with pytest.raises(ValueError, match="is on no device yet, so that memory_kind='pinned_host'"):
        gradtx.state_sharding(gradtx.adam(0.1), LEAVES, memory_kind="pinned_host")


def test_a_leaf_that_the_transform_refuses_is_named_by_it():
    with pytest.raises(TypeError, match=r"scale_by_adam: the leaf 'n' is int32\[3\], which has no gradient"):
        gradtx.state_sharding(gradtx.adam(0.1), {"n": np.arange(3, dtype=np.int32)}, mesh=MESH)


class Layer(linen.Module):
    """A layer whose kernel is in a box, and whose bias is not."""

    box: object

    @linen.compact
    def __call__(self, x):
        init = linen.initializers.ones
        return self.param("kernel", self.box(init), (16, 8)), self.param("bias", init, (8,))


def boxed(box):
    layer = Layer(box)
    return jax.eval_shape(layer.init, jax.random.key(0), jnp.ones((1, 16)))["params"]


def partitioned(init):
    return linen.with_partitioning(init, ("data", "model"))


def logical(init):
    return linen.with_logical_partitioning(init, ("embed", "mlp"))


BOXES = {
    "with_partitioning": (partitioned, ()),
    "a view around it": (
        lambda init: gradtx.flax.with_matrix_view(partitioned(init), gradtx.matrix_view("rc")),
        (),
    ),
    "a mesh in it": (lambda init: linen.with_partitioning(init, ("data", "model"), MESH), ()),
    "logical names": (logical, (("mlp", "model"), ("embed", "data"), ("heads", "data"))),
}


def by_name(slots):
    """The specs of slots in variables or boxes, by the names of those that are there."""
    return {k: x.spec for k, v in slots.items() for x in jax.tree.leaves(v)}


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("name", BOXES)
def test_boxes_of_linen(name):
    box, rules = BOXES[name]
    tx, params = gradtx.adafactor(0.1, min_dim_size_to_factor=2), boxed(box)
    with linen.logical_axis_rules(rules):
        said = gradtx.state_sharding(tx, params, mesh=None if name == "a mesh in it" else MESH)
    state = jax.jit(tx.init, out_shardings=said)(jax.tree.map(lambda x: jnp.ones(x.shape), params))
    slots = state["slots"]["scale_by_factored_rms"]
    assert by_name(shardings_of(slots["v_row"])) == {"kernel": PartitionSpec("model")}
    assert by_name(shardings_of(slots["v_col"])) == {"kernel": PartitionSpec("data")}
    assert by_name(shardings_of(slots["v"])) == {"bias": PartitionSpec()}
    if not rules:
        assert said == gradtx.state_sharding(tx, params, linen.get_partition_spec(params), MESH)


def test_logical_names_need_rules():
    with pytest.raises(
        ValueError, match=r"'kernel' .* no axis 'embed'.*logical_axis_rules\(\[\('embed', 'data'\)"
    ):
        gradtx.state_sharding(gradtx.adam(0.1), boxed(logical), mesh=MESH)


def linear(**metadata):
    names = {"out_sharding": ("data", "model"), **metadata}
    bias = {"out_sharding": ("model",)}
    return nnx.Linear(16, 8, rngs=nnx.Rngs(0), kernel_metadata=names, bias_metadata=bias)


def of_nnx(make):
    return nnx.state(nnx.eval_shape(make), nnx.Param)


def test_variables_of_nnx():
    """Variables that say how they are sharded, and are not."""
    tx = gradtx.adam(0.1)
    params = nnx.State(
        {
            "kernel": nnx.Param(
                np.ones((16, 8), np.float32), out_sharding=("data", "model"), eager_sharding=False
            ),
            "bias": nnx.Param(np.ones(8, np.float32)),
        }
    )
    said = gradtx.state_sharding(tx, params, mesh=MESH)
    assert by_name(said["slots"]["scale_by_adam"]["mu"]) == {
        "kernel": PartitionSpec("data", "model"),
        "bias": PartitionSpec(),
    }
    state = jax.jit(tx.init, out_shardings=said)(params)
    assert shardings_of(state) == said


@pytest.fixture
def on_mesh():
    with jax.set_mesh(MESH):
        yield


@pytest.mark.wide
@pytest.mark.usefixtures("on_mesh")
def test_variables_that_flax_shards():
    tx = gradtx.adafactor(0.1, min_dim_size_to_factor=2)
    real = nnx.state(linear(), nnx.Param)
    said = gradtx.state_sharding(tx, real)
    assert said == shardings_of(tx.init(real))
    assert said == gradtx.state_sharding(tx, of_nnx(linear), mesh=MESH)
    assert said == shardings_of(jax.jit(tx.init, out_shardings=said)(real))
    assert by_name(said["slots"]["scale_by_factored_rms"]["v"]) == {"bias": PartitionSpec("model")}


@pytest.mark.wide
@pytest.mark.usefixtures("on_mesh")
def test_a_sharding_of_the_optimizer_alone():
    """The parameters are whole, and what is remembered of them is not."""
    whole = linear(out_sharding=(None, None), optimizer_sharding=("data", "model"))
    for params in (nnx.state(whole, nnx.Param), of_nnx(lambda: whole)):
        said = gradtx.state_sharding(gradtx.adam(0.1), params, mesh=MESH)
        assert by_name(said["slots"]["scale_by_adam"]["mu"])["kernel"] == PartitionSpec("data", "model")


@pytest.mark.by_turns(1)
@pytest.mark.usefixtures("on_mesh")
@pytest.mark.parametrize("made", ["eagerly", "compiled"])
@pytest.mark.parametrize("key", ["out_sharding", "optimizer_sharding"])
def test_an_nnx_optimizer_of_a_sharded_model(key, made):
    """A slot of another shape has the names of its own axes, where Flax would take those of the parameter."""
    tx = gradtx.chain(gradtx.adafactor(0.1, min_dim_size_to_factor=2), gradtx.ema(0.9))

    def make():
        model = linear(**{"out_sharding": (None, None), key: ("data", "model")})
        return model, gradtx.flax.Optimizer(model, tx, wrt=nnx.Param)

    model, optimizer = (nnx.jit(make) if made == "compiled" else make)()
    slots = nnx.to_pure_dict(nnx.state(optimizer.opt_state))["slots"]
    rows, columns = (slots["scale_by_factored_rms"][k]["kernel"] for k in ("v_row", "v_col"))
    assert (rows.sharding.spec, columns.sharding.spec) == (PartitionSpec("model"), PartitionSpec("data"))
    assert slots["ema"]["ema"]["kernel"].sharding.spec == PartitionSpec("data", "model")
    grads = nnx.grad(lambda m: m(jnp.ones((2, 16))).sum())(model)
    optimizer.update(model, grads)
    assert gradtx.step_count(optimizer) == 1
