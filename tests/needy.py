"""A rule that needs a keyword argument."""

import gradtx


class Needy(gradtx.Rule, name="needy"):
    """u = value g."""

    needs = ("value",)

    def prepare(self, now):
        return {"value": now.extra["value"]}

    def apply(self, g, slots, leaf):
        return leaf.value * g, slots
