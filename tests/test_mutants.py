"""A test of the tests: planted mistakes, each of which the comparison with the references must find.

The mistakes are of the kind that trains well and so goes unnoticed: an optimizer with its betas swapped
still converges.
"""

import jax
import jax.numpy as jnp
import pytest

import gradtx.optimizers.adam as recipes
import gradtx.optimizers.descent as descent
from gradtx import chain, negate, scale_by_adam
from gradtx.core.numerics import Decay, abs_sq, divide, sqrt
from gradtx.schedules.linear import LinearSchedule
from gradtx.transforms.adagrad import ScaleByRss
from gradtx.transforms.adam import ScaleByAdam
from gradtx.transforms.lion import ScaleByLion
from gradtx.transforms.momentum import Trace
from test_formulas import of_catalogue


def b2_off(patch):
    """A second moment ten times as long: b2 = 0.999 in place of 0.99."""

    def apply(self, g, slots, leaf):
        mu, nu = self.b1.mix(slots.mu, g), Decay(self.b2.complement / 10).mix(slots.nu, abs_sq(g))
        u = divide(leaf.of_mu * mu, sqrt(leaf.of_nu * nu + leaf.eps_root) + leaf.eps)
        return u, {"mu": mu, "nu": nu}

    patch.setattr(ScaleByAdam, "apply", apply)


def eps_misplaced(patch):
    """Inside the root for outside."""

    def apply(self, g, slots, leaf):
        mu, nu = self.b1.mix(slots.mu, g), self.b2.mix(slots.nu, abs_sq(g))
        u = divide(leaf.of_mu * mu, sqrt(leaf.of_nu * nu + leaf.eps + leaf.eps_root))
        return u, {"mu": mu, "nu": nu}

    patch.setattr(ScaleByAdam, "apply", apply)


def eps_before_the_correction(patch):
    """Added to sqrt(v) for sqrt(v^): Kingma and Ba's efficient form, where the other was asked for."""
    right = ScaleByAdam.prepare

    def prepare(self, now):
        made = right(self, now)
        return {**made, "eps": made["eps"] * sqrt(made["of_nu"])}

    patch.setattr(ScaleByAdam, "prepare", prepare)


def decay_coupled(patch):
    """L2 in the gradient for the decay that is decoupled: AdamW becomes Adam."""
    patch.setattr(
        descent,
        "chain",
        lambda direction, decay, *rest: chain(decay, direction, *rest),
    )


def decay_without_the_rate(patch):
    """The decay after the learning rate, so that the rate does not multiply it."""
    patch.setattr(
        descent,
        "chain",
        lambda direction, decay, multiplier, rate: chain(
            direction, multiplier, rate, negate(), decay, negate()
        ),
    )


def adam_betas_swapped(patch):
    """b1 for the second moment and b2 for the first."""
    patch.setattr(
        recipes, "scale_by_adam", lambda b1, b2, *args, **kwargs: scale_by_adam(b2, b1, *args, **kwargs)
    )


def lion_betas_swapped(patch):
    """Lion with the step's mix in the slot and the slot's in the step."""

    def apply(self, g, slots, leaf):
        return jnp.sign(self.b2.mix(slots.mu, g)), {"mu": self.b1.mix(slots.mu, g)}

    patch.setattr(ScaleByLion, "apply", apply)


def momentum_after_the_step(patch):
    """Lion with the new momentum in the step, for the old one."""

    def apply(self, g, slots, leaf):
        mu = self.b2.mix(slots.mu, g)
        return jnp.sign(self.b1.mix(mu, g)), {"mu": mu}

    patch.setattr(ScaleByLion, "apply", apply)


def schedule_off_by_one(patch):
    """Update t uses the value at t + 1."""
    right = LinearSchedule.at
    patch.setattr(LinearSchedule, "at", lambda self, step: right(self, step + 1))


def correction_off_by_one(patch):
    """1 - b^(t + 1) for 1 - b^t."""
    right = Decay.correction
    patch.setattr(Decay, "correction", lambda self, t: right(self, t + 1))


def square_root_left_out(patch):
    """AdaGrad divides by the sum of squares itself."""

    def apply(self, g, slots, leaf):
        total = slots.sum_of_squares + abs_sq(g)
        return divide(g, total + self.eps), {"sum_of_squares": total}

    patch.setattr(ScaleByRss, "apply", apply)


def first_step_undamped(patch):
    """torch's momentum for the document's."""
    right = Trace.prepare

    def prepare(self, now):
        share = right(self, now)["share"]
        return {"share": jnp.where(now.step == 0, jnp.ones_like(share), share)}

    patch.setattr(Trace, "prepare", prepare)


MUTANTS = {
    b2_off: "adam",
    eps_misplaced: "adam",
    eps_before_the_correction: "adam",
    decay_coupled: "adamw",
    decay_without_the_rate: "adamw",
    adam_betas_swapped: "adam",
    lion_betas_swapped: "lion",
    momentum_after_the_step: "lion",
    schedule_off_by_one: "scale_by_schedule",
    correction_off_by_one: "adam",
    square_root_left_out: "adagrad",
    first_step_undamped: "sgd",
}


def agrees(name):
    """The comparison of test_formulas."""
    case = of_catalogue(name)
    return case.deviation() <= case.double


@pytest.fixture
def patch(monkeypatch):
    """A monkeypatch around which nothing compiled is kept: a changed rule compares as before."""
    jax.clear_caches()
    yield monkeypatch
    monkeypatch.undo()
    jax.clear_caches()


@pytest.mark.by_turns(1)
@pytest.mark.clears_caches
@pytest.mark.parametrize("mutate", MUTANTS, ids=lambda mutate: mutate.__name__)
def test_a_planted_mistake_is_found(mutate, patch):
    mutate(patch)
    assert not agrees(MUTANTS[mutate])


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("name", sorted(set(MUTANTS.values())))
def test_without_it_all_is_well(name):
    assert agrees(name)
