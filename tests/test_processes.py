"""One run on any number of devices and processes: the same numbers, also when it moves or one is killed."""

import contextlib
import os
import pickle
import time

import jax
import numpy as np
import pytest

from process_worker import LEAVES, Run, joined, mesh_of
from processes import together

EPS = float(np.finfo(np.float32).eps)
DEPTH = np.log2(sum(np.prod(shape) for shape, *_ in LEAVES.values()))
"""How many sums are between an element and the global norm, where they are added in pairs."""

OF_NORMS = {"guard": ("guard/mean", "guard/std", "guard/metrics"), "clipped": ("",), "muon": ("",)}
"""What follows from norms or products, whose sums have another order on each mesh, by a part of its path."""

if "--xla_backend_optimization_level=0" not in os.environ.get("XLA_FLAGS", ""):
    # Where the cut into shards is in a leaf's kernel, a CPU may round a product and a sum once and not twice.
    OF_NORMS["zero"] = ("",)

STEPS = 4


@pytest.fixture(scope="module")
def alone():
    """The run on one device, without a mesh."""
    run = Run(None).go_on(STEPS)
    return run.norms, joined([run.shards()])


def is_of_norms(name, path):
    return any(part in path for part in OF_NORMS.get(name, ()))


def assert_same(found, expected):
    """Bit for bit, but for what follows from norms."""
    for name, arrays in found.items():
        assert arrays.keys() == expected[name].keys()
        for path, x in arrays.items():
            other = expected[name][path]
            assert x.dtype == other.dtype and x.shape == other.shape
            if is_of_norms(name, path):
                # The direction of Adam does not change with the norm, and a step is of size 0.1. The guard's
                # deviation is a small difference of norms.
                np.testing.assert_allclose(x.astype("f8"), other.astype("f8"), rtol=100 * EPS, atol=2e-6)
            else:
                assert x.tobytes() == other.tobytes(), f"{name}: {path}"


def assert_norms(found, expected):
    np.testing.assert_allclose(found, expected, rtol=4 * EPS * DEPTH)


def assert_guarded(arrays):
    """The step with a gradient that is no number in one shard was skipped by all."""
    guard = arrays["guard"]
    assert guard["state/step"] == STEPS and guard["state/slots/guard/inner/step"] == STEPS - 1
    assert all(np.isfinite(x.astype("f8")).all() for path, x in guard.items() if path.startswith("params"))


MESHES = [{"data": 8}, {"data": 4, "model": 2}, {"data": 1}, {"data": 2}, {"data": 4}]
EACH = [(axes, kind) for axes in MESHES for kind in ("Auto", "Explicit")]


@pytest.mark.wide
@pytest.mark.parametrize(
    ("axes", "kind"),
    [pytest.param(*case, marks=() if case == EACH[0] else pytest.mark.full) for case in EACH],
    ids=lambda value: "x".join(map(str, value.values())) if isinstance(value, dict) else value,
)
def test_steps_are_the_same_on_every_mesh(axes, kind, alone):
    mesh = mesh_of(axes, kind)
    with jax.set_mesh(mesh) if kind == "Explicit" else contextlib.nullcontext():
        run = Run(mesh).go_on(STEPS)
    assert_norms(run.norms, alone[0])
    assert_same(joined([run.shards()]), alone[1])
    assert_guarded(joined([run.shards()]))


CHAINS = {
    "2-1": [(2, 4, {"data": 4, "model": 2})],
    "4-2-1": [(4, 2, {"data": 8}), (2, 2, {"data": 2, "model": 2})],
    "8-2-4-1": [(8, 1, {"data": 8}), (2, 2, {"data": 4}), (4, 2, {"data": 4, "model": 2})],
}


@pytest.mark.wide
@pytest.mark.parametrize(
    "chain", [pytest.param(c, marks=() if c == "2-1" else pytest.mark.full) for c in CHAINS]
)
def test_a_run_moves_between_processes_and_meshes(chain, alone, tmp_path):
    """Each has the run for a step or two, saves it, and the next goes on with it on another mesh."""
    norms, last, begun = [], None, None
    for i, (count, devices, mesh) in enumerate(CHAINS[chain]):
        saved, out = str(tmp_path / f"{i}"), tmp_path / f"{i}.shards"
        work = {"mesh": mesh, "start": begun, "to": i + 1, "save": saved, "out": str(out), "dicts": not begun}
        together(count, devices, **work)
        found = [pickle.loads(path.read_bytes()) for path in sorted(tmp_path.glob(f"{out.name}.*"))]
        assert len(found) == count
        if begun:
            assert_bits(joined([each["restored"] for each in found]), last)
        norms, last, begun = norms + found[0]["norms"], joined([each["end"] for each in found]), saved
    run = Run(mesh_of({"data": 2})).restore(saved)
    assert_bits(joined([run.shards()]), last)
    run.go_on(STEPS)
    assert_norms(norms + run.norms, alone[0])
    assert_same(joined([run.shards()]), alone[1])
    assert_guarded(joined([run.shards()]))


def assert_bits(found, expected):
    for name, arrays in found.items():
        for path, x in arrays.items():
            assert x.tobytes() == expected[name][path].tobytes(), f"{name}: {path}"


@pytest.mark.wide
def test_a_process_is_killed_in_a_step_and_others_go_on(alone, tmp_path):
    """They end with the run that nothing has happened to, bit for bit."""
    began = time.monotonic()
    codes, texts = together(
        2,
        2,
        mesh={"data": 4},
        names=["adamw"],
        to=9,
        train_in=str(tmp_path),
        killed=3,
        patience=120,
        fails=True,
    )
    took = time.monotonic() - began
    assert codes[1] == -9 and codes[0] not in (0, None), f"{codes} after {took} s: {texts[0][-4000:]}"
    saved = max((path for path in tmp_path.iterdir() if path.name.isdigit()), key=lambda p: int(p.name))
    assert saved.name == "2"
    run = Run(mesh_of({"data": 8}), ["adamw"]).restore(saved).go_on(STEPS)
    assert_bits(joined([run.shards()]), alone[1])
