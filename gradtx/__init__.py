"""Composable gradient transformations for JAX.

A transform is a pure pair of functions, `init(params)` and `update(grads, state, params)`. `chain` puts
transforms together, hyperparameters live in the state, and a transform's repr is the code that builds it.
"""

from typing import TYPE_CHECKING

from gradtx import contrib, schedules, transforms, tree, tree_utils
from gradtx._names import importing_later, listing
from gradtx.core.compose.combine import add, chain, masked, named_chain, ratio
from gradtx.core.compose.matrix_rule import MatrixRule, MatrixSlot
from gradtx.core.compose.recipe import recipe
from gradtx.core.compose.rule import Key, Rule, Slot, WholeScalar
from gradtx.core.compose.store import store
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.protocol import (
    NO_PARAMS_MSG,
    EmptyState,
    MaskedNode,
    OptState,
    Params,
    TransformInitFn,
    TransformUpdateExtraArgsFn,
    TransformUpdateFn,
    Updates,
    init_empty_state,
)
from gradtx.core.engine.rebase import rebase
from gradtx.core.engine.transform import (
    GradientTransformation,
    Transform,
    apply_gradients,
    apply_updates,
)
from gradtx.core.engine.views import MatrixView, matrix_view
from gradtx.core.loops.choice import kernels
from gradtx.core.numbers.count import safe_increment, safe_int32_increment
from gradtx.core.numbers.hyperparams import hyperparams, set_hyperparams, step_count
from gradtx.core.numbers.schedule import Schedule
from gradtx.core.numerics import Decay
from gradtx.core.spec.fields import (
    DTypeName,
    Fraction,
    NonNegative,
    Number,
    Positive,
    Rate,
    Scalar,
    ScalarOrSchedule,
)
from gradtx.linesearch.backtracking import scale_by_backtracking_linesearch
from gradtx.linesearch.from_state import value_and_grad_from_state
from gradtx.linesearch.lbfgs import scale_by_lbfgs
from gradtx.linesearch.zoom import scale_by_zoom_linesearch
from gradtx.micro_batches import accumulate_gradients
from gradtx.minimize import minimize
from gradtx.optimizers.acprop import acprop
from gradtx.optimizers.adabelief import adabelief
from gradtx.optimizers.adafactor import adafactor
from gradtx.optimizers.adam import adam, adamw, nadam, nadamw
from gradtx.optimizers.adam_atan2 import adam_atan2
from gradtx.optimizers.adam_mini import adam_mini
from gradtx.optimizers.adamax import adamax, adamaxw
from gradtx.optimizers.adamuon import adamuon
from gradtx.optimizers.adan import adan
from gradtx.optimizers.adaptive import adadelta, adagrad, rmsprop
from gradtx.optimizers.ademamix import ademamix
from gradtx.optimizers.adopt import adopt
from gradtx.optimizers.amsgrad import amsgrad
from gradtx.optimizers.aurora import aurora
from gradtx.optimizers.came import came
from gradtx.optimizers.cocob import cocob
from gradtx.optimizers.contra_muon import contra_muon
from gradtx.optimizers.dadapt import dadapt_adamw
from gradtx.optimizers.dion import dion
from gradtx.optimizers.dion2 import dion2
from gradtx.optimizers.distance import dog, dowg
from gradtx.optimizers.dpsgd import dpsgd
from gradtx.optimizers.galore import galore
from gradtx.optimizers.kl_soap import kl_soap
from gradtx.optimizers.kron import kron
from gradtx.optimizers.laprop import laprop
from gradtx.optimizers.layerwise import fromage, lamb, lars, novograd
from gradtx.optimizers.lbfgs import lbfgs
from gradtx.optimizers.lion import lion
from gradtx.optimizers.madgrad import madgrad
from gradtx.optimizers.mars import mars
from gradtx.optimizers.muon import muon
from gradtx.optimizers.muown import muown
from gradtx.optimizers.normuon import normuon
from gradtx.optimizers.optimistic import optimistic_adam_v2, optimistic_gradient_descent
from gradtx.optimizers.polyak import polyak_sgd
from gradtx.optimizers.prodigy import prodigy
from gradtx.optimizers.radam import radam
from gradtx.optimizers.rprop import rprop
from gradtx.optimizers.schedule_free import schedule_free_adamw, schedule_free_sgd
from gradtx.optimizers.scion import scion
from gradtx.optimizers.sgd import noisy_sgd, sgd
from gradtx.optimizers.shampoo import shampoo
from gradtx.optimizers.sign import sign_sgd, signum
from gradtx.optimizers.simplified_ademamix import simplified_ademamix
from gradtx.optimizers.sm3 import sm3
from gradtx.optimizers.soap import soap
from gradtx.optimizers.soap_muon import soap_muon
from gradtx.optimizers.sophia import sophia
from gradtx.optimizers.splus import splus
from gradtx.optimizers.stable_adamw import stable_adamw
from gradtx.optimizers.yogi import yogi
from gradtx.schedules.constant import constant_schedule
from gradtx.schedules.cosine import cosine_decay_schedule, sgdr_schedule, warmup_cosine_decay_schedule
from gradtx.schedules.exponential import exponential_decay, warmup_exponential_decay_schedule
from gradtx.schedules.half_life import half_life_schedule
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
from gradtx.schedules.stable import inverse_sqrt_schedule, warmup_stable_decay_schedule
from gradtx.state_sharding import state_sharding
from gradtx.transforms.acprop import scale_by_acprop
from gradtx.transforms.adadelta import scale_by_adadelta
from gradtx.transforms.adagrad import scale_by_rss
from gradtx.transforms.adam import scale_by_adam
from gradtx.transforms.adam_atan2 import scale_by_adam_atan2
from gradtx.transforms.adam_mini import scale_by_adam_mini
from gradtx.transforms.adamax import scale_by_adamax
from gradtx.transforms.adamuon import scale_by_adamuon
from gradtx.transforms.adan import scale_by_adan
from gradtx.transforms.ademamix import scale_by_ademamix
from gradtx.transforms.adopt import scale_by_adopt
from gradtx.transforms.amsgrad import scale_by_amsgrad
from gradtx.transforms.apply_every import apply_every
from gradtx.transforms.aurora import scale_by_aurora
from gradtx.transforms.average import ema
from gradtx.transforms.belief import scale_by_belief
from gradtx.transforms.block_rms import normalize_by_block_rms
from gradtx.transforms.came import scale_by_came
from gradtx.transforms.cautious import cautious
from gradtx.transforms.center import centralize
from gradtx.transforms.clip import clip, clip_by_block_rms, clip_by_global_norm, global_norm
from gradtx.transforms.cocob import scale_by_cocob
from gradtx.transforms.constrain import keep_params_nonnegative, zero_nans
from gradtx.transforms.contra_muon import scale_by_contra_muon
from gradtx.transforms.dadapt import scale_by_dadapt_adam
from gradtx.transforms.decay import add_cautious_decayed_weights, add_decayed_weights
from gradtx.transforms.dion import scale_by_dion
from gradtx.transforms.dion2 import scale_by_dion2
from gradtx.transforms.distance import scale_by_distance_over_gradients
from gradtx.transforms.dog import scale_by_dog
from gradtx.transforms.dowg import scale_by_dowg
from gradtx.transforms.elementary import (
    debias,
    identity,
    negate,
    offset,
    scale_by_sign,
    set_to_zero,
    sign,
    sqrt,
    square,
)
from gradtx.transforms.factored import scale_by_factored_rms, scale_by_param_block_rms
from gradtx.transforms.fromage import scale_by_fromage
from gradtx.transforms.grams import grams
from gradtx.transforms.group_scale import scale_by_group
from gradtx.transforms.hyperball import scale_by_hyperball
from gradtx.transforms.kl_soap import scale_by_kl_soap
from gradtx.transforms.kron import scale_by_kron
from gradtx.transforms.laprop import scale_by_laprop
from gradtx.transforms.leaf_scale import scale_by_leaf
from gradtx.transforms.lion import scale_by_lion
from gradtx.transforms.madgrad import scale_by_madgrad
from gradtx.transforms.matrix_size import scale_by_matrix_size
from gradtx.transforms.momentum import trace
from gradtx.transforms.momo import momo, momo_adam
from gradtx.transforms.muon import scale_by_muon
from gradtx.transforms.muown import scale_by_muown
from gradtx.transforms.noise import add_noise
from gradtx.transforms.normalize import normalize, normalize_by_update_norm
from gradtx.transforms.normuon import scale_by_normuon
from gradtx.transforms.novograd import scale_by_novograd
from gradtx.transforms.optimistic import scale_by_optimistic_gradient
from gradtx.transforms.orthogonalize import orthogonalize
from gradtx.transforms.per_example import per_example_global_norm_clip, per_example_layer_norm_clip
from gradtx.transforms.plateau import reduce_on_plateau
from gradtx.transforms.polyak import scale_by_polyak
from gradtx.transforms.prodigy import scale_by_prodigy
from gradtx.transforms.radam import scale_by_radam
from gradtx.transforms.radial import radial_brake
from gradtx.transforms.rms import scale_by_rms, scale_by_stddev
from gradtx.transforms.row_floor import row_floor
from gradtx.transforms.rprop import scale_by_rprop
from gradtx.transforms.scale import scale, scale_by_learning_rate, scale_by_schedule
from gradtx.transforms.shampoo import scale_by_shampoo
from gradtx.transforms.simplified_ademamix import scale_by_simplified_ademamix
from gradtx.transforms.sm3 import scale_by_sm3
from gradtx.transforms.soap import scale_by_soap
from gradtx.transforms.soap_muon import scale_by_soap_muon
from gradtx.transforms.splus import scale_by_splus
from gradtx.transforms.stable_adam import scale_by_stable_adam
from gradtx.transforms.trust_ratio import scale_by_param_block_norm, scale_by_trust_ratio
from gradtx.transforms.unitwise import adaptive_grad_clip, unitwise_clip, unitwise_norm
from gradtx.transforms.variance import reduce_variance
from gradtx.transforms.yogi import scale_by_yogi
from gradtx.tree.moments import (
    bias_correction,
    update_infinity_moment,
    update_moment,
    update_moment_per_elem_norm,
)
from gradtx.tree.moving import incremental_update, periodic_update
from gradtx.tree.safe import safe_norm, safe_root_mean_squares
from gradtx.tree_map_params import tree_map_params
from gradtx.wrappers.accumulate import accumulate
from gradtx.wrappers.attention_heads import heads
from gradtx.wrappers.averages import ema_params, polyak_average
from gradtx.wrappers.by_matrix import by_matrix
from gradtx.wrappers.conditional import apply_if_finite, conditionally_mask, conditionally_transform
from gradtx.wrappers.differential_privacy import differentially_private_aggregate
from gradtx.wrappers.ema_nesterov import ema_nesterov
from gradtx.wrappers.evaluation import eval_params, schedule_free_eval_params
from gradtx.wrappers.extra_args import with_extra_args_support
from gradtx.wrappers.flatten import flatten
from gradtx.wrappers.galore import scale_by_galore
from gradtx.wrappers.groups import freeze, multi_transform, partition, selective_transform
from gradtx.wrappers.guard import guard
from gradtx.wrappers.hessian import hutchinson_estimator_diag_hessian
from gradtx.wrappers.inject import inject_hyperparams, inject_stateful_hyperparams
from gradtx.wrappers.lookahead import lookahead
from gradtx.wrappers.measure import measure_with_ema, monitor, snapshot
from gradtx.wrappers.mechanize import mechanize
from gradtx.wrappers.multi_steps import MultiSteps
from gradtx.wrappers.precise_params import precise_params
from gradtx.wrappers.precision import precision
from gradtx.wrappers.qk_clip import qk_clip
from gradtx.wrappers.real_and_imaginary import split_real_and_imaginary
from gradtx.wrappers.report import report
from gradtx.wrappers.sam import sam
from gradtx.wrappers.schedule_free import schedule_free
from gradtx.wrappers.shard_state import shard_state
from gradtx.wrappers.skip import skip_large_updates, skip_not_finite
from gradtx.wrappers.sophia import scale_by_sophia
from gradtx.wrappers.stateless import stateless, stateless_with_tree_map
from gradtx.wrappers.track import metrics, track

if TYPE_CHECKING:
    from gradtx.formulas.formula import formula
    from gradtx.inspect.check import check
    from gradtx.inspect.describe import describe
    from gradtx.inspect.diff import diff
    from gradtx.inspect.explain import explain
    from gradtx.inspect.plot import plot_metrics, plot_paths, plot_schedule
    from gradtx.inspect.routing import Route, Routing, routing
    from gradtx.inspect.slots_by_leaf import slots_by_leaf
    from gradtx.inspect.state_bytes import state_bytes
    from gradtx.interop.convert_state import convert_state
    from gradtx.interop.from_config import from_config
    from gradtx.interop.optax.move import from_optax_state, to_optax_state
    from gradtx.interop.optax.to_optax import to_optax
    from gradtx.interop.state_dict import from_state_dict, to_state_dict
    from gradtx.interop.to_config import to_config
    from gradtx.interop.torch.move import from_torch_state_dict, to_torch_state_dict

__version__ = "0.1.0"

GradientTransformationExtraArgs = GradientTransformation

# What Optax's namespaces have and stands above ours in the order of imports.
for _namespace, _functions in (
    (schedules, (inject_hyperparams, inject_stateful_hyperparams)),
    (
        transforms,
        (
            MultiSteps,
            apply_if_finite,
            conditionally_mask,
            conditionally_transform,
            flatten,
            freeze,
            measure_with_ema,
            monitor,
            partition,
            selective_transform,
            skip_large_updates,
            skip_not_finite,
            snapshot,
        ),
    ),
):
    vars(_namespace).update({f.__name__: f for f in _functions})
    vars(_namespace)["__all__"] += [f.__name__ for f in _functions]

# What a process uses once, if at all, is imported when it is first asked for.
if not TYPE_CHECKING:  # To a type checker it would say that every name is there.
    __getattr__ = importing_later(
        {
            "formulas.formula": "formula",
            "inspect.check": "check",
            "inspect.describe": "describe",
            "inspect.diff": "diff",
            "inspect.explain": "explain",
            "inspect.plot": "plot_metrics, plot_paths, plot_schedule",
            "inspect.routing": "Route, Routing, routing",
            "inspect.slots_by_leaf": "slots_by_leaf",
            "inspect.state_bytes": "state_bytes",
            "interop.convert_state": "convert_state",
            "interop.from_config": "from_config",
            "interop.optax.move": "from_optax_state, to_optax_state",
            "interop.optax.to_optax": "to_optax",
            "interop.state_dict": "from_state_dict, to_state_dict",
            "interop.to_config": "to_config",
            "interop.torch.move": "from_torch_state_dict, to_torch_state_dict",
        }
    )


__dir__ = listing(globals(), "flax", "testing", "typing")


def _in_a_notebook(tx: Transform) -> str:
    """The HTML of a transform, made by what looks into transforms, which stands above them."""
    from gradtx.inspect.overview import overview

    return overview(tx)


Transform._repr_html_ = _in_a_notebook


__all__ = [
    "NO_PARAMS_MSG",
    "DTypeName",
    "Decay",
    "EmptyState",
    "Fraction",
    "GradientTransformation",
    "GradientTransformationExtraArgs",
    "Key",
    "Mask",
    "MaskedNode",
    "MatrixRule",
    "MatrixSlot",
    "MatrixView",
    "MultiSteps",
    "NonNegative",
    "Number",
    "OptState",
    "Params",
    "Positive",
    "Rate",
    "Route",
    "Routing",
    "Rule",
    "Scalar",
    "ScalarOrSchedule",
    "Schedule",
    "Slot",
    "Transform",
    "TransformInitFn",
    "TransformUpdateExtraArgsFn",
    "TransformUpdateFn",
    "Updates",
    "WholeScalar",
    "accumulate",
    "accumulate_gradients",
    "acprop",
    "adabelief",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adam_atan2",
    "adam_mini",
    "adamax",
    "adamaxw",
    "adamuon",
    "adamw",
    "adan",
    "adaptive_grad_clip",
    "add",
    "add_cautious_decayed_weights",
    "add_decayed_weights",
    "add_noise",
    "ademamix",
    "adopt",
    "amsgrad",
    "apply_every",
    "apply_gradients",
    "apply_if_finite",
    "apply_updates",
    "aurora",
    "bias_correction",
    "by_matrix",
    "came",
    "cautious",
    "centralize",
    "chain",
    "check",
    "clip",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "cocob",
    "conditionally_mask",
    "conditionally_transform",
    "constant_schedule",
    "contra_muon",
    "contrib",
    "convert_state",
    "cosine_decay_schedule",
    "cosine_onecycle_schedule",
    "dadapt_adamw",
    "debias",
    "describe",
    "diff",
    "differentially_private_aggregate",
    "dion",
    "dion2",
    "dog",
    "dowg",
    "dpsgd",
    "ema",
    "ema_nesterov",
    "ema_params",
    "eval_params",
    "explain",
    "exponential_decay",
    "flatten",
    "formula",
    "freeze",
    "from_config",
    "from_optax_state",
    "from_state_dict",
    "from_torch_state_dict",
    "fromage",
    "galore",
    "global_norm",
    "grams",
    "guard",
    "half_life_schedule",
    "heads",
    "hutchinson_estimator_diag_hessian",
    "hyperparams",
    "identity",
    "incremental_update",
    "init_empty_state",
    "inject_hyperparams",
    "inject_stateful_hyperparams",
    "inverse_sqrt_schedule",
    "join_schedules",
    "keep_params_nonnegative",
    "kernels",
    "kl_soap",
    "kron",
    "lamb",
    "laprop",
    "lars",
    "lbfgs",
    "linear_onecycle_schedule",
    "linear_schedule",
    "lion",
    "lookahead",
    "madgrad",
    "mars",
    "masked",
    "matrix_view",
    "measure_with_ema",
    "mechanize",
    "metrics",
    "minimize",
    "momo",
    "momo_adam",
    "monitor",
    "multi_transform",
    "muon",
    "muown",
    "nadam",
    "nadamw",
    "named_chain",
    "negate",
    "noisy_sgd",
    "normalize",
    "normalize_by_block_rms",
    "normalize_by_update_norm",
    "normuon",
    "novograd",
    "offset",
    "optimistic_adam_v2",
    "optimistic_gradient_descent",
    "orthogonalize",
    "partition",
    "per_example_global_norm_clip",
    "per_example_layer_norm_clip",
    "periodic_update",
    "piecewise_constant_schedule",
    "piecewise_interpolate_schedule",
    "plot_metrics",
    "plot_paths",
    "plot_schedule",
    "polyak_average",
    "polyak_sgd",
    "polynomial_schedule",
    "precise_params",
    "precision",
    "prodigy",
    "qk_clip",
    "radam",
    "radial_brake",
    "ratio",
    "rebase",
    "recipe",
    "reduce_on_plateau",
    "reduce_variance",
    "report",
    "rmsprop",
    "routing",
    "row_floor",
    "rprop",
    "safe_increment",
    "safe_int32_increment",
    "safe_norm",
    "safe_root_mean_squares",
    "sam",
    "scale",
    "scale_by_acprop",
    "scale_by_adadelta",
    "scale_by_adam",
    "scale_by_adam_atan2",
    "scale_by_adam_mini",
    "scale_by_adamax",
    "scale_by_adamuon",
    "scale_by_adan",
    "scale_by_ademamix",
    "scale_by_adopt",
    "scale_by_amsgrad",
    "scale_by_aurora",
    "scale_by_backtracking_linesearch",
    "scale_by_belief",
    "scale_by_came",
    "scale_by_cocob",
    "scale_by_contra_muon",
    "scale_by_dadapt_adam",
    "scale_by_dion",
    "scale_by_dion2",
    "scale_by_distance_over_gradients",
    "scale_by_dog",
    "scale_by_dowg",
    "scale_by_factored_rms",
    "scale_by_fromage",
    "scale_by_galore",
    "scale_by_group",
    "scale_by_hyperball",
    "scale_by_kl_soap",
    "scale_by_kron",
    "scale_by_laprop",
    "scale_by_lbfgs",
    "scale_by_leaf",
    "scale_by_learning_rate",
    "scale_by_lion",
    "scale_by_madgrad",
    "scale_by_matrix_size",
    "scale_by_muon",
    "scale_by_muown",
    "scale_by_normuon",
    "scale_by_novograd",
    "scale_by_optimistic_gradient",
    "scale_by_param_block_norm",
    "scale_by_param_block_rms",
    "scale_by_polyak",
    "scale_by_prodigy",
    "scale_by_radam",
    "scale_by_rms",
    "scale_by_rprop",
    "scale_by_rss",
    "scale_by_schedule",
    "scale_by_shampoo",
    "scale_by_sign",
    "scale_by_simplified_ademamix",
    "scale_by_sm3",
    "scale_by_soap",
    "scale_by_soap_muon",
    "scale_by_sophia",
    "scale_by_splus",
    "scale_by_stable_adam",
    "scale_by_stddev",
    "scale_by_trust_ratio",
    "scale_by_yogi",
    "scale_by_zoom_linesearch",
    "schedule_free",
    "schedule_free_adamw",
    "schedule_free_eval_params",
    "schedule_free_sgd",
    "schedules",
    "scion",
    "selective_transform",
    "set_hyperparams",
    "set_to_zero",
    "sgd",
    "sgdr_schedule",
    "shampoo",
    "shard_state",
    "sign",
    "sign_sgd",
    "signum",
    "simplified_ademamix",
    "skip_large_updates",
    "skip_not_finite",
    "slots_by_leaf",
    "sm3",
    "snapshot",
    "soap",
    "soap_muon",
    "sophia",
    "split_real_and_imaginary",
    "splus",
    "sqrt",
    "square",
    "stable_adamw",
    "state_bytes",
    "state_sharding",
    "stateless",
    "stateless_with_tree_map",
    "step_count",
    "store",
    "to_config",
    "to_optax",
    "to_optax_state",
    "to_state_dict",
    "to_torch_state_dict",
    "trace",
    "track",
    "transforms",
    "tree",
    "tree_map_params",
    "tree_utils",
    "unitwise_clip",
    "unitwise_norm",
    "update_infinity_moment",
    "update_moment",
    "update_moment_per_elem_norm",
    "value_and_grad_from_state",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_exponential_decay_schedule",
    "warmup_linear_decay_schedule",
    "warmup_stable_decay_schedule",
    "with_extra_args_support",
    "yogi",
    "zero_nans",
]
