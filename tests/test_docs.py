"""Every Python snippet of the README and the documents runs and prints what it shows."""

import doctest
import inspect
import re
import shutil
from pathlib import Path

import jax
import pytest

import gradtx
import placement_picture
from gradtx.core.loops.compiler import check_machine

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *(page for folder in ("docs", "docs/tutorials") for page in sorted((ROOT / folder).glob("*.md"))),
]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture
def as_users_have_it():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.by_turns(1)
@pytest.mark.usefixtures("as_users_have_it")
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_snippets_run_as_shown(page):
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.M | re.S)
    is_native = any('gradtx.kernels("native")' in block for block in blocks)
    if is_native and not any(map(shutil.which, ("cc", "gcc", "clang"))):
        with pytest.raises(RuntimeError, match="needs a C compiler"):  # as the page says
            check_machine()
        return
    runner, scope = doctest.DocTestRunner(optionflags=FLAGS), {"__name__": "__main__"}
    for i, block in enumerate(blocks):
        if ">>>" in block:
            example = doctest.DocTestParser().get_doctest(block, scope, f"{page.name}[{i}]", None, 0)
            runner.run(example, clear_globs=False)
            scope.update(example.globs)
        else:
            exec(compile(block, f"{page.name}[{i}]", "exec"), scope)
    assert runner.summarize(verbose=False).failed == 0


def test_the_readme_has_each_command_once():
    text = (ROOT / "README.md").read_text()
    for extra, run in ("examples", "python examples/train_lm.py"), ("test", "pytest"):
        command = f'python3 -m venv .venv && .venv/bin/pip install -e ".[{extra}]" && .venv/bin/{run}'
        assert text.count(command + "\n") == 1


def test_the_picture_of_who_keeps_what_is_where_gradtx_places_it():
    assert placement_picture.TARGET.read_text() == placement_picture.draw()


def test_the_table_of_couplings_is_what_the_optimizers_do():
    """And every optimizer is in it, or in the words below it."""
    section = (ROOT / "docs" / "conventions.md").read_text()
    section = section.split("## Where weight decay enters")[1].split("\n## ")[0]
    rows = re.findall(r'^\| `"(\w+)"` \|.*\| ([^|]*)\|$', section, flags=re.M)
    said = {name: coupling for coupling, names in rows for name in re.findall(r"`(\w+)`", names)}
    fixed = set(re.findall(r"`(\w+)`", section.split("\nFixed:")[1]))
    for name in gradtx.__all__:
        thing = getattr(gradtx, name)
        if getattr(thing, "__module__", "").startswith("gradtx.optimizers"):
            parameters = inspect.signature(thing).parameters
            if "decay_coupling" in parameters:
                assert said.pop(name) == parameters["decay_coupling"].default, name
            else:
                assert name in fixed, name
    assert not said
