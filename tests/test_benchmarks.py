"""What the benchmark of looking in and moving measures runs, so that no name in it has moved away."""

import pytest

from benchmarks import looking, trees

pytestmark = pytest.mark.wide
PARAMS = trees.filled(trees.transformer(1, 8, 16, 8))
CALLS = {
    "in groups": lambda: looking.looks(looking.grouped, PARAMS),
    "moving": lambda: looking.moves(PARAMS),
    "planning": looking.plans,
}


@pytest.mark.parametrize("make", CALLS.values(), ids=CALLS)
def test_each_call_gives_something(make):
    for name, call in make().items():
        assert call() is not None, name
