"""The formula of a transform or schedule on its page, as `gradtx.formula` reads it from what runs."""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp

import gradtx
from reference import latex
from reference.names import prose

ARGUMENTS = {
    "learning_rate": "0.1",
    "clipping": "0.01",
    "max_delta": "1.0",
    "max_norm": "1.0",
    "threshold": "1.0",
    "decay": "0.9",
    "eta": "0.01",
    "gamma": "0.55",
    "value": "1e-3",
    "step_size": "0.5",
    "init_value": "0.0",
    "end_value": "0.01",
    "peak_value": "0.1",
    "transition_steps": "100",
    "warmup_steps": "10",
    "decay_steps": "100",
    "decay_begin": "80",
    "decay_rate": "0.9",
    "power": "2.0",
    "inner": "sgd(0.1)",
    "base_optimizer": "sgd(0.1)",
    "max_backtracking_steps": "20",
}
"""What an argument is given that has no default."""

CALLS = {
    "sgd": "sgd(0.1, momentum=0.9)",
    "scale_by_learning_rate": "scale_by_learning_rate(0.1)",
    "cautious": "cautious(scale_by_lion())",
    "grams": "grams(scale_by_lion())",
    "accumulate": "accumulate(sgd(0.1), every=4)",
    "lookahead": "lookahead(sgd(0.1), sync_period=5, slow_step_size=0.5)",
    "sam": "sam(sgd(0.1), sgd(0.05), sync_period=2)",
    "dpsgd": "dpsgd(0.1, l2_norm_clip=1.0, noise_multiplier=1.0, seed=0)",
    "ema_nesterov": "ema_nesterov(sgd(0.1), beta=0.9)",
    "schedule_free": "schedule_free(sgd(0.1), 0.1)",
    "ema_params": "ema_params(sgd(0.1), 0.99)",
    "chain": "chain(clip(1.0), trace(0.9), scale_by_learning_rate(0.1))",
    "ratio": "ratio(identity(), chain(sign(), offset(1e-3)))",
    "add": "add(trace(0.9), identity())",
    "half_life_schedule": "half_life_schedule(0.1, 0.001, 100)",
    "piecewise_constant_schedule": "piecewise_constant_schedule(0.1, {50: 0.1})",
    "piecewise_interpolate_schedule": "",
    "join_schedules": "",
    "sgdr_schedule": "",
    "matrix_view": "",
    "recipe": "",
}
"""Calls that say more than the arguments above; an empty one where a formula says nothing."""

KERNEL = {"kernel": jax.ShapeDtypeStruct((4, 3), jnp.float32)}
"""A leaf that is a matrix by its name and shape."""

MOST_LINES = 9
"""The equations that stand at the top of a page; more of them are shown when they are asked for."""
LOOPS, MOST_CARRIED = ("scan", "while"), 6
"""Of a loop a formula has what goes in alone; where that is much, it is no mathematics, and stays as text."""


def section(name: str, thing: Any) -> tuple[list[str], list[str]]:
    """The formula for the top of a page if it is short, else for its end; a page may have neither."""
    call = _call(name, thing)
    if not call:
        return [], []
    built, on = eval(call, dict(vars(gradtx))), ""
    if isinstance(built, gradtx.Schedule):
        formula = gradtx.formula(gradtx.sgd(built))
        equations, text = latex.schedule_lines(formula), ""
        key = "$s_n$ is the value at step $n$, from 0."
    else:
        formula, on = _formula(built)
        equations, text, key = latex.lines(formula), str(formula), _key(formula)
    source = f"Read from the code of `{call}`{on and f' on {on}'} by {prose('`gradtx.formula`', '../')}."
    if text == "update = g":
        return [], []
    if latex.carries(formula, LOOPS) > MOST_CARRIED:
        return [], _dropdown(f"{source}\n", f"```text\n{text}\n```\n")
    rest = [f"`{line}`" for line in text.splitlines() if line.startswith(("with ", "at first "))]
    words = f"{{.key}}\n{' '.join([source, key, *rest])}\n"
    shown = [_displayed(equations), words]
    return (["## Formula\n", *shown], []) if len(equations) <= MOST_LINES else ([], _dropdown(*shown))


def _dropdown(*parts: str) -> list[str]:
    return ["````{dropdown} The formula, as it runs\n", *parts, "````\n"]


def _displayed(equations: list[str]) -> str:
    lines = "\\\\[0.6em]\n".join(equations)
    return f"```{{math}}\n\\begin{{aligned}}\n{lines}\n\\end{{aligned}}\n```\n"


def _call(name: str, thing: Any) -> str:
    if name in CALLS:
        return CALLS[name]
    is_builder = inspect.isfunction(thing) and str(inspect.signature(thing).return_annotation) in (
        "Transform",
        "Schedule",
    )
    if not is_builder or "." in name:
        return ""
    parameters = inspect.signature(thing).parameters.values()
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p for p in parameters if p.default is p.empty and p.kind not in kinds]
    if any(p.name not in ARGUMENTS for p in needed) or any(p.kind in kinds for p in parameters):
        return ""
    return f"{name}({', '.join(ARGUMENTS[p.name] for p in needed)})"


def _formula(tx: Any) -> tuple[Any, str]:
    try:
        return gradtx.formula(tx), ""
    except ValueError:  # it is of some leaves only, such as matrices
        return gradtx.formula(tx, KERNEL, "kernel"), "a matrix of 4 x 3"


def _key(formula: Any) -> str:
    """What the letters are."""
    named = [f"${letter}$ is `{name}`" for name, letter in latex.letters(formula).items()]
    standing = [r"$g_t$ is the gradient of step $t$, from 1", r"$u_t$ the update"]
    if "theta" in formula.used():
        standing.append(r"$\theta_{t-1}$ the parameter")
    return ", ".join(standing) + "." + (f" {', '.join(named)}." if named else "")
