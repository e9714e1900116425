"""What a plain run has of each test, and what it leaves to `--rest`."""

from types import SimpleNamespace

import pytest

from plain_run import in_a_plain_run


class Item(SimpleNamespace):
    __hash__ = object.__hash__


def items(name, number, *marks):
    found = {mark.name: mark for mark in marks}
    return [Item(nodeid=f"{name}[{i}]", get_closest_marker=found.get) for i in range(number)]


def chosen(found):
    brief = in_a_plain_run(found)
    return [item.nodeid for item in found if item in brief]


def test_an_unmarked_test_runs_with_all_its_cases():
    assert len(chosen(items("test_a", 7))) == 7


def test_a_wide_test_is_left_out():
    assert chosen(items("test_a", 3, pytest.mark.wide.mark)) == []


def test_turns_are_spread_over_the_cases_and_each_test_has_its_own():
    of = pytest.mark.by_turns
    assert chosen(items("test_a", 9, of(3).mark)) == ["test_a[0]", "test_a[3]", "test_a[6]"]
    assert chosen(items("test_a", 2, of(3).mark)) == ["test_a[0]", "test_a[1]"]
    both = items("test_a", 4, of(1).mark) + items("test_b", 5, of(2).mark)
    assert chosen(both) == ["test_a[0]", "test_b[0]", "test_b[2]"]
