"""Every schedule, as it is called in the gallery."""

from __future__ import annotations

import gradtx

STEPS = 200

CALLS = [
    "constant_schedule(0.1)",
    "linear_schedule(0.1, 0.0, 150)",
    "polynomial_schedule(0.1, 0.01, power=2, transition_steps=150)",
    "exponential_decay(0.1, transition_steps=40, decay_rate=0.5)",
    "half_life_schedule(0.1, 0.01, 80)",
    "inverse_sqrt_schedule(0.1, warmup_steps=20)",
    "cosine_decay_schedule(0.1, decay_steps=200)",
    "linear_onecycle_schedule(200, peak_value=0.1)",
    "cosine_onecycle_schedule(200, peak_value=0.1)",
    "warmup_constant_schedule(0.0, 0.1, warmup_steps=40)",
    "warmup_linear_decay_schedule(0.0, 0.1, warmup_steps=40, decay_steps=200)",
    "warmup_cosine_decay_schedule(0.0, 0.1, warmup_steps=40, decay_steps=200)",
    "warmup_exponential_decay_schedule(0.0, 0.1, 40, transition_steps=50, decay_rate=0.5)",
    "warmup_stable_decay_schedule(0.0, 0.1, warmup_steps=20, decay_begin=140, decay_steps=200)",
    "piecewise_constant_schedule(0.1, {70: 0.5, 140: 0.2})",
    "piecewise_interpolate_schedule('cosine', 0.1, {70: 0.5, 140: 0.2})",
    "sgdr_schedule([dict(init_value=0.0, peak_value=peak, warmup_steps=10, decay_steps=steps)"
    " for peak, steps in ((0.1, 60), (0.07, 60), (0.05, 80))])",
    "join_schedules([linear_schedule(0.0, 0.1, 50), exponential_decay(0.1, 50, 0.5)], [50])",
]


def name(call: str) -> str:
    return call.partition("(")[0]


def made(call: str) -> gradtx.Schedule:
    return eval(call, dict(vars(gradtx)))
