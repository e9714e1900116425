"""What the package promises as a whole: its dependencies, the direction of its imports, its size."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gradtx

PACKAGE = Path(gradtx.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
LAYERS = {
    "_names": 0,
    "_pages": 0,
    "core": 0,
    "formulas": 1,
    "transforms": 1,
    "schedules": 1,
    "wrappers": 2,
    "linesearch": 2,
    "optimizers": 2,
    "interop": 3,
    "inspect": 3,
}
OPTIONAL = {"flax.py", "plot.py", "to_optax.py"}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.wide
def test_importing_gradtx_imports_jax_and_numpy_alone():
    code = (
        "import sys, jax, jax.numpy; before = set(sys.modules); import gradtx;"
        "print(*{m.split('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(result.stdout.split()) <= {"gradtx", "jax", "jaxlib", "numpy"}


@pytest.mark.wide
def test_what_looks_in_and_moves_is_imported_when_it_is_asked_for():
    code = (
        "import sys, gradtx; names = set(gradtx.__all__) - set(vars(gradtx));"
        "assert set(gradtx.__all__) <= set(dir(gradtx)), dir(gradtx);"
        "print(*{m.split('.')[1] for m in sys.modules if m.startswith('gradtx.')});"
        "print(*names); from gradtx import *; print(*(f.__module__.split('.')[1] for f in map(eval, names)));"
        "print(*set(gradtx.__all__) - set(vars(gradtx)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded, names, modules, missing = map(str.split, result.stdout.splitlines())
    late = {"formulas", "inspect", "interop"}
    assert not late & {*loaded}
    assert {"formula", "check", "from_optax_state", "to_config"} < {*names}
    assert {*modules} == late
    assert not missing


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way_and_stay_within_the_dependencies(path):
    layer = LAYERS.get(path.relative_to(PACKAGE).parts[0])
    for module in imports(path):
        first, *rest = module.split(".")
        if first == "gradtx" and layer is not None and rest:
            assert LAYERS.get(rest[0], layer + 1) <= layer, f"{path} imports {module}"
        elif path.name not in OPTIONAL:
            allowed = first in {"gradtx", "jax", "numpy"} or first in sys.stdlib_module_names
            assert allowed, f"{path} imports {module}"


CORE = {
    "numerics.py": 130,
    "shards.py": 100,
    "summing.py": 60,
    "norms.py": 175,
    "products.py": 40,
    "decompositions.py": 60,
    "polar.py": 175,
    "roots.py": 90,
    "rounding.py": 45,
    "splits.py": 85,
    "loops": 830,
    "spec": 550,
    "numbers": 790,
    "engine": 4_700,
    "compose": 525,
}
"""The rooms of the core, in the order of their imports, with a bound for the lines of code of each."""


@pytest.mark.parametrize("room, bound", CORE.items())
def test_each_room_of_the_core_stays_small(room, bound):
    """The lines of code without docstrings, comments and blank lines."""
    assert sum(map(code_lines, rooms()[room])) < bound


@pytest.mark.parametrize("room", CORE)
def test_a_room_of_the_core_imports_those_before_it(room):
    before = list(CORE)[: list(CORE).index(room) + 1]
    allowed = {f"gradtx.core.{name.removesuffix('.py')}" for name in before}
    for path in rooms()[room]:
        for module in imports(path):
            if module.startswith("gradtx."):
                assert ".".join(module.split(".")[:3]) in allowed, f"{path} imports {module}"


def rooms():
    """The files of each room."""
    found = {room: [] for room in CORE}
    for path in (PACKAGE / "core").rglob("*.py"):
        room = path.relative_to(PACKAGE / "core").parts[0]
        if room != "__init__.py":
            found[room].append(path)
    return found


def code_lines(path):
    source = path.read_text()
    documented: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            documented.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(source.splitlines(), 1)
    return sum(1 for i, line in lines if line.split("#")[0].strip() and i not in documented)


def test_the_package_is_typed_and_names_its_version():
    assert (PACKAGE / "py.typed").exists()
    assert gradtx.__version__.count(".") == 2


@pytest.mark.wide
def test_moving_knows_nothing_of_looking():
    """What stores and moves states runs without what describes them, and builds on no public face."""
    for path in (PACKAGE / "interop").rglob("*.py"):
        for module in imports(path):
            assert not module.startswith("gradtx.inspect"), f"{path} imports {module}"
    for folder in LAYERS:
        for path in (PACKAGE / folder).rglob("*.py"):
            assert "gradtx" not in imports(path), f"{path} imports the face of the package"
