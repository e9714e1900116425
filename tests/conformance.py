"""Write `docs/conformance.md`: how far each optimizer is from recordings of official implementations.

    python tests/conformance.py

The recordings are those of `golden/make_torch.py`, `golden/make_official.py`, `golden/make_matrices.py` and
`golden/make_qk_clip.py`, and those of formats `golden/make_formats.py` has made.
"""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from golden import (
    MATRIX_CASES,
    MATRIX_SOURCES,
    OFFICIAL_CASES,
    QK_CASES,
    RECORDED_ONLY,
    TORCH_CASES,
    load_official,
    load_qk_clip,
    load_torch,
)
from matrix_trajectories import RECORDED, trajectory
from recorded_codes import OF_FORMATS, codes, recorded
from trajectories import x64

LAYERS, QK_COMMITS = load_qk_clip()
PAGE = Path(__file__).parents[1] / "docs" / "conformance.md"

HEAD = """# Conformance

Optimizers beside official implementations, or well-known ones where an algorithm's authors published no
package: recorded once by committed scripts, which name the versions (`tests/golden/make_torch.py`,
`tests/golden/make_official.py`, `tests/golden/make_matrices.py`, `tests/golden/make_qk_clip.py`), and
compared in every run of the tests.
Each recording has 100 steps in float64 on quadratics with noise, on a matrix and a vector, of which one
element never has a gradient; those of methods on matrices are on three matrices, with gradients that wander,
and those of QK-clip are of one step, on the weights of a layer.
The deviation is the largest one of a parameter at a recorded step, relative to the largest value that this
parameter has had. Every rule also follows a reference in numpy that was written apart from it, to 1e-12
over 120 steps, or 1e-9 where matrices are multiplied or decomposed (`tests/test_formulas.py`).

This page is written by `python tests/conformance.py`.

| case | in gradtx | source | steps | largest deviation |
|---|---|---|---|---|
"""

FORMATS = """
## Formats of slots

What a slot is kept in, beside the codes that another library makes of the same blocks of 128 elements over
six decades (`tests/golden/make_formats.py`). Where a format here keeps a number in another way on purpose,
its code is left out, and the last column says why.

| format | source | codes compared | that differ | left out | because |
|---|---|---|---|---|---|
"""

TAIL = """
## Recorded, and not compared

| case | why |
|---|---|
"""


def built(x):
    """What an entry of the tables stands for."""
    match x:
        case (str(name), dict(kwargs)):
            return getattr(gradtx, name)(**built(kwargs))
        case (str(name), list(args)):
            return getattr(gradtx, name)(*built(args))
        case dict():
            return {key: built(value) for key, value in x.items()}
        case list():
            return [built(value) for value in x]
    return x


def deviation(tx, recording, grads_by_step, expected) -> float:
    """The largest deviation of a parameter from what was recorded."""
    with x64():
        params = [jnp.asarray(p) for p in recording.params]
        state, history = tx.init(params), []

        @jax.jit
        def step(grads, state, params):
            return gradtx.apply_gradients(tx, grads, state, params)

        for grads_at in grads_by_step:
            grads = [jnp.asarray(g) for g in grads_at([np.asarray(p) for p in params])]
            params, state = step(grads, state, params)
            history.append([np.asarray(p) for p in params])
    worst = 0.0
    for i in range(len(recording.params)):
        theirs = np.array([leaves[i] for leaves in expected])
        ours = np.array([history[number - 1][i] for number in recording.steps])
        size = np.maximum.accumulate(np.maximum(np.abs(theirs), np.abs(recording.params[i])))
        worst = max(worst, float(np.max(np.abs(ours - theirs) / size)))
    return worst


def of_matrices(case) -> float:
    """The same for a case of matrices."""
    worst, expected = 0.0, RECORDED.trajectories[case]
    for i, start in enumerate(RECORDED.params):
        ours, theirs = (np.array([leaves[i] for leaves in found]) for found in (trajectory(case), expected))
        size = np.maximum.accumulate(np.maximum(np.abs(theirs), np.abs(start)))
        worst = max(worst, float(np.max(np.abs(ours - theirs) / size)))
    return worst


def of_qk_clip(case) -> float:
    """The same for what QK-clip makes of weights, without a step of an optimizer."""
    recorded = LAYERS[case]
    names = [name.removesuffix("_new") for name in recorded if name.endswith("_new")]
    tx = gradtx.qk_clip(dict(zip(names, names, strict=True)), **QK_CASES[case][1])
    with x64():
        params = {name: jnp.asarray(recorded[name]) for name in names}
        still, largest = jax.tree.map(jnp.zeros_like, params), jnp.asarray(recorded["max_logits"])
        new, _ = gradtx.apply_gradients(tx, still, tx.init(params), params, max_logits=largest)
        return max(
            float(np.max(np.abs(np.asarray(new[n]) - recorded[f"{n}_new"]) / np.abs(recorded[n])))
            for n in names
        )


def rows():
    """The rows of the table."""
    torch, official = load_torch(), load_official()
    version = torch.versions["torch"].partition("+")[0]
    for case, entry in TORCH_CASES.items():
        worst = deviation(built(entry), torch, torch.grads_by_step, torch.trajectories[case])
        yield case, entry[0], f"torch {version}", 100, worst
    for case, entry in OFFICIAL_CASES.items():
        source = official.sources[case]
        where = f"{source['package']} {source['version'].partition('+')[0]}, `{source['class']}`"
        expected = official.trajectories[case]
        worst = deviation(built(entry), official, official.grads_by_step(case), expected)
        yield case, entry[0], where, 100, worst
    for case, (name, _) in MATRIX_CASES.items():
        yield case, name, source_of(case, name, version), 100, of_matrices(case)
    for case, (repository, _) in QK_CASES.items():
        commit = QK_COMMITS[repository.replace("/", "+")]
        yield case, "qk_clip", f"{repository} {commit[:7]}", 1, of_qk_clip(case)


def rows_of_formats() -> list[str]:
    """The rows of the table of formats."""
    source, rows = f"torchao {recorded()['version']}", []
    for name in OF_FORMATS:
        found = codes(name)
        compared, different, left_out = found.counts
        counts = f"{compared:,} | {different:,} | {left_out:,}"
        rows.append(f"| `{name}` | {source} | {counts} | {found.otherwise} |\n")
    return rows


def source_of(case, name, version) -> str:
    """Where a case of matrices comes from."""
    if case.startswith("optax"):
        return f"optax {RECORDED.versions['optax']}"
    repository = MATRIX_SOURCES.get(name, "")
    commit = RECORDED.commits.get(repository.replace("/", "+"), "")
    return f"{repository} {commit[:7]}" if commit else f"torch {version}"


def main() -> None:
    """Writes the page."""
    lines = [
        f"| {case} | `{name}` | {source} | {steps} | {worst:.1e} |\n"
        for case, name, source, steps, worst in rows()
    ]
    reasons = [f"| {case} | {why} |\n" for case, why in RECORDED_ONLY]
    PAGE.write_text(HEAD + "".join(lines) + FORMATS + "".join(rows_of_formats()) + TAIL + "".join(reasons))


if __name__ == "__main__":
    main()
