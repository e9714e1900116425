"""What `dir` and a tab show of the package: what is public, and nothing else."""

import re
import subprocess
import sys

import pytest

import gradtx
import gradtx.flax
import gradtx.testing
import gradtx.typing

SPACES = ["contrib", "flax", "schedules", "testing", "transforms", "tree", "tree_utils", "typing"]


def shown(module):
    return {name for name in dir(module) if not re.fullmatch("__.*__", name)}


def test_dir_of_the_package_is_what_is_public():
    assert shown(gradtx) == {*gradtx.__all__, "flax", "testing", "typing"}
    assert {"__doc__", "__version__"} <= {*dir(gradtx)}
    assert dir(gradtx) == sorted(dir(gradtx))


@pytest.mark.parametrize("name", SPACES)
def test_dir_of_a_namespace_is_what_is_public(name):
    module = getattr(gradtx, name)
    assert shown(module) == {*module.__all__}
    assert all(hasattr(module, public) for public in dir(module))


@pytest.mark.wide
def test_what_needs_an_import_of_its_own_is_shown_when_it_is_there():
    """Flax may not be installed, and `gradtx.flax` is no attribute before it is imported."""
    code = (
        "import gradtx; before = {*dir(gradtx)}; import gradtx.testing;"
        "print(*sorted({*dir(gradtx)} - before)); print(all(hasattr(gradtx, name) for name in before))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["testing", "True"]
