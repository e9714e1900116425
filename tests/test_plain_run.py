"""What a plain run has of each test, and what it leaves to `--rest`."""

import collections
from types import SimpleNamespace

import pytest

from catalogue import ENTRIES
from plain_run import in_a_plain_run, in_the_rest


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


def test_the_rest_has_a_half_of_many_cases_and_all_of_few():
    of = pytest.mark.by_turns
    many, few = items("test_a", 65, of(1).mark), items("test_b", 31, of(1).mark)
    wide = items("test_c", 3, pytest.mark.wide.mark)
    found = [*many, *few, *wide]
    assert len(in_the_rest(found)) == 32 + 30 + 3
    assert not in_the_rest(found) & in_a_plain_run(found)


# What has a case for each entry or public name in a plain run: the cheap laws, which share a compiled step,
# and what compiles nothing.
GROWS = {
    "test_catalogue.py::test_every_form_has_a_reference_or_a_reason",
    "test_catalogue.py::test_the_alternative_differs_in_every_number",
    "test_catalogue.py::test_every_public_function_has_an_example",
    "test_engine_properties.py::test_numbers_may_be_wider_than_the_leaves",
    "test_from_optax.py::test_every_entry_is_moved_or_has_a_reason",
    "test_laws.py::test_law",
    "test_no_hidden_state.py::test_the_state_says_the_domain_that_the_spec_says",
    "test_namespaces.py::test_a_common_function_takes_what_optaxs_takes",
    "test_print.py::test_what_is_printed_evaluates_to_an_equal_object",
    "test_surface.py::test_each_argument_is_described",
}


def test_what_grows_with_the_catalogue_is_named(request):
    """Any other test that goes over the entries goes by turns, so that a new entry adds no case of it."""
    items = [item for item in request.session.items if not item.get_closest_marker("full")]
    of_entries = collections.defaultdict(set)
    for item in in_a_plain_run(items):
        values = getattr(item, "callspec", SimpleNamespace(params={})).params.values()
        names = {getattr(x, "name", x) for x in values if isinstance(getattr(x, "name", x), str)} & set(
            ENTRIES
        )
        of_entries[item.nodeid.partition("[")[0].rpartition("/")[2]] |= names
    grown = {test for test, names in of_entries.items() if len(names) > len(ENTRIES) // 2}
    assert grown <= GROWS
