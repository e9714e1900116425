"""`gradtx.testing` where this project's own test environment is not: fresh processes, rules of one's own."""

import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest

import gradtx
from catalogue import ENTRIES
from gradtx import testing

KIT = Path(__file__).with_name("kit.py")
# The devices and what is checked on so many; each process costs seconds.
SAMPLE = {1: ["own"], 2: ["adafactor"], 8: ["sgd"]}


def run(devices, entries):
    flags = [f for f in os.environ.get("XLA_FLAGS", "").split() if "device_count" not in f]
    flags.append(f"--xla_force_host_platform_device_count={devices}")
    environment = {**os.environ, "XLA_FLAGS": " ".join(flags)}
    command = [sys.executable, str(KIT), str(devices), *entries]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("sound\n"), done.stderr


@pytest.mark.parametrize("devices", SAMPLE)
def test_a_sample_in_a_fresh_process(devices):
    run(devices, SAMPLE[devices])


@pytest.mark.full
@pytest.mark.parametrize("devices", SAMPLE)
def test_every_entry_in_a_fresh_process(devices):
    run(devices, [*ENTRIES, "own"])


def test_a_rule_that_is_defined_in_a_test():
    class Local(gradtx.Rule, name="local"):
        """u = rate g."""

        rate: gradtx.Number

        def apply(self, g, slots, leaf):
            return self.rate * g, slots

    case = testing.Case(gradtx.chain(Local(rate=0.5), gradtx.sgd(0.1)))
    for law in ("repr_rebuilds_it", "state_in_is_state_out", "explicit_shardings_stay"):
        case.obeys(law)


class Faulty(gradtx.Rule, name="faulty"):
    """A rule whose `apply` gives what `faults` say."""

    mu = gradtx.Slot()
    nu = gradtx.Slot()
    given = staticmethod(lambda g, slots: (g, slots))

    def apply(self, g, slots, leaf):
        return self.given(g, slots)


def faulty(fn):
    return type("Planted", (Faulty,), {"given": staticmethod(fn)}, name="planted")()


class Measuring(gradtx.Rule, name="measuring"):
    """Measures an array where a scalar belongs."""

    def measure(self, g, slots, leaf):
        return {"size": abs(g)}

    def apply(self, g, slots, leaf):
        return g, slots


class Remembering(gradtx.Rule, name="remembering"):
    """Remembers an array where a scalar belongs."""

    d = gradtx.WholeScalar()

    def prepare(self, now):
        return {"d": jnp.ones(2)}

    def apply(self, g, slots, leaf):
        return g, slots


PLANTED = {
    "a scalar": (
        faulty(lambda g, slots: (jnp.sum(g), slots)),
        r"planted: apply returned an array of shape \(\) as the update, for a gradient of shape \(4, 2\).*"
        r"the leaf 'kernel'",
    ),
    "a Python number": (
        faulty(lambda g, slots: (0.0, slots)),
        r"planted: apply returned 0\.0 as the update",
    ),
    "no slots": (faulty(lambda g, slots: g), r"planted: apply must return the update and the new slots"),
    "a missing slot": (
        faulty(lambda g, slots: (g, {"mu": slots.mu})),
        r"planted: apply returned 'mu', without the slot 'nu'",
    ),
    "an unknown slot": (
        faulty(lambda g, slots: (g, {**vars(slots), "tau": g})),
        r"planted: apply returned a slot 'tau' that the rule does not declare\. It declares 'mu', 'nu'",
    ),
    "a slot of another shape": (
        faulty(lambda g, slots: (g, {"mu": slots.mu, "nu": jnp.sum(g)})),
        r"planted: apply returned an array of shape \(\) as the slot 'nu', which has shape \(4, 2\)",
    ),
    "a measured array": (Measuring(), r"measuring: measure returned an array .* as the scalar 'size'"),
    "a remembered array": (Remembering(), r"remembering: prepare returned an array .* as the scalar 'd'"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_named(fault):
    tx, words = PLANTED[fault]
    case = testing.Case(tx, compiled=False)
    with pytest.raises(AssertionError, match=rf"(?s)state_in_is_state_out: .*{words}"):
        case.obeys("state_in_is_state_out")
