"""Composable gradient transformations for JAX.

A transform is a pure pair of functions, `init(params)` and `update(grads, state, params)`. `chain` puts
transforms together, hyperparameters live in the state, and a transform's repr is the code that builds it.
"""

from typing import Any

from gradtx import tree
from gradtx._names import explain
from gradtx.core.combine import add, chain, masked, named_chain, ratio
from gradtx.core.fields import (
    DTypeName,
    Fraction,
    NonNegative,
    Number,
    Positive,
    Rate,
    Scalar,
    ScalarOrSchedule,
)
from gradtx.core.hyperparams import hyperparams, set_hyperparams, step_count
from gradtx.core.leaves import Mask
from gradtx.core.numerics import Decay
from gradtx.core.rebase import rebase
from gradtx.core.recipe import recipe
from gradtx.core.rule import Key, Rule, Slot, WholeScalar
from gradtx.core.schedule import Schedule
from gradtx.core.transform import (
    GradientTransformation,
    Transform,
    apply_gradients,
    apply_updates,
)
from gradtx.minimize import minimize
from gradtx.optimizers.adafactor import adafactor
from gradtx.optimizers.adam import adam, adamw, nadam, nadamw
from gradtx.optimizers.adaptive import adadelta, adagrad, rmsprop
from gradtx.optimizers.ademamix import ademamix
from gradtx.optimizers.lion import lion
from gradtx.optimizers.prodigy import prodigy
from gradtx.optimizers.sgd import noisy_sgd, sgd
from gradtx.schedules.constant import constant_schedule
from gradtx.schedules.cosine import cosine_decay_schedule, warmup_cosine_decay_schedule
from gradtx.schedules.exponential import exponential_decay
from gradtx.schedules.linear import (
    linear_schedule,
    warmup_constant_schedule,
    warmup_linear_decay_schedule,
)
from gradtx.schedules.piecewise import join_schedules, piecewise_constant_schedule
from gradtx.schedules.polynomial import polynomial_schedule
from gradtx.transforms.adadelta import scale_by_adadelta
from gradtx.transforms.adagrad import scale_by_rss
from gradtx.transforms.adam import scale_by_adam
from gradtx.transforms.ademamix import scale_by_ademamix
from gradtx.transforms.average import ema
from gradtx.transforms.clip import clip, clip_by_block_rms, clip_by_global_norm, global_norm
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.elementary import (
    bias_correction,
    identity,
    negate,
    offset,
    set_to_zero,
    sign,
    sqrt,
    square,
)
from gradtx.transforms.factored import scale_by_factored_rms, scale_by_param_block_rms
from gradtx.transforms.lion import scale_by_lion
from gradtx.transforms.momentum import trace
from gradtx.transforms.noise import add_noise
from gradtx.transforms.prodigy import scale_by_prodigy
from gradtx.transforms.rms import scale_by_rms, scale_by_stddev
from gradtx.transforms.scale import scale, scale_by_learning_rate, scale_by_schedule

__version__ = "0.1.0"

GradientTransformationExtraArgs = GradientTransformation


def __getattr__(name: str) -> Any:
    raise AttributeError(explain(name))


__all__ = [
    "DTypeName",
    "Decay",
    "Fraction",
    "GradientTransformation",
    "GradientTransformationExtraArgs",
    "Key",
    "Mask",
    "NonNegative",
    "Number",
    "Positive",
    "Rate",
    "Rule",
    "Scalar",
    "ScalarOrSchedule",
    "Schedule",
    "Slot",
    "Transform",
    "WholeScalar",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamw",
    "add",
    "add_decayed_weights",
    "add_noise",
    "ademamix",
    "apply_gradients",
    "apply_updates",
    "bias_correction",
    "chain",
    "clip",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "constant_schedule",
    "cosine_decay_schedule",
    "ema",
    "exponential_decay",
    "global_norm",
    "hyperparams",
    "identity",
    "join_schedules",
    "linear_schedule",
    "lion",
    "masked",
    "minimize",
    "nadam",
    "nadamw",
    "named_chain",
    "negate",
    "noisy_sgd",
    "offset",
    "piecewise_constant_schedule",
    "polynomial_schedule",
    "prodigy",
    "ratio",
    "rebase",
    "recipe",
    "rmsprop",
    "scale",
    "scale_by_adadelta",
    "scale_by_adam",
    "scale_by_ademamix",
    "scale_by_factored_rms",
    "scale_by_learning_rate",
    "scale_by_lion",
    "scale_by_param_block_rms",
    "scale_by_prodigy",
    "scale_by_rms",
    "scale_by_rss",
    "scale_by_schedule",
    "scale_by_stddev",
    "set_hyperparams",
    "set_to_zero",
    "sgd",
    "sign",
    "sqrt",
    "square",
    "step_count",
    "trace",
    "tree",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_linear_decay_schedule",
]
