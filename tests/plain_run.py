"""Which tests a plain run has, and which `--rest`."""

MANY = 30
"""Of more cases than these that a plain run leaves out, `--rest` has every second."""


def in_a_plain_run(items):
    """The tests of a plain run, with some of the cases, spread over all, of one that goes by turns."""
    brief = set()
    for found in _cases(item for item in items if not item.get_closest_marker("wide")):
        turns = found[0].get_closest_marker("by_turns")
        wanted = len(found) if turns is None else min(len(found), turns.args[0])
        brief.update(found[i * len(found) // wanted] for i in range(wanted))
    return brief


def in_the_rest(items):
    """The tests of `--rest`: the others, and of one with many cases a half of those, spread over all."""
    brief = in_a_plain_run(items)
    rest = set()
    for found in _cases(item for item in items if item not in brief):
        rest.update(found if len(found) <= MANY else found[::2])
    return rest


def _cases(items):
    """The cases of each test."""
    cases = {}
    for item in items:
        cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    return cases.values()
