"""States and configs of released versions load, and training goes on from them as it went on then.

`docs/stability.md` says what is promised; `tests/golden/make_release.py` wrote the files when a version was
released. What is written there stays.
"""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

import gradtx
from golden import make_release as release

VERSIONS = sorted(path.name for path in release.FOLDER.iterdir() if path.name[0].isdigit())
KEPT = [
    (version, path.stem) for version in VERSIONS for path in sorted((release.FOLDER / version).glob("*.npz"))
]


@pytest.fixture(autouse=True)
def settings():
    with jax.numpy_dtype_promotion("standard"):
        yield


def config_of(version, name):
    return json.loads((release.FOLDER / version / "configs.json").read_text())[name]


def test_there_are_files_of_the_first_version():
    assert "0.1.0" in VERSIONS
    names = {name for version, name in KEPT if version == "0.1.0"}
    assert len(names) >= 16
    assert names == {*json.loads((release.FOLDER / "0.1.0" / "configs.json").read_text())}


def test_the_files_are_small():
    for version in VERSIONS:
        assert sum(path.stat().st_size for path in (release.FOLDER / version).iterdir()) < 130_000


@pytest.mark.parametrize("version, name", KEPT)
def test_a_config_of_a_release_builds_what_it_built(version, name):
    tx = gradtx.from_config(config_of(version, name))
    assert gradtx.from_config(gradtx.to_config(tx)) == tx
    if version == gradtx.__version__:
        assert tx == release.CASES[name]


@pytest.mark.by_turns(4)
@pytest.mark.parametrize("version, name", KEPT)
def test_a_state_of_a_release_goes_on_as_it_did(version, name):
    with np.load(release.FOLDER / version / f"{name}.npz") as file:
        kept = dict(file)
    params, after = release.unflat(kept.pop("params")), kept.pop("after")
    stored = {key.removeprefix("state/"): x for key, x in kept.items()}
    tx = gradtx.from_config(config_of(version, name))
    state, restored = gradtx.from_state_dict(tx, params, stored)
    assert not (restored.new or restored.dropped or restored.reshaped or restored.cast)
    assert gradtx.step_count(state) == release.BEFORE
    new, _ = release.run(tx, params, state, release.AFTER)
    np.testing.assert_allclose(release.flat(new), after, rtol=1e-6, atol=1e-6)
    # What was recorded is what the steps make, and not where they began.
    assert not np.allclose(after, release.flat(params), rtol=1e-6, atol=1e-6)
