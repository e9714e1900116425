"""Bad trees and states: each error says what was given, where, and what to do. Messages are compared."""

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
    "Pass the state that this transform's init made, or a checkpoint of it; for an old state and new "
    "settings use gradtx.rebase(tx, state)."
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
        lambda: gradtx.adam(0.1, mu_dtype="bfloat16").init(COMPLEX),
        ValueError,
        "scale_by_adam: mu_dtype='bfloat16' cannot store 'mu' of a complex leaf; give 'float32' or a wider "
        "dtype, of which it takes the complex form.",
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


def test_apply_gradients_checks_as_update_does():
    with pytest.raises(ValueError, match="leaf 'layers/0/b' is only in the params"):
        gradtx.apply_gradients(ADAMW, changed("b", "removed"), ADAMW.init(PARAMS), PARAMS)
