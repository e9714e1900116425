"""Bad input: each error says what was given, where, and what to do. The whole messages are compared."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import optax
import pytest

import gradtx

PARAMS = {"layers": [{"w": jnp.ones((2, 3)), "b": jnp.ones(3)}], "scale": jnp.ones(())}
GRADS = jax.tree.map(jnp.ones_like, PARAMS)
FIT = "Pass trees of one structure."
STATE = (
    "Pass the state that this transform's init made; for an old state and new settings, use "
    "gradtx.rebase(tx, state)."
)


def update(tx, grads=GRADS, state=None, params=PARAMS, **extra):
    return tx.update(grads, tx.init(PARAMS) if state is None else state, params, **extra)


def changed(path, value):
    """The gradients with one leaf replaced, or removed for the value "removed"."""
    layer = {**GRADS["layers"][0], path: value}
    if isinstance(value, str):
        del layer[path]
    return {**GRADS, "layers": [layer]}


ADAMW = gradtx.adamw(0.1)
NEEDY = gradtx.GradientTransformation(lambda p: (), lambda u, s, p=None, *, value: (u, s))
WRAP = (
    "needs the keyword argument 'value': call update(grads, state, params, value=...). Optax's own "
    "combinators "
    "drop it; wrap this transform for them as optax.GradientTransformationExtraArgs(*tx)."
)

AT_UPDATE = {
    "params missing": (
        lambda: update(ADAMW, params=None),
        ValueError,
        "add_decayed_weights needs the parameters: call update(grads, state, params).",
    ),
    "a gradient leaf missing": (
        lambda: update(ADAMW, changed("b", "removed")),
        ValueError,
        "The params and the gradients are different trees: leaf 'layers/0/b' is only in the params. " + FIT,
    ),
    "a gradient leaf too many": (
        lambda: update(ADAMW, changed("c", jnp.ones(1))),
        ValueError,
        "The params and the gradients are different trees: leaf 'layers/0/c' is only in the gradients. "
        + FIT,
    ),
    "gradients of another model": (
        lambda: update(ADAMW, {"kernel": jnp.ones(2)}),
        ValueError,
        "The params and the gradients are different trees: the first that differs is 'layers/0/b' in the "
        "params and 'kernel' in the gradients. " + FIT,
    ),
    "gradients in other containers": (
        lambda: update(ADAMW, {**GRADS, "layers": tuple(GRADS["layers"])}),
        ValueError,
        "The params and the gradients have the same leaves but other containers: ",
    ),
    "a gradient of another shape": (
        lambda: update(ADAMW, changed("b", jnp.ones(4))),
        ValueError,
        "The gradient of the leaf 'layers/0/b' has shape (4,), and the parameter has shape (3,). Pass the "
        "gradients of these parameters.",
    ),
    "a gradient that would broadcast": (
        lambda: update(ADAMW, changed("b", jnp.ones(1))),
        ValueError,
        "The gradient of the leaf 'layers/0/b' has shape (1,), and the parameter has shape (3,). Pass the "
        "gradients of these parameters.",
    ),
    "the state of another optimizer": (
        lambda: update(gradtx.sgd(0.1, momentum=0.5), state=gradtx.lion(0.1).init(PARAMS)),
        ValueError,
        "This state is not this transform's: it lacks the hyperparameters sgd/dampening, sgd/learning_rate, "
        "sgd/momentum and has lion/learning_rate, lion/one_minus_b1, lion/one_minus_b2, lion/weight_decay "
        "instead. " + STATE,
    ),
    "the state of an optimizer with more slots": (
        lambda: update(
            gradtx.scale(2.0),
            state={**gradtx.scale(2.0).init(PARAMS), "slots": gradtx.trace(0.9).init(PARAMS)["slots"]},
        ),
        ValueError,
        "This state is not this transform's: it has other slots: trace",
    ),
    "Optax's state": (
        lambda: update(ADAMW, state=optax.adamw(0.1).init(PARAMS)),
        TypeError,
        "This is not a gradtx state (step, numbers, slots) but tuple. " + STATE,
    ),
    "a TrainState's dict": (
        lambda: update(ADAMW, state={"params": 1, "step": 0}),
        TypeError,
        "This is not a gradtx state (step, numbers, slots) but ['params', 'step']. " + STATE,
    ),
    "params for the state": (
        lambda: update(gradtx.adam(0.1), state={**gradtx.adam(0.1).init({"w": jnp.ones(2)})}),
        ValueError,
        "The state's scale_by_adam/mu and the gradients are different trees: the first that differs is 'w' "
        "in "
        "the state's scale_by_adam/mu and 'layers/0/b' in the gradients. " + FIT,
    ),
    "the state of a model of other shapes": (
        lambda: update(gradtx.adam(0.1), state=gradtx.adam(0.1).init({**PARAMS, "scale": jnp.ones((2, 2))})),
        ValueError,
        "scale_by_adam: 'mu' of the leaf 'scale' has shape (2, 2) in the state, and the gradient has shape "
        "(). "
        "Pass the state that init made for these parameters.",
    ),
    "a leaf that was None at init": (
        lambda: update(gradtx.adam(0.1), state=gradtx.adam(0.1).init({**PARAMS, "scale": None})),
        ValueError,
        "scale_by_adam: the state has no 'mu' for the leaf 'scale', which was None or masked out at init and "
        "has a gradient now. Call init again on the parameters that are trained.",
    ),
    "a state cast to bfloat16": (
        lambda: update(
            gradtx.sgd(0.1),
            state=jax.tree.map(lambda x: x.astype(jnp.bfloat16), gradtx.sgd(0.1).init(PARAMS)),
        ),
        TypeError,
        "sgd/learning_rate in the state is bfloat16, not float32: the state was cast, or made under another "
        "jax_enable_x64. Cast the slots only, or rebase(tx, state).",
    ),
    "a keyword argument missing in a chain": (
        lambda: update(gradtx.chain(NEEDY, gradtx.sgd(0.1))),
        TypeError,
        "transform " + WRAP,
    ),
    "a keyword argument missing": (
        lambda: NEEDY.update(GRADS, (), PARAMS),
        TypeError,
        "This transform " + WRAP,
    ),
    "updates of another tree": (
        lambda: gradtx.apply_updates(PARAMS, changed("b", "removed")),
        ValueError,
        "The updates and the params are different trees: leaf 'layers/0/b' is only in the params. " + FIT,
    ),
}

NO_GRADIENT = (
    ", which has no gradient. Leave it out of the parameters, or mask it out, as in gradtx.masked(tx, lambda "
    "path, leaf: ...)."
)
COMPLEX = {"z": {"w": jnp.ones(2, jnp.complex64)}}
MASK = (
    ". A mask is a tree of bools of the parameters' structure or a prefix of it, a predicate of (path, "
    "leaf), "
    "or path patterns."
)

AT_INIT = {
    "an integer leaf": (
        lambda: ADAMW.init({"a": jnp.ones(2), "ids": jnp.ones((2, 1), jnp.int32)}),
        TypeError,
        "scale_by_adam: the leaf 'ids' is int32[2, 1]" + NO_GRADIENT,
    ),
    "a boolean leaf": (
        lambda: gradtx.sgd(0.1).init({"mask": jnp.ones(2, bool)}),
        TypeError,
        "scale_by_learning_rate: the leaf 'mask' is bool[2]" + NO_GRADIENT,
    ),
    "a Python int": (
        lambda: gradtx.sgd(0.1).init({"n": 3}),
        TypeError,
        "scale_by_learning_rate: the leaf 'n' is of type int" + NO_GRADIENT,
    ),
    "a string": (
        lambda: gradtx.sgd(0.1).init({"n": "relu"}),
        TypeError,
        "scale_by_learning_rate: the leaf 'n' is of type str" + NO_GRADIENT,
    ),
    "a complex leaf where it has no meaning": (
        lambda: gradtx.chain(gradtx.clip(1.0), gradtx.sgd(0.1)).init(COMPLEX),
        TypeError,
        "clip has no meaning for the complex leaf 'z/w'. Mask it out, or train its real and imaginary parts "
        "as two real leaves.",
    ),
    "a real dtype for a complex moment": (
        lambda: gradtx.adam(0.1, mu_dtype="float32").init(COMPLEX),
        ValueError,
        "scale_by_adam: mu_dtype='float32' cannot store 'mu' of a complex leaf. Leave mu_dtype out, or name "
        "a "
        "complex dtype.",
    ),
    "a mask with a leaf too many": (
        lambda: gradtx.masked(gradtx.adam(0.1), {"kernel": True}).init(PARAMS),
        ValueError,
        "scale_by_adam: the mask's tree does not fit the parameters: the mask has 'kernel', which the "
        "parameters do not have" + MASK,
    ),
    "a mask with a leaf too few": (
        lambda: gradtx.adamw(0.1, mask={"layers": True}).init(PARAMS),
        ValueError,
        "add_decayed_weights: the mask's tree does not fit the parameters: the mask has nothing for 'scale'"
        + MASK,
    ),
    "a mask of numbers": (
        lambda: gradtx.adamw(0.1, mask={"layers": True, "scale": 1}).init(PARAMS),
        TypeError,
        "add_decayed_weights: the mask at 'scale' must be True or False, got 1.",
    ),
}

NUMBER = " must be a number, a 0-d array or a schedule, got "
CLIMBS = " A negative one climbs; to maximize, negate the loss."

AT_CONSTRUCTION = {
    "a negative eps": (
        lambda: gradtx.scale_by_adam(eps=-1e-8),
        ValueError,
        "scale_by_adam: eps must be >= 0, got -1e-08.",
    ),
    "a decay of 1": (
        lambda: gradtx.adam(0.1, b1=1.0),
        ValueError,
        "scale_by_adam: b1 must be in [0, 1), got 1.0.",
    ),
    "a negative decay": (lambda: gradtx.ema(-0.1), ValueError, "ema: decay must be in [0, 1), got -0.1."),
    "a negative learning rate": (
        lambda: gradtx.adam(-1e-3),
        ValueError,
        "scale_by_learning_rate: learning_rate must be >= 0, got -0.001." + CLIMBS,
    ),
    "a NaN": (
        lambda: gradtx.sgd(float("nan")),
        ValueError,
        "scale_by_learning_rate: learning_rate must be >= 0, got float('nan')." + CLIMBS,
    ),
    "a NaN where any number will do": (
        lambda: gradtx.scale(float("nan")),
        ValueError,
        "scale: step_size must be a number other than NaN, got float('nan').",
    ),
    "a momentum over 1": (lambda: gradtx.trace(1.5), ValueError, "trace: decay must be in [0, 1], got 1.5."),
    "a negative norm": (
        lambda: gradtx.clip_by_global_norm(-1.0),
        ValueError,
        "clip_by_global_norm: max_norm must be >= 0, got -1.0.",
    ),
    "a string": (lambda: gradtx.sgd("0.1"), TypeError, f"sgd: learning_rate{NUMBER}'0.1'."),
    "a bool": (lambda: gradtx.sgd(True), TypeError, f"sgd: learning_rate{NUMBER}True."),
    "a vector": (
        lambda: gradtx.sgd(jnp.ones(3)),
        ValueError,
        "sgd: learning_rate must be a number, got an array of shape (3,). To try several values at once, "
        "build "
        "the optimizer under jax.vmap.",
    ),
    "a schedule of no length": (
        lambda: gradtx.linear_schedule(1.0, 0.0, 0),
        ValueError,
        "linear_schedule: transition_steps must be > 0, got 0.",
    ),
    "a cosine of negative length": (
        lambda: gradtx.cosine_decay_schedule(1.0, -5),
        ValueError,
        "cosine_decay_schedule: decay_steps must be > 0, got -5.",
    ),
    "an exponential of no length": (
        lambda: gradtx.exponential_decay(1.0, 0, 0.5),
        ValueError,
        "exponential_decay: transition_steps must be > 0, got 0.",
    ),
    "a polynomial of no length": (
        lambda: gradtx.polynomial_schedule(1.0, 0.0, 2, 0),
        ValueError,
        "polynomial_schedule: transition_steps must be > 0, got 0.",
    ),
    "a decay that is over before the warmup": (
        lambda: gradtx.warmup_linear_decay_schedule(0.0, 1.0, 10, 10),
        ValueError,
        "warmup_linear_decay_schedule: decay_steps counts from the start, warmup included, and must be "
        "greater than warmup_steps; got 10 and 10.",
    ),
    "the same with a cosine": (
        lambda: gradtx.warmup_cosine_decay_schedule(0.0, 1.0, 10, 5),
        ValueError,
        "warmup_cosine_decay_schedule: decay_steps counts from the start, warmup included, and must be "
        "greater than warmup_steps; got 5 and 10.",
    ),
    "schedules and boundaries that do not fit": (
        lambda: gradtx.join_schedules([gradtx.constant_schedule(1.0)], [1, 2]),
        ValueError,
        "join_schedules: 1 schedules need 0 boundaries, got 2.",
    ),
    "an optimizer that was not called": (
        lambda: gradtx.chain(gradtx.adam),
        TypeError,
        "chain takes transforms, with init and update; got gradtx.optimizers.adam.adam. Call it: adam(...).",
    ),
    "a number in a chain": (
        lambda: gradtx.chain(gradtx.sgd(0.1), 3),
        TypeError,
        "chain takes transforms, with init and update; got 3.",
    ),
    "a list in a chain": (
        lambda: gradtx.chain([gradtx.sgd(0.1)]),
        TypeError,
        "chain takes transforms, with init and update; got [sgd(0.1)].",
    ),
    "a named chain without names": (
        lambda: gradtx.named_chain(gradtx.sgd(0.1)),
        TypeError,
        "named_chain takes pairs (name, transform), got sgd(0.1).",
    ),
    "a name that stands twice": (
        lambda: gradtx.named_chain(("a", gradtx.sgd(0.1)), ("a", gradtx.sgd(0.1))),
        ValueError,
        "named_chain: 'a' is taken; give each transform a name of its own.",
    ),
    "an unknown treatment of the rest": (
        lambda: gradtx.masked(gradtx.sgd(0.1), "*", outside="keep"),
        ValueError,
        "masked: outside must be 'pass' or 'zero', got 'keep'.",
    ),
    "an unknown coupling": (
        lambda: gradtx.adamw(0.1, decay_coupling="paper"),
        ValueError,
        "adamw: decay_coupling must be 'rate', 'schedule' or 'none', got 'paper'.",
    ),
    "key and seed": (
        lambda: gradtx.add_noise(0.1, 0.5, key=1, seed=2),
        ValueError,
        "add_noise: give key or seed, not both.",
    ),
}

FOREIGN_ARGUMENTS = {
    "lr": (
        lambda: gradtx.adam(lr=1e-3),
        TypeError,
        "adam has no argument 'lr'. It is called 'learning_rate' here.",
    ),
    "betas": (
        lambda: gradtx.adam(1e-3, betas=(0.8, 0.95)),
        TypeError,
        "adam has no argument 'betas'. Give the two decays by name: b1=0.8, b2=0.95.",
    ),
    "beta1": (
        lambda: gradtx.scale_by_adam(beta1=0.9),
        TypeError,
        "scale_by_adam has no argument 'beta1'. It is called 'b1' here.",
    ),
    "epsilon": (
        lambda: gradtx.adam(1e-3, epsilon=1e-7),
        TypeError,
        "adam has no argument 'epsilon'. It is called 'eps' here.",
    ),
    "alpha": (
        lambda: gradtx.rmsprop(1e-3, alpha=0.99),
        TypeError,
        "rmsprop has no argument 'alpha'. It is called 'decay' here.",
    ),
    "max_grad_norm": (
        lambda: gradtx.clip_by_global_norm(max_grad_norm=1.0),
        TypeError,
        "clip_by_global_norm has no argument 'max_grad_norm'. It is called 'max_norm' here.",
    ),
    "total_steps": (
        lambda: gradtx.cosine_decay_schedule(1.0, total_steps=10),
        TypeError,
        "cosine_decay_schedule has no argument 'total_steps'. It is called 'decay_steps' here.",
    ),
    "a misspelling": (
        lambda: gradtx.adam(1e-3, nestrov=True),
        TypeError,
        "adam has no argument 'nestrov'. Did you mean 'nesterov'?",
    ),
    "nothing alike": (
        lambda: gradtx.scale(color=1),
        TypeError,
        "scale has no argument 'color'. It takes step_size.",
    ),
    "no argument at all": (
        lambda: gradtx.sign(1),
        TypeError,
        "sign: too many positional arguments. Call it as sign().",
    ),
    "a missing argument": (
        lambda: gradtx.noisy_sgd(),
        TypeError,
        "noisy_sgd: missing a required argument: 'learning_rate'. Call it as noisy_sgd(learning_rate, "
        "eta=0.01, gamma=0.55, key=None, *, seed=None).",
    ),
}


@pytest.mark.parametrize("case", [*AT_UPDATE, *AT_INIT])
def test_of_trees(case):
    call, kind, message = {**AT_UPDATE, **AT_INIT}[case]
    with pytest.raises(kind, match="^" + re.escape(message)):
        call()


@pytest.mark.parametrize("case", AT_UPDATE)
def test_of_updates_under_jit(case):
    call, kind, message = AT_UPDATE[case]
    with pytest.raises(kind, match="^" + re.escape(message)):
        jax.jit(call)()


@pytest.mark.brief
@pytest.mark.parametrize("case", [*AT_CONSTRUCTION, *FOREIGN_ARGUMENTS])
def test_of_arguments(case):
    call, kind, message = {**AT_CONSTRUCTION, **FOREIGN_ARGUMENTS}[case]
    with pytest.raises(kind, match="^" + re.escape(message) + r"(\nThis was raised while \w+ was built\.)?$"):
        call()


def test_an_error_inside_a_recipe_names_the_recipe():
    with pytest.raises(ValueError, match="scale_by_adam: eps") as caught:
        gradtx.adamw(0.1, eps=-1.0)
    assert caught.value.__notes__ == ["This was raised while adamw was built."]


def test_apply_gradients_checks_as_update_does():
    with pytest.raises(ValueError, match="leaf 'layers/0/b' is only in the params"):
        gradtx.apply_gradients(ADAMW, changed("b", "removed"), ADAMW.init(PARAMS), PARAMS)


@pytest.mark.parametrize("name", ["softmax_cross_entropy_with_integer_labels", "l2_loss", "losses"])
def test_a_loss_is_optaxs(name):
    with pytest.raises(AttributeError, match=f"leaves losses to Optax: use optax.{name}. Only the optimizer"):
        getattr(gradtx, name)


@pytest.mark.parametrize("name", ["MultiSteps", "lookahead", "inject_hyperparams", "contrib"])
def test_what_only_optax_has_is_optaxs(name):
    with pytest.raises(
        AttributeError, match=f"gradtx has no '{name}'. Optax's works beside it, .*optax.{name}"
    ):
        getattr(gradtx, name)


def test_every_public_name_of_optax_is_here_or_explained():
    public = [name for name in vars(optax) if not name.startswith("_")]
    unknown = []
    for name in public:
        try:
            getattr(gradtx, name)
        except AttributeError as error:
            if "optax" not in str(error):
                unknown.append(name)
    assert unknown == []


def test_an_unknown_name_is_an_ordinary_attribute_error():
    with pytest.raises(AttributeError, match=r"^module 'gradtx' has no attribute 'adma'$"):
        gradtx.adma  # noqa: B018
    assert not hasattr(gradtx, "__wrapped__")
