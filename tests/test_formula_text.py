"""What `formula` prints, whose formula it is, and what it says when it cannot be had."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from catalogue import ENTRIES
from gradtx.formulas import latex
from gradtx.formulas.expression import symbols

MATRIX = jax.ShapeDtypeStruct((50_000, 40_000), np.float32)
VECTOR = jax.ShapeDtypeStruct((40_000,), np.float32)
COSINE = gradtx.warmup_cosine_decay_schedule(0.0, 0.1, 9, 99)
MODEL = {
    "dense": {"bias": VECTOR, "kernel": MATRIX},
    "norm": {"bias": VECTOR},
    "steps": jnp.zeros((), int),
    "no": None,
}

ADAM = """\
mu'    = b1 mu + (1 - b1) g
nu'    = b2 nu + (1 - b2) g^2
"""
PRINTED = {
    gradtx.adamw(1e-3, weight_decay=0.1): ADAM
    + """\
update = -learning_rate (mu' / (1 - b1^t) / (sqrt(nu' / (1 - b2^t) + eps_root) + eps)
         + weight_decay theta)
with eps_root = 0""",
    gradtx.lion(1e-3): """\
mu'    = b2 mu + (1 - b2) g
update = -learning_rate (sign(b1 mu + (1 - b1) g) + weight_decay theta)""",
    gradtx.adadelta(0.5): """\
e_g'   = rho e_g + (1 - rho) (g + weight_decay theta)^2
x1     = sqrt(e_x + eps) (g + weight_decay theta) / sqrt(e_g' + eps)
e_x'   = rho e_x + (1 - rho) x1^2
update = -learning_rate x1
with weight_decay = 0""",
    gradtx.adagrad(0.1): """\
sum_of_squares' = sum_of_squares + g^2
update          = -learning_rate g / sqrt(sum_of_squares' + eps)
at first sum_of_squares = 0.1""",
    gradtx.sgd(gradtx.linear_schedule(0.1, 0.01, 10)): """\
update        = -learning_rate g
x1            = where(learning_rate.transition_steps <= 0, 1, min(1, max(0, (t - 1
                - learning_rate.transition_begin) / learning_rate.transition_steps)))
learning_rate = (1 - x1) learning_rate.init_value + x1 learning_rate.end_value""",
    gradtx.sgd(lambda step: 0.1 / (1 + step).astype(jnp.float32)): """\
update        = -learning_rate g
learning_rate = 0.1 / t""",
    gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.scale(-0.5)): """\
update = step_size where(sqrt(total(g^2)) > max_norm and isfinite(sqrt(total(g^2))), max_norm
         / sqrt(total(g^2)), 1) g
with max_norm = 1, step_size = -0.5""",
    gradtx.chain(gradtx.trace(0.9), gradtx.trace(0.5)): """\
trace.trace'   = trace.decay trace.trace + (1 - trace.dampening) g
trace_1.trace' = trace_1.decay trace_1.trace + (1 - trace_1.dampening) trace.trace'
update         = trace_1.trace'
with trace.dampening = 0, trace_1.dampening = 0""",
    gradtx.MultiSteps(gradtx.sgd(0.1), 4): """\
count' = where(count + 1 >= every, 0, count + 1)
sum'   = where(count + 1 >= every, 0, sum + g)
update = where(count + 1 >= every, -learning_rate (sum + g) / (count + 1), 0)""",
    gradtx.noisy_sgd(0.1): """\
update = -learning_rate (g + sqrt(eta / t^gamma) noise)""",
    optax.lion(1e-3): """\
mu'    = 0.01 g + 0.99 mu
update = -0.001 (sign(0.1 g + 0.9 mu) + 0.001 theta)""",
}


@pytest.mark.parametrize("tx", PRINTED, ids=lambda tx: repr(tx)[:40])
def test_what_is_printed(tx):
    assert str(gradtx.formula(tx)) == PRINTED[tx]


def test_storage_is_no_part_of_a_formula():
    """Nor is the size of a leaf, whose arrays are never made."""
    plain, narrow = gradtx.adam(1e-3), gradtx.adam(1e-3, mu_dtype="bfloat16", nu_dtype="float16")
    half = jax.ShapeDtypeStruct((1_000_000, 1_000_000), jnp.bfloat16)
    assert str(gradtx.formula(plain)) == str(gradtx.formula(narrow)) == str(gradtx.formula(narrow, half))


def test_a_sum_goes_over_all_leaves_or_over_one():
    whole = gradtx.formula(gradtx.clip_by_global_norm(1.0))
    alone = gradtx.formula(gradtx.clip_by_global_norm(1.0), MATRIX)
    block = gradtx.formula(gradtx.clip_by_block_rms(1.0))
    assert "total(g^2)" in str(whole) and "sum(g^2)" not in str(whole)
    assert "sum(g^2)" in str(alone) and "total" not in str(alone)
    assert "mean(g^2)" in str(block)


def test_each_leaf_has_its_own_formula():
    """Masks and groups are those of the user's tree; a sum in a group goes over the group."""
    tx = gradtx.masked(gradtx.adamw(1e-3, weight_decay=0.1, mask="!*bias"), ("dense/*", "norm/*"))
    assert "theta" in symbols(gradtx.formula(tx, MODEL, "dense/kernel").update)
    assert "theta" not in symbols(gradtx.formula(tx, MODEL, "dense/bias").update)
    groups = gradtx.partition(
        {
            "matrices": gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.1)),
            "others": gradtx.scale(-0.3),
            "none": gradtx.set_to_zero(),
        },
        {"*kernel": "matrices", "*/bias": "others", "*": "none"},
    )
    assert "sum(g^2)" in str(gradtx.formula(groups, MODEL, "dense/kernel"))
    assert str(gradtx.formula(groups, MODEL, "norm/bias")).startswith("update = step_size g")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((gradtx.freeze("*bias"),), "set_to_zero works on some leaves only.*Give the parameters and a leaf"),
        ((gradtx.sgd(0.1), None, "dense/bias"), "'dense/bias' is a leaf of which tree. Give the parameters"),
        ((gradtx.sgd(0.1), MODEL), r"say which leaf, as in formula\(tx, params, 'dense/bias'\)"),
        ((gradtx.sgd(0.1), MODEL, "dense/kernal"), "no leaf 'dense/kernal'. Did you mean 'dense/kernel'?"),
        (
            (gradtx.sgd(0.1), MODEL, "zzz"),
            "no leaf 'zzz'. There are 'dense/bias', 'dense/kernel', 'norm/bias'",
        ),
        ((gradtx.sgd(0.1), MODEL, "steps"), "the leaf 'steps' has no gradient, so nothing updates it"),
        ((gradtx.sgd(0.1), {"a": None}), "the parameters have no leaf that a gradient exists for"),
        ((gradtx.add_decayed_weights(0.1, mask="*kern"), MODEL, "norm/bias"), "'\\*kern' matches no leaf"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_what_cannot_be_had_is_said(arguments, message):
    with pytest.raises(ValueError, match=message):
        gradtx.formula(*arguments)


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=list(ENTRIES))
@pytest.mark.full
def test_every_entry_prints(entry):
    """Also with slots that are stored otherwise, for a complex leaf, and for one that is masked out."""
    shapes = {"matrix": ((4, 4), np.float32), "scalar": ((), np.float32)}
    if entry.supports_complex:
        shapes["z"] = ((4, 4), np.complex64)
    tree = {name: jax.ShapeDtypeStruct(*shape) for name, shape in shapes.items()}
    for variant in ["", "alternative", *entry.variants]:
        for leaf in tree:
            assert "update" in str(gradtx.formula(entry.transform(variant), tree, leaf))
    for layout in entry.layouts:
        assert "update" in str(gradtx.formula(entry.transform(layout), tree, "matrix"))


def test_what_a_callback_or_a_loop_does_is_a_function_of_its_name():
    looped = gradtx.stateless_with_tree_map(
        lambda g, p: jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: 2 * x, g)
    )
    assert str(gradtx.formula(looped)) == "update = while(g)"


def test_what_depends_on_the_place_is_said():
    """Neighbours are not the element itself, whose difference would be nothing."""
    differences = gradtx.stateless_with_tree_map(lambda g, p: g - jnp.roll(g, 1))
    shown = str(gradtx.formula(differences, jax.ShapeDtypeStruct((4,), np.float32)))
    assert shown == "update = concatenate(g - slice[3:4](g), g - slice[0:3](g))"


def test_an_extra_argument_has_its_name():
    halved = gradtx.GradientTransformation(
        lambda params: (),
        lambda g, state, params=None, *, value: (jax.tree.map(lambda x: x / value, g), state),
    )
    assert str(gradtx.formula(gradtx.chain(halved, gradtx.sgd(0.5)))) == "update = -learning_rate g / value"


@pytest.mark.wide
def test_no_line_is_longer_than_100_columns():
    tx = gradtx.guard(gradtx.lookahead(gradtx.adamw(COSINE), 5, 0.5))
    shown = str(gradtx.formula(tx))
    assert len(shown.splitlines()) > 20 and max(map(len, shown.splitlines())) <= 100
    assert "cos(pi " in shown


@gradtx.recipe
def confusing(t: gradtx.ScalarOrSchedule, theta: gradtx.ScalarOrSchedule, noise: gradtx.ScalarOrSchedule):
    """Hyperparameters with the names of what a formula is about."""
    return gradtx.chain(gradtx.scale(t), gradtx.add_decayed_weights(theta), gradtx.scale(noise))


def test_a_hyperparameter_is_not_taken_for_what_has_its_name():
    found = gradtx.formula(confusing(0.25, 0.5, -1.0))
    assert str(found).startswith("update = confusing.noise (confusing.t g + confusing.theta theta)")
    assert found.values == {"confusing.t": 0.25, "confusing.theta": 0.5, "confusing.noise": -1.0}
    scheduled = gradtx.formula(
        confusing(gradtx.linear_schedule(0.0, 1.0, 10), lambda step: 0.5 * step.astype(np.float32), 1.0)
    )
    assert scheduled.definitions.keys() == {"confusing.t", "confusing.theta"}
    assert gradtx.diff(confusing(0.25, 0.5, -1.0), confusing(0.75, 0.5, -1.0))


def test_an_extra_argument_is_no_hyperparameter_of_its_name():
    @gradtx.recipe
    def named(value: gradtx.ScalarOrSchedule):
        return gradtx.scale(value)

    given = gradtx.GradientTransformation(
        lambda params: (),
        lambda g, state, params=None, *, value: (jax.tree.map(lambda x: x * value, g), state),
    )
    assert str(gradtx.formula(gradtx.chain(given, named(0.5)))) == "update = named.value g value"


def times(constant):
    return gradtx.stateless_with_tree_map(lambda g, p: g * constant(g))


@pytest.mark.wide
def test_constants_and_noises_are_told_apart():
    leaf = jax.ShapeDtypeStruct((100,), np.float32)
    ramp, square = (np.linspace(0.0, 1.0, 100, dtype=np.float32) ** power for power in (1, 2))
    keys = [jax.random.key(i) for i in range(2)]
    for (a, b), shown in (
        ([lambda g, x=x: jnp.asarray(x) for x in (ramp, square)], "constant@"),
        ([lambda g, key=key: jax.random.normal(key, g.shape) for key in keys], "noise - noise_1"),
    ):
        same, other = (str(gradtx.formula(times(lambda g, c=c, a=a: a(g) - c(g)), leaf)) for c in (a, b))
        assert same == "update = 0" and shown in other
        assert gradtx.diff(times(a), times(b), leaf) and not gradtx.diff(times(a), times(a), leaf)
    noisy = [gradtx.noisy_sgd(0.1, key=key) for key in (0, 1)]
    assert gradtx.diff(*noisy) and not gradtx.diff(noisy[0], gradtx.track(gradtx.noisy_sgd(0.1, key=0)))


def test_rows_are_no_columns():
    upper = times(lambda g: jnp.triu(jnp.ones(g.shape, g.dtype)))
    shown = str(gradtx.formula(upper, jax.ShapeDtypeStruct((3, 3), np.float32)))
    assert "position[axis=0]" in shown and "position[axis=1]" in shown


MATRICES = {
    "newton_schulz": (lambda m: 1.5 * m - 0.5 * (m @ m.T) @ m, "update = 1.5 g - 0.5 (g @ g^T) @ g"),
    "transposed": (lambda m: (m.T @ m @ m.T).T, "update = (g^T @ g @ g^T)^T"),
    "there and back": (lambda m: m.T.T, "update = g"),
    "norm": (lambda m: m / jnp.linalg.norm(m), "update = g / sqrt(sum(g^2))"),
    "norms of rows": (
        lambda m: m / jnp.linalg.norm(m, axis=1, keepdims=True),
        "update = g / sqrt(sum(g^2, axis=1))",
    ),
    "spectral norm": (lambda m: m / jnp.linalg.norm(m, ord=2), "update = g / max(0, largest(svd(g)))"),
    "qr": (lambda m: jnp.linalg.qr(m)[0] @ jnp.linalg.qr(m)[1], "update = qr.Q(g) @ qr.R(g)"),
    "svd": (
        lambda m: (lambda u, s, vh: u @ vh)(*jnp.linalg.svd(m, full_matrices=False)),
        "update = svd.U(g) @ svd.Vh(g)",
    ),
    "eigh": (
        lambda m: (lambda w, v: v @ v.T)(*jnp.linalg.eigh(m @ m.T, symmetrize_input=False)) @ m,
        "update = eigh.vectors(g @ g^T) @ eigh.vectors(g @ g^T)^T @ g",
    ),
    "cholesky": (
        lambda m: (jnp.linalg.cholesky(m.T @ m, symmetrize_input=False) @ m.T).T,
        "update = (where(position[axis=0] >= position[axis=1], cholesky(g^T @ g), 0) @ g^T)^T",
    ),
    "triangular_solve": (
        lambda m: jax.lax.linalg.triangular_solve(m.T @ m, m.T, left_side=True, lower=True).T,
        "update = triangular_solve(g^T @ g, g^T)^T",
    ),
    "solve": (lambda m: jnp.linalg.solve(m @ m.T + jnp.eye(6), m), "update = solve(g @ g^T + I, g^T)^T"),
    "vectors": (lambda m: m * jnp.vdot(m, m), "update = g sum(g^2)"),
    "sums": (lambda m: (m @ jnp.ones(4))[:, None] * m, "update = sum(g, axis=1) g"),
    "axes": (
        lambda m: m * jnp.tensordot(m, m.T, ((0, 1), (1, 0))),
        "update = g einsum[ij,ji->](g, g^T)",
    ),
    "rows": (lambda m: jnp.einsum("ij,ij->i", m, m)[:, None] * m, "update = sum(g^2, axis=1) g"),
    "largest": (lambda m: m / jnp.max(m, axis=0, keepdims=True), "update = g / largest(g, axis=0)"),
}


@pytest.mark.parametrize(("fn", "shown"), MATRICES.values(), ids=list(MATRICES))
def test_matrices_print_as_mathematics(fn, shown):
    class OfAMatrix(gradtx.Rule, name="of_a_matrix"):
        def apply(self, g, slots, leaf):
            return fn(g), slots

    found = gradtx.formula(OfAMatrix(), {"w": jax.ShapeDtypeStruct((6, 4), np.float32)}, "w")
    assert str(found) == shown
    assert found.update.source()


def test_a_batch_of_matrices_prints_as_one():
    class Gram(gradtx.Rule, name="gram"):
        def apply(self, g, slots, leaf):
            return jnp.einsum("bij,bkj->bik", g, g) @ g, slots

    assert str(gradtx.formula(Gram(), jax.ShapeDtypeStruct((3, 6, 4), np.float32))) == "update = g @ g^T @ g"


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("leaf", ["empty", "full"])
@pytest.mark.parametrize("shape", [(0,), (0, 3)])
def test_a_leaf_without_elements_has_a_formula(leaf, shape):
    params = {"empty": jnp.zeros(shape), "full": jnp.ones(2)}
    inner = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.1, momentum=0.9))
    for tree in (params, {"empty": params["empty"]}):
        for tx in (inner, gradtx.flatten(inner), gradtx.flatten(gradtx.guard(inner))):
            shown = str(gradtx.formula(tx, tree, leaf if leaf in tree else "empty"))
            assert "update" in shown


def test_the_number_that_a_function_of_the_step_gave_last_is_no_setting():
    tx = gradtx.sgd(lambda step: 0.1 * step.astype(jnp.float32))
    assert str(gradtx.formula(tx, VECTOR)) == "update        = -learning_rate g\nlearning_rate = 0.1 (t - 1)"


# LaTeX.


def test_a_formula_in_latex_says_what_its_letters_are():
    found = gradtx.formula(gradtx.adagrad(0.1))
    assert (
        found.latex()
        == r"""\begin{aligned}
{\mathrm{sum\_of\_squares}}_{t} &= {\mathrm{sum\_of\_squares}}_{t-1} + {g_t}^{2} \\
u_t &= -\eta\,\dfrac{g_t}{\sqrt{{\mathrm{sum\_of\_squares}}_{t} + \varepsilon}} \\
&\text{at first } {\mathrm{sum\_of\_squares}}_{0} = 0.1 \\
&\text{where } \varepsilon = \mathrm{eps},\; \eta = \mathrm{learning\_rate}
\end{aligned}"""
    )
    assert found._repr_latex_() == f"$\\displaystyle {found.latex()}$"
    assert found.update.latex() == r"-\eta\,\dfrac{g_t}{\sqrt{\mathrm{sum\_of\_squares}' + \varepsilon}}"


def test_latex_tells_apart_what_ends_alike():
    body = gradtx.formula(gradtx.chain(gradtx.trace(0.9), gradtx.trace(0.5))).latex()
    assert r"\mathrm{trace.decay}\," in body and r"\mathrm{trace\_1.decay}\," in body
    assert r"&\text{with } \mathrm{trace.dampening} = 0" in body


CLIPPED = gradtx.chain(
    gradtx.clip_by_global_norm(1.0), gradtx.scale(gradtx.polynomial_schedule(0.1, 0.0, 2, 9))
)


@pytest.mark.parametrize(
    "tx", [CLIPPED, gradtx.radam(0.1), gradtx.sgd(COSINE)], ids=["clipped", "radam", "sgd"]
)
def test_latex_is_balanced_and_no_line_of_it_is_too_wide(tx):
    body = gradtx.formula(tx).latex()
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", body):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0 and body.count(r"\left") == body.count(r"\right")
    assert re.findall(r"\\begin{(\w+)}", body) == ["aligned", *["cases"] * body.count(r"\begin{cases}")]
    assert body.count(r"\begin") == body.count(r"\end") and "where(" not in body
    for line in re.split(r"\\\\", re.sub(r"\\text{where } .*", "", body)):
        assert latex._letters_in(line) < 2 * latex.WIDE, line
