"""Schedules, one concept a file; the namespace has what `optax.schedules` has of them."""

from typing import TYPE_CHECKING

from gradtx._names import explaining, listing
from gradtx.core.numbers.schedule import Schedule
from gradtx.schedules.constant import constant_schedule
from gradtx.schedules.cosine import cosine_decay_schedule, sgdr_schedule, warmup_cosine_decay_schedule
from gradtx.schedules.exponential import exponential_decay, warmup_exponential_decay_schedule
from gradtx.schedules.interpolate import (
    cosine_onecycle_schedule,
    linear_onecycle_schedule,
    piecewise_interpolate_schedule,
)
from gradtx.schedules.linear import (
    linear_schedule,
    warmup_constant_schedule,
    warmup_linear_decay_schedule,
)
from gradtx.schedules.piecewise import join_schedules, piecewise_constant_schedule
from gradtx.schedules.polynomial import polynomial_schedule

if not TYPE_CHECKING:  # To a type checker it would say that every name is there.
    __getattr__ = explaining("schedules")
__dir__ = listing(globals())

__all__ = [
    "Schedule",
    "constant_schedule",
    "cosine_decay_schedule",
    "cosine_onecycle_schedule",
    "exponential_decay",
    "join_schedules",
    "linear_onecycle_schedule",
    "linear_schedule",
    "piecewise_constant_schedule",
    "piecewise_interpolate_schedule",
    "polynomial_schedule",
    "sgdr_schedule",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_exponential_decay_schedule",
    "warmup_linear_decay_schedule",
]
