"""`gradtx.testing` where this project's own test environment is not: fresh processes, rules of one's own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from catalogue import ENTRIES
from gradtx import testing
from rotation import one_of

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


@pytest.mark.wide
@pytest.mark.parametrize("devices", one_of(4, SAMPLE))
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


class Asking(gradtx.Rule, name="asking"):
    """A rule whose `apply` asks for the value of an array."""

    k: gradtx.Number
    asks = staticmethod(lambda k, g: k)

    def apply(self, g, slots, leaf):
        return g * self.asks(self.k, g), slots


def asking(fn):
    return type("Planted", (Asking,), {"asks": staticmethod(fn)}, name="planted")(k=0.5)


ASKING = {
    "float": (lambda k, g: float(k), r"float\(x\), int\(x\) .* ask for a value: use x as it is"),
    "item": (lambda k, g: k.item(), r"use x as it is"),
    "numpy": (lambda k, g: np.asarray(g), r"write jnp\.sign\(x\) .* x itself for np\.asarray\(x\)"),
    "if": (lambda k, g: 1.0 if k > 0 else 2.0, r"write jnp\.where\(condition, a, b\)"),
    "a mask as an index": (lambda k, g: jnp.sum(g[g > 0]), r"write jnp\.where\(condition, x, 0\)"),
    "a list": (lambda k, g: [1.0, 2.0][k.astype(int)], r"write jnp\.take\(array, i\)"),
}


@pytest.mark.parametrize("fault", ASKING)
def test_a_rule_that_asks_for_a_value_is_told_what_to_write(fault):
    asks, words = ASKING[fault]
    with pytest.raises(AssertionError) as caught:
        testing.check(asking(asks))
    for said in (r"^init_and_update_run: ", r"apply of planted", r"traced", words, r"the leaf 'bias'"):
        assert re.search(said, str(caught.value)), said
    # What JAX says of the function that gradtx compiles is in the traceback alone.
    assert "kernels.py" not in str(caught.value)


class InPrepare(gradtx.Rule, name="asking_in_prepare"):
    """Asks for a value in `prepare`."""

    def prepare(self, now):
        return {"rate": 1.0 if now.t > 1 else 2.0}

    def apply(self, g, slots, leaf):
        return g * leaf.rate, slots


class InMeasure(gradtx.Rule, name="asking_in_measure"):
    """Asks for a value in `measure`."""

    def measure(self, g, slots, leaf):
        return {"size": np.sum(np.asarray(g))}

    def apply(self, g, slots, leaf):
        return g, slots


class InConclude(gradtx.Rule, name="asking_in_conclude"):
    """Asks for a value in `conclude`."""

    def measure(self, g, slots, leaf):
        return {"size": jnp.sum(g)}

    def conclude(self, totals, now):
        return {"scale": float(totals.size)}

    def apply(self, g, slots, leaf):
        return g * leaf.scale, slots


def asking_alone():
    return gradtx.stateless(lambda updates, params: jax.tree.map(float, updates))


OUTSIDE = {
    "prepare": (InPrepare, "by prepare of asking_in_prepare", False),
    "measure": (InMeasure, "by measure of asking_in_measure", True),
    "conclude": (InConclude, "by conclude of asking_in_conclude", False),
    "inside of a wrapper": (lambda: gradtx.guard(InMeasure()), "by measure of asking_in_measure", True),
    "a function of whole trees": (asking_alone, "inside of stateless", False),
}


@pytest.mark.parametrize("fault", OUTSIDE)
def test_the_engine_says_who_asked_for_a_value(fault):
    make, where, of_a_leaf = OUTSIDE[fault]
    tx, params = make(), {"w": jnp.ones(())}
    with pytest.raises(jax.errors.JAXTypeError) as caught:
        jax.jit(tx.update)(params, tx.init(params), params)
    said = "\n".join(caught.value.__notes__)
    assert f"This was raised {where}." in said and "A value there is traced" in said
    assert said.count("This was raised") == 1 + of_a_leaf and ("for the leaf 'w'" in said) == of_a_leaf
