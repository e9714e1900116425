"""Which tests a plain run has."""


def in_a_plain_run(items):
    """The tests of a plain run, with some of the cases, spread over all, of one that goes by turns."""
    cases = {}
    for item in items:
        if not item.get_closest_marker("wide"):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    brief = set()
    for found in cases.values():
        turns = found[0].get_closest_marker("by_turns")
        wanted = len(found) if turns is None else min(len(found), turns.args[0])
        brief.update(found[i * len(found) // wanted] for i in range(wanted))
    return brief
