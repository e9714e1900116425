"""Run by test_kit.py in a process of its own, as someone's script: `python kit.py DEVICES [ENTRY ...]`."""

import sys

import jax
import jax.numpy as jnp

import gradtx
from catalogue import ENTRIES
from gradtx import testing


class Own(gradtx.Rule, name="own"):
    """m = b1 m + (1 - b1) g;  u = m."""

    b1: gradtx.Decay

    mu = gradtx.Slot()

    def apply(self, g, slots, leaf):
        mu = self.b1.mix(slots.mu, g)
        return mu, {"mu": mu}


NOTEBOOK = """
import gradtx
class InCell(gradtx.Rule, name="in_cell"):
    rate: gradtx.Number
    def apply(self, g, slots, leaf):
        return self.rate * g, slots
tx = gradtx.chain(InCell(rate=0.5), gradtx.sgd(lambda step: 0.1 / (1 + step)))
"""


def check_own():
    testing.check(gradtx.chain(Own(b1=0.9), gradtx.scale_by_learning_rate(0.1)))
    cell = {"__name__": "__main__"}
    exec(NOTEBOOK, cell)
    testing.check(cell["tx"])


if __name__ == "__main__":
    devices, *entries = sys.argv[1:]
    assert len(jax.devices()) == int(devices), jax.devices()
    for name in entries:
        if name == "own":
            check_own()
            continue
        entry = ENTRIES[name]
        grads = testing.example_grads(testing.example_params(), positive=entry.positive)
        other = entry.transform("alternative")
        case = testing.Case(
            entry.transform(), grads=grads, alternative=other, rough=entry.rough, **entry.extra
        )
        for law in testing.LAWS:
            case.obeys(law)
    assert jnp.ones(()).dtype == jnp.float32
    print("sound")
