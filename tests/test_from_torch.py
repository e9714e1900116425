"""A run of torch goes on in gradtx, and back: recorded state dicts, and dicts that do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gradtx
from golden import TORCH_CASES
from gradtx.core.engine.structure import Structure
from test_torch import TORCH, step
from trajectories import x64

HANDOVER = 50
NAMES = {"0": 0, "1": 1}


def made(case):
    name, kwargs = TORCH_CASES[case]
    return getattr(gradtx, name)(**kwargs)


def run(tx, params, state, first, last, dtype):
    """The parameters after each step from `first` on, and the state after `last` of them."""
    history = {}
    params = [jnp.asarray(p, dtype) for p in params]
    for i in range(first, last):
        grads = [jnp.asarray(g, dtype) for g in TORCH.grads_by_step[i]([np.asarray(p) for p in params])]
        params, state = step(Structure.of(tx), grads, state, params)
        history[i + 1] = [np.asarray(p) for p in params]
    return history, state


def at(case, number):
    return TORCH.trajectories[case][TORCH.steps.index(number)]


def as_narrow(state_dict):
    narrow = jax.tree.map(lambda x: np.float32(x) if isinstance(x, np.ndarray) else x, state_dict["state"])
    return {**state_dict, "state": narrow}


def tensors(case, dtype):
    return TORCH.state_dicts[case] if dtype == np.float64 else as_narrow(TORCH.state_dicts[case])


# SGD does not count its steps; where the first is not dampened, they matter.
STEP = {"sgd_dampening": HANDOVER}
BOUNDS = {np.float64: {"rtol": 1e-11, "atol": 1e-13}, np.float32: {"rtol": 3e-5, "atol": 3e-6}}


@pytest.mark.by_turns(2)
@pytest.mark.parametrize(
    "dtype", [np.float64, pytest.param(np.float32, marks=pytest.mark.full)], ids=["float64", "float32"]
)
@pytest.mark.parametrize("case", TORCH_CASES)
def test_a_run_goes_on_as_torchs_did(case, dtype):
    tx = made(case)
    with x64(dtype == np.float64):
        params = [jnp.asarray(p, dtype) for p in at(case, HANDOVER)]
        state = gradtx.from_torch_state_dict(tx, tensors(case, dtype), NAMES, params, step=STEP.get(case))
        history, _ = run(tx, params, state, HANDOVER, 100, dtype)
    for number in TORCH.steps:
        if number > HANDOVER:
            for actual, leaf in zip(history[number], at(case, number), strict=True):
                np.testing.assert_allclose(actual, leaf, **BOUNDS[dtype], err_msg=f"step {number}")


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("case", TORCH_CASES)
def test_the_way_back_gives_torchs_own_state_dict(case):
    tx, recorded = made(case), TORCH.state_dicts[case]
    with x64():
        params = [jnp.asarray(p) for p in TORCH.params]
        history, state = run(tx, params, tx.init(params), 0, HANDOVER, np.float64)
        empty = {**recorded, "state": {}}
        given = gradtx.to_torch_state_dict(tx, state, NAMES, history[HANDOVER], empty)
    assert given["param_groups"] == recorded["param_groups"]
    assert list(given["state"]) == list(recorded["state"])
    for key, entries in recorded["state"].items():
        assert set(given["state"][key]) == set(entries)
        assert all(isinstance(x, np.ndarray) for x in given["state"][key].values())
        for name, array in entries.items():
            new = given["state"][key][name]
            assert (new.dtype, new.shape) == (array.dtype, array.shape), name
            if name == "prev":
                new, array = np.sign(new), np.sign(array)  # Rprop looks at the sign alone
            np.testing.assert_allclose(new, array, rtol=1e-11, atol=1e-14, err_msg=name)


ADAM = {
    "lr": 1e-3,
    "betas": (0.9, 0.999),
    "eps": 1e-8,
    "weight_decay": 0,
    "amsgrad": False,
    "maximize": False,
}
ADAMW = {**ADAM, "weight_decay": 0.01, "decoupled_weight_decay": True}
SGD = {"lr": 0.1, "momentum": 0.9, "dampening": 0, "weight_decay": 0, "nesterov": False, "maximize": False}
RMSPROP = {"lr": 0.01, "momentum": 0.9, "alpha": 0.99, "eps": 1e-8, "centered": False, "weight_decay": 0}
ADAGRAD = {"lr": 0.01, "lr_decay": 0, "eps": 1e-10, "weight_decay": 0, "initial_accumulator_value": 0}
PARAMS = {"conv": {"kernel": jnp.ones((3, 3, 2, 4))}, "fc": {"bias": jnp.ones(5), "kernel": jnp.ones((4, 5))}}
SHAPES = {"conv.weight": (4, 2, 3, 3), "fc.bias": (5,), "fc.weight": (5, 4)}
AXES = {"conv/kernel": ("conv.weight", (2, 3, 1, 0)), "fc/kernel": ("fc.weight", (1, 0))}


class Tensor:
    """What is asked of a tensor on another device that is part of a graph."""

    def __init__(self, array):
        self.array = array

    def detach(self):
        return self

    def cpu(self):
        return self.array


def values(name, add=0.0):
    return (np.arange(np.prod(SHAPES[name])).reshape(SHAPES[name]) + add).astype(np.float32)


def adam_dict(options=ADAM, groups=None, **changes):
    """A state dict of Adam for a convolution and a linear layer, at step 50."""
    state = {
        i: {"step": np.float32(50), "exp_avg": Tensor(values(n)), "exp_avg_sq": values(n, 1)}
        for i, n in enumerate(SHAPES)
    }
    groups = groups or [{**options, "params": [0, 1, 2], "param_names": list(SHAPES)}]
    return {"state": state, "param_groups": groups, **changes}


def without(tree, *path):
    """A copy of a state dict with a part taken out."""
    if len(path) == 1:
        return {k: v for k, v in tree.items() if k != path[0]}
    return {**tree, path[0]: without(tree[path[0]], *path[1:])}


def test_transposed_layouts_tensors_and_names():
    state = gradtx.from_torch_state_dict(gradtx.adam(1e-3), adam_dict(), AXES, PARAMS)
    mu = state["slots"]["scale_by_adam"]["mu"]
    assert gradtx.step_count(state) == 50
    np.testing.assert_array_equal(mu["conv"]["kernel"], values("conv.weight").transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(mu["fc"]["kernel"], values("fc.weight").T)
    np.testing.assert_array_equal(mu["fc"]["bias"], values("fc.bias"))
    back = gradtx.to_torch_state_dict(gradtx.adam(1e-3), state, AXES, PARAMS, adam_dict())
    for i, name in enumerate(SHAPES):
        np.testing.assert_array_equal(back["state"][i]["exp_avg_sq"], values(name, 1))
    assert kinds(state) == kinds(gradtx.adam(1e-3).init(PARAMS))


def kinds(state):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), state)


def test_names_may_come_from_the_model_or_be_indices():
    unnamed = without(adam_dict(), "param_groups") | {"param_groups": [{**ADAM, "params": [0, 1, 2]}]}
    tx = gradtx.adam(1e-3)
    wanted = gradtx.from_torch_state_dict(tx, adam_dict(), AXES, PARAMS)
    pairs = ((name, object()) for name in SHAPES)
    indices = {"conv/kernel": (0, (2, 3, 1, 0)), "fc/bias": 1, "fc/kernel": (2, (1, 0))}
    for names, order in ((AXES, pairs), (AXES, list(SHAPES)), (indices, None)):
        state = gradtx.from_torch_state_dict(tx, unnamed, names, PARAMS, order=order)
        jax.tree.map(np.testing.assert_array_equal, state, wanted)
    with pytest.raises(
        ValueError, match=r"has no names, only indices. Pass order=model.named_parameters\(\)"
    ):
        gradtx.from_torch_state_dict(tx, unnamed, AXES, PARAMS)


def two_groups(first, second, **more):
    groups = [{**first, "params": [0, 2], **more}, {**second, "params": [1], **more}]
    return adam_dict(groups=groups)


def test_groups_are_those_of_a_partition_or_a_mask():
    state_dict = two_groups(ADAMW, {**ADAMW, "weight_decay": 0.0})
    order = [["conv.weight", "fc.weight"], ["fc.bias"]]
    decayed, plain = gradtx.adamw(1e-3, weight_decay=0.01), gradtx.adamw(1e-3, weight_decay=0.0)
    by_mask = gradtx.adamw(1e-3, weight_decay=0.01, mask="!*bias")
    by_group = gradtx.partition({"d": decayed, "n": plain}, {"*bias": "n", "*": "d"})
    clipped = gradtx.chain(gradtx.clip_by_global_norm(1.0), by_mask)
    for tx in (by_mask, by_group, clipped):
        state = gradtx.from_torch_state_dict(tx, state_dict, AXES, PARAMS, order=order)
        assert gradtx.step_count(state) == 50
    with pytest.raises(
        ValueError,
        match=r"leaf 'fc/bias': it runs scale_by_adam, add_decayed_weights, .*adamw\(0.001, "
        r"weight_decay=0.0\)",
    ):
        gradtx.from_torch_state_dict(decayed, state_dict, AXES, PARAMS, order=order)
    with pytest.raises(ValueError, match="order must have a list of names for each of torch's 2"):
        gradtx.from_torch_state_dict(by_mask, state_dict, AXES, PARAMS, order=list(SHAPES))


def test_a_learning_rate_by_a_schedule_is_not_compared_and_goes_back_as_the_rate_in_force():
    tx = gradtx.adam(gradtx.linear_schedule(1e-2, 0.0, 100))
    state = gradtx.from_torch_state_dict(tx, adam_dict(), AXES, PARAMS)
    assert gradtx.hyperparams(state)["learning_rate"] == pytest.approx(5e-3)
    back = gradtx.to_torch_state_dict(tx, state, AXES, PARAMS, adam_dict())
    assert back["param_groups"][0]["lr"] == pytest.approx(5e-3)


def test_an_optimizer_that_was_never_stepped_starts_at_the_beginning():
    tx = gradtx.adam(1e-3)
    state = gradtx.from_torch_state_dict(tx, adam_dict(state={}), AXES, PARAMS)
    jax.tree.map(np.testing.assert_array_equal, state, tx.init(PARAMS))
    assert gradtx.to_torch_state_dict(tx, state, AXES, PARAMS, adam_dict())["state"] == {}


def test_a_number_set_in_the_state_must_be_torchs():
    tx = gradtx.adam(1e-3)
    state = gradtx.set_hyperparams(tx.init(PARAMS), b1=0.8, learning_rate=3e-4)
    with pytest.raises(ValueError, match=r"b1 of scale_by_adam is 0.8 in tx and 0.9 in torch"):
        gradtx.to_torch_state_dict(tx, state, AXES, PARAMS, adam_dict())
    state = gradtx.set_hyperparams(state, b1=0.9)
    assert gradtx.to_torch_state_dict(tx, state, AXES, PARAMS, adam_dict())["param_groups"][0]["lr"] == 3e-4


def by_leaf(p):
    return {"conv": {"kernel": "fast"}, "fc": {"bias": "slow", "kernel": "fast"}}


def test_the_rate_of_a_group_is_the_product_that_is_in_force():
    tx = gradtx.chain(gradtx.adam(1e-2), gradtx.scale_by_group({"fast": 1.0, "slow": 0.1}, by_leaf))
    order = [["conv.weight", "fc.weight"], ["fc.bias"]]
    rates = ({**ADAM, "lr": 1e-2}, {**ADAM, "lr": 1e-3})
    state = gradtx.from_torch_state_dict(tx, two_groups(*rates), AXES, PARAMS, order=order)
    with pytest.raises(ValueError, match=r"'fc/bias': the product of its rates is 0.001 in tx, and lr"):
        gradtx.from_torch_state_dict(tx, two_groups(rates[0], rates[0]), AXES, PARAMS, order=order)
    for lr in (1e-2, 1e-4):
        state = gradtx.set_hyperparams(state, learning_rate=lr)
        back = gradtx.to_torch_state_dict(tx, state, AXES, PARAMS, two_groups(*rates), order=order)
        assert [g["lr"] for g in back["param_groups"]] == pytest.approx([lr, lr / 10])
    one = adam_dict({**ADAM, "lr": 1e-2})
    falling = [gradtx.adam(gradtx.linear_schedule(lr, 0.0, 100)) for lr in (1e-2, 1e-3)]
    by_group = gradtx.partition({"fast": falling[0], "slow": falling[1]}, by_leaf)
    for many in (tx, by_group):
        with pytest.raises(
            ValueError, match=r"0 has one lr, .*'conv/kernel' is 0.01, that of 'fc/bias' 0.001"
        ):
            gradtx.to_torch_state_dict(many, many.init(PARAMS), AXES, PARAMS, one)
    by_size = gradtx.chain(gradtx.adam(1e-2), gradtx.scale_by_param_block_rms())
    with pytest.raises(ValueError, match="tx has scale_by_param_block_rms on the leaf 'conv/kernel'"):
        gradtx.to_torch_state_dict(by_size, by_size.init(PARAMS), AXES, PARAMS, one)


def test_what_scales_the_gradient_is_no_rate():
    tx = gradtx.chain(gradtx.scale(0.5), gradtx.adam(1e-3))
    state = gradtx.from_torch_state_dict(tx, adam_dict(), AXES, PARAMS)
    assert gradtx.to_torch_state_dict(tx, state, AXES, PARAMS, adam_dict())["param_groups"][0]["lr"] == 1e-3


def test_adagrads_rate_is_decayed_once():
    options = {**ADAGRAD, "lr_decay": 0.1}
    tx = gradtx.adagrad(lambda t: 0.01 / (1 + 0.1 * jnp.float32(t)), 0.0, 1e-10, eps_in_sqrt=False)
    state = gradtx.from_torch_state_dict(tx, one(options, step=50.0, sum=0.1), {}, ONE)
    for lr in (0.01, 7.0):
        back = gradtx.to_torch_state_dict(tx, state, {}, ONE, one({**options, "lr": lr}))
        assert back["param_groups"][0]["lr"] == pytest.approx(0.01)


def test_leaves_that_torch_was_not_given_are_frozen_here():
    frozen = gradtx.selective_transform(TX, freeze_mask="*bias")
    given = [name for name in SHAPES if name != "fc.bias"]
    group = {**ADAM, "params": [0, 1], "param_names": given}
    state_dict = {"state": {i: adam_dict()["state"][2 * i] for i in (0, 1)}, "param_groups": [group]}
    for names in (AXES, {**AXES, "fc/bias": None}):
        state = gradtx.from_torch_state_dict(frozen, state_dict, names, PARAMS)
        assert gradtx.step_count(state) == 50
        back = gradtx.to_torch_state_dict(frozen, state, names, PARAMS, state_dict)
        np.testing.assert_array_equal(back["state"][1]["exp_avg"], values("fc.weight"))
    with pytest.raises(ValueError, match=r"'fc.bias', which .* did not train it, say so: names=.*None"):
        gradtx.from_torch_state_dict(TX, state_dict, AXES, PARAMS)
    with pytest.raises(ValueError, match=r"did not train the leaf 'fc/bias', and tx does. Freeze it"):
        gradtx.from_torch_state_dict(TX, state_dict, {**AXES, "fc/bias": None}, PARAMS)
    with pytest.raises(ValueError, match=r"0 has 2 parameters, and there are 3 names. Give those that"):
        gradtx.from_torch_state_dict(frozen, state_dict, AXES, PARAMS, order=list(SHAPES))
    with pytest.raises(ValueError, match=r"on the leaf 'fc/bias': it runs .*, set_to_zero in tx"):
        gradtx.from_torch_state_dict(gradtx.chain(TX, gradtx.freeze("*bias")), adam_dict(), AXES, PARAMS)


def test_options_of_another_implementation_are_no_difference():
    more = {"foreach": True, "fused": True, "initial_lr": 1e-3, "caution": False, "name": "all"}
    assert (
        gradtx.step_count(gradtx.from_torch_state_dict(TX, adam_dict({**ADAM, **more}), AXES, PARAMS)) == 50
    )


def test_states_and_parameters_may_stand_in_variables_and_holders():
    model = nnx.Linear(4, 5, rngs=nnx.Rngs(0))
    params = nnx.state(model, nnx.Param)
    entries = adam_dict()["state"]
    group = {**ADAM, "params": [2, 1], "param_names": ["weight", "bias"]}
    state_dict = {"state": {i: entries[i] for i in (1, 2)}, "param_groups": [group]}
    names = {"kernel": ("weight", (1, 0))}
    state = gradtx.from_torch_state_dict(TX, state_dict, names, params)
    assert jax.tree.structure(state) == jax.tree.structure(TX.init(params))
    optimizer = nnx.Optimizer(model, TX, wrt=nnx.Param)
    nnx.update(optimizer.opt_state, nnx.state(state))
    back = gradtx.to_torch_state_dict(TX, optimizer, names, params, state_dict)
    np.testing.assert_array_equal(back["state"][2]["exp_avg"], values("fc.weight"))


ONE = {"w": jnp.ones(2)}
TX = gradtx.adam(1e-3)


def one(options, **entries):
    """A state dict of one parameter `w`."""
    state = {0: {k: np.full(2, v, np.float32) if k != "step" else v for k, v in entries.items()}}
    return {
        "state": state if entries else {},
        "param_groups": [{**options, "params": [0], "param_names": ["w"]}],
    }


ADAM_ONE = one(ADAM, step=50.0, exp_avg=0.1, exp_avg_sq=0.2)
REFUSED = {
    "no dict": (TX, [1, 2], "A state dict of a torch optimizer is wanted"),
    "the model's": (TX, {"fc.weight": 1}, "got 'fc.weight'"),
    "no groups": (TX, {"state": {}, "param_groups": []}, "'param_groups' must be a list of mappings"),
    "unknown parameter": (TX, {**ADAM_ONE, "state": {7: {}}}, "'state' has 7, which no group has"),
    "no entries": (TX, {**ADAM_ONE, "state": {0: 3}}, "'state' of 0 is 3, no mapping"),
    "lion": (TX, one({"lr": 1, "betas": 1}), r"\(betas, lr\) are those of no optimizer that can be moved"),
    "of another kind": (TX, one(without(ADAM, "amsgrad")), "tx is not torch's Adamax on the leaf"),
    "nadam": (
        gradtx.nadam(1e-3),
        one({**without(ADAM, "amsgrad"), "momentum_decay": 0.004, "decoupled_weight_decay": False}),
        "torch's RAdam has no option 'momentum_decay'",
    ),
    "options of another one": (
        TX,
        one({**ADAM, "weight_decouple": True}),
        "torch's Adam has no option 'weight_decouple', .*weight_decouple=True: .* remove the key",
    ),
    "no rate": (
        gradtx.scale_by_adam(),
        ADAM_ONE,
        "it runs scale_by_adam in tx and scale_by_adam, scale_by_learning_rate in torch",
    ),
    "no rate, as Optax's": (
        gradtx.adadelta(),
        one({"lr": 1.0, "rho": 0.9, "eps": 1e-6, "weight_decay": 0}),
        "it runs scale_by_adadelta in tx and scale_by_adadelta, scale_by_learning_rate in torch",
    ),
    "ascent": (
        gradtx.chain(gradtx.scale_by_adam(), gradtx.scale(1e-3)),
        ADAM_ONE,
        "tx climbs on the leaf 'w': its rate 0.001 lacks the sign",
    ),
    "ascent by a schedule": (
        gradtx.chain(gradtx.scale_by_adam(), gradtx.scale_by_schedule(lambda t: 0.1 / (1 + jnp.float32(t)))),
        ADAM_ONE,
        "tx climbs on the leaf 'w'",
    ),
    "a scale inside": (
        gradtx.chain(
            gradtx.scale_by_adam(),
            gradtx.scale(0.5),
            gradtx.add_decayed_weights(0.01),
            gradtx.scale_by_learning_rate(1e-3),
        ),
        one(ADAMW),
        "scale stands before add_decayed_weights in tx",
    ),
    "string keys": (TX, {**ADAM_ONE, "state": {"0": {}}}, "keys of 'state' are strings, which JSON makes"),
    "no list of parameters": (
        TX,
        {"state": {}, "param_groups": [{**ADAM, "params": None}]},
        "must be a list of mappings with 'params', a list of indices",
    ),
    "a word for lr": (TX, one({**ADAM, "lr": "a"}), "option of .* wrong, .* no Adam: 'a' is no number"),
    "one beta": (TX, one({**ADAM, "betas": 3}), "'betas' must be a pair, got 3"),
    "no decay": (TX, one({**ADAM, "weight_decay": None}), "None is no number"),
    "a word for a moment": (
        TX,
        {**ADAM_ONE, "state": {0: {"step": 1.0, "exp_avg": "a", "exp_avg_sq": "a"}}},
        r"'exp_avg' of torch's parameter 'w' \(index 0\) is no tensor of numbers but 'a'",
    ),
    "a word for a step": (
        TX,
        one(ADAM, step="a", exp_avg=0.1, exp_avg_sq=0.2),
        "torch's step of .* must be a number of steps, got",
    ),
    "two kinds": (
        TX,
        {"state": {}, "param_groups": [{**ADAM, "params": [0]}, {**SGD, "params": [1]}]},
        "are not those of one optimizer: Adam, SGD",
    ),
    "amsgrad": (TX, one({**ADAM, "amsgrad": True}), "amsgrad=True has no counterpart"),
    "maximize": (TX, one({**ADAM, "maximize": True}), "maximize=True has no counterpart.*Negate the loss"),
    "another optimizer": (
        gradtx.lion(1e-3),
        ADAM_ONE,
        r"it runs scale_by_lion, .* means the same is gradtx.adam\(0.001\)",
    ),
    "learning rate": (
        gradtx.adam(3e-4),
        ADAM_ONE,
        "learning_rate of scale_by_learning_rate is 0.0003 in tx and 0.001 in torch",
    ),
    "scheduler": (
        gradtx.adam(3e-4),
        one({**ADAM, "initial_lr": 0.1}),
        "torch's rate is set by a scheduler: give tx the schedule",
    ),
    "betas": (gradtx.adam(1e-3, b2=0.99), ADAM_ONE, "b2 of scale_by_adam is 0.99 in tx and 0.999 in torch"),
    "eps": (
        gradtx.adam(1e-3, eps_root=1e-8),
        ADAM_ONE,
        "eps_root of scale_by_adam is 1e-08 in tx and 0.0 in torch",
    ),
    "nesterov": (gradtx.nadam(1e-3), ADAM_ONE, "nesterov of scale_by_adam is True in tx and False in torch"),
    "decoupled": (
        gradtx.adamw(1e-3, weight_decay=0.1),
        one({**ADAM, "weight_decay": 0.1, "decoupled_weight_decay": False}),
        "weight_decay=0.1",
    ),
    "independent decay": (
        gradtx.adamw(1e-3, weight_decay=0.01, schedule=lambda t: 1.0, decay_coupling="none"),
        one(ADAMW, step=50.0, exp_avg=0.1, exp_avg_sq=0.2),
        r"means the same is gradtx.adamw\(0.001, weight_decay=0.01\)",
    ),
    "inside the root": (
        gradtx.rmsprop(0.01, 0.99, momentum=0.9),
        one(RMSPROP),
        r"eps_in_sqrt of scale_by_rms is True in tx and False in torch. .*rmsprop\(0.01, "
        r"decay=0.99, eps_in_sqrt=False, momentum=0.9\)",
    ),
    "rate inside": (
        gradtx.rmsprop(gradtx.linear_schedule(0.01, 0.0, 9), 0.99, eps_in_sqrt=False, momentum=0.9),
        one(RMSPROP, step=50.0, square_avg=0.1, momentum_buffer=0.3),
        "has the learning rate inside its velocity",
    ),
    "lr_decay": (
        gradtx.adagrad(0.01, 0.0, 1e-10, eps_in_sqrt=False),
        one({**ADAGRAD, "lr_decay": 0.1}, step=50.0, sum=0.1),
        r"lr_decay=0.1 is a schedule.*lambda t: 0.01 / \(1 \+ 0.1 \* t\)",
    ),
    "accumulator": (
        gradtx.adagrad(0.01, 0.1, 1e-10, eps_in_sqrt=False),
        one(ADAGRAD),
        "initial_accumulator_value of scale_by_rss is 0.1 in tx and 0.0",
    ),
    "dampening": (
        gradtx.sgd(0.1, 0.9, dampening=0.5),
        one({**SGD, "dampening": 0.5}, momentum_buffer=0.1),
        "dampen_first of trace is True in tx and False",
    ),
    "uncounted": (
        gradtx.sgd(0.1, 0.9, dampening=0.5, dampen_first=False),
        one({**SGD, "dampening": 0.5}, momentum_buffer=0.1),
        "torch's SGD does not count its steps, and trace of tx depends on them. Pass step=",
    ),
    "guard": (gradtx.guard(TX), ADAM_ONE, "guard is around the optimizer or beside it"),
    "average": (
        gradtx.ema_params(TX, 0.9),
        ADAM_ONE,
        "it runs scale_by_adam, scale_by_learning_rate, ema_params in tx",
    ),
    "wrong shape": (
        TX,
        {
            **ADAM_ONE,
            "state": {
                0: {"step": 1.0, "exp_avg": np.ones(3, np.float32), "exp_avg_sq": np.ones(3, np.float32)}
            },
        },
        r"'exp_avg' of torch's parameter 'w' \(index 0\), as the leaf 'w', has shape \(3,\)",
    ),
    "too wide": (
        TX,
        {**ADAM_ONE, "state": {0: {"step": 1.0, "exp_avg": np.ones(2), "exp_avg_sq": np.ones(2)}}},
        "is float64 in the torch state dict, and tx keeps it in float32",
    ),
    "no step": (
        TX,
        one(ADAM, exp_avg=0.1, exp_avg_sq=0.2),
        r"the state of parameter 'w' \(index 0\) has no 'step'",
    ),
    "no moment": (
        TX,
        one(ADAM, step=50.0, exp_avg=0.1),
        r"has no 'exp_avg_sq' in its state, which has step, exp_avg",
    ),
    "half a step": (
        TX,
        one(ADAM, step=0.5, exp_avg=0.1, exp_avg_sq=0.2),
        "must be a number of steps, got 0.5",
    ),
}


@pytest.mark.by_turns(24)
@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_with_the_reason(case):
    tx, state_dict, message = REFUSED[case]
    before = jax.tree.map(lambda x: x, state_dict)
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        gradtx.from_torch_state_dict(tx, state_dict, {}, ONE)
    assert len(str(caught.value)) < 500
    assert jax.tree.structure(before) == jax.tree.structure(state_dict)


NAMES_REFUSED = {
    "no mapping": (["w"], r"names must be a mapping from leaf paths"),
    "no leaf": (
        {**AXES, "fc/kernal": 1},
        r"'fc/kernal', which is no leaf of the parameters. Did you mean 'fc/kernel'\?",
    ),
    "no parameter": (
        {**AXES, "fc/bias": "fc.bais"},
        r"'fc.bais', which the state dict does not have. Did you mean 'fc.bias'\?",
    ),
    "twice": (
        {**AXES, "fc/bias": "fc.weight"},
        r"leaves 'fc/bias' and 'fc/kernel' are both torch's parameter 'fc.weight'",
    ),
    "axes": (
        {**AXES, "fc/kernel": ("fc.weight", (0, 2))},
        r"\(0, 2\) for the leaf 'fc/kernel' is no permutation of the 2 axes",
    ),
    "axes that are a word": (
        {**AXES, "fc/kernel": ("fc.weight", "T")},
        r"the axes of the leaf 'fc/kernel' must be a permutation such as \(1, 0\), got 'T'",
    ),
    "no name": ({**AXES, "fc/bias": 1.5}, "must have torch's name, its index, .* got 1.5"),
    "a leaf that is a number": ({**AXES, 3: "x"}, "names has 3, which is no leaf"),
    "untransposed": (
        {**AXES, "fc/kernel": "fc.weight"},
        r"has shape \(4, 5\), and torch's .* \(5, 4\): torch has the axes in another order",
    ),
}


@pytest.mark.parametrize("case", NAMES_REFUSED)
def test_names_that_do_not_fit_are_refused(case):
    names, message = NAMES_REFUSED[case]
    with pytest.raises((ValueError, TypeError), match=message):
        gradtx.from_torch_state_dict(TX, adam_dict(), names, PARAMS)


@pytest.mark.parametrize(
    ("order", "got"),
    [
        (lambda: [], "a function"),
        (iter([np.ones(2)]), "of a ndarray"),
        ("fc.bias", "a str"),
        ([("fc.bias",)], "a list, of a tuple"),
    ],
    ids=["method", "parameters", "one name", "short pairs"],
)
def test_an_order_that_has_no_names_is_refused(order, got):
    with pytest.raises(TypeError, match=f"order must be torch's names, .*model.named_parameters.*{got}"):
        gradtx.from_torch_state_dict(TX, adam_dict(), AXES, PARAMS, order=order)


def test_parameters_that_are_left_over_or_behind_are_refused():
    with pytest.raises(
        ValueError, match=r"torch's parameter 'conv.weight' \(index 0\) is none of the leaves"
    ):
        gradtx.from_torch_state_dict(TX, adam_dict(), {"fc/kernel": AXES["fc/kernel"]}, {"fc": PARAMS["fc"]})
    late = adam_dict()
    late["state"][1] = {**late["state"][1], "step": np.float32(3)}
    with pytest.raises(ValueError, match=r"'fc.bias' .index 1. is at step 3 and .* at step 50: a chain of"):
        gradtx.from_torch_state_dict(TX, late, AXES, PARAMS)
    with pytest.raises(ValueError, match=r"'fc.bias' .index 1. is at step 0 and .* at step 50"):
        gradtx.from_torch_state_dict(TX, without(adam_dict(), "state", 1), AXES, PARAMS)
    with pytest.raises(ValueError, match="step=3 was given, and torch's state is at step 50"):
        gradtx.from_torch_state_dict(TX, adam_dict(), AXES, PARAMS, step=3)
    frozen = gradtx.masked(TX, "!*bias", outside="zero")
    with pytest.raises(ValueError, match="leaf 'fc/bias': it runs set_to_zero in tx"):
        gradtx.from_torch_state_dict(frozen, adam_dict(), AXES, PARAMS)
    thawed = without(adam_dict(), "state", 1)
    assert gradtx.step_count(gradtx.from_torch_state_dict(frozen, thawed, AXES, PARAMS)) == 50
