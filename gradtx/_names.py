"""Names of Optax that gradtx does not have, for an error that says where they are."""

from __future__ import annotations

import re

LOSSES = frozenset(
    [
        "convex_kl_divergence",
        "cosine_distance",
        "cosine_similarity",
        "ctc_loss",
        "ctc_loss_with_forward_probs",
        "generalized_kl_divergence",
        "hinge_loss",
        "huber_loss",
        "kl_divergence",
        "l2_loss",
        "log_cosh",
        "losses",
        "ntxent",
        "safe_softmax_cross_entropy",
        "sigmoid_binary_cross_entropy",
        "sigmoid_focal_loss",
        "smooth_labels",
        "softmax_cross_entropy",
        "softmax_cross_entropy_with_integer_labels",
        "squared_error",
    ]
)

OTHERS = frozenset(
    [
        "ApplyEvery",
        "LookaheadParams",
        "MaskOrFn",
        "MaskedNode",
        "OptState",
        "Params",
        "ShouldSkipUpdateFunction",
        "TransformInitFn",
        "TransformUpdateExtraArgsFn",
        "TransformUpdateFn",
        "Updates",
        "WrappedSchedule",
        "ZoomLinesearchInfo",
        "adabelief",
        "adamax",
        "adamaxw",
        "adan",
        "adaptive_grad_clip",
        "amsgrad",
        "assignment",
        "centralize",
        "contrib",
        "cosine_onecycle_schedule",
        "differentially_private_aggregate",
        "dpsgd",
        "experimental",
        "fromage",
        "init_empty_state",
        "keep_params_nonnegative",
        "lamb",
        "lars",
        "lbfgs",
        "linear_onecycle_schedule",
        "matrix_inverse_pth_root",
        "microbatch",
        "microbatching",
        "multi_normal",
        "nnls",
        "normalize_by_update_norm",
        "novograd",
        "optimistic_adam",
        "optimistic_adam_v2",
        "optimistic_gradient_descent",
        "perturbations",
        "piecewise_interpolate_schedule",
        "polyak_sgd",
        "power_iteration",
        "projections",
        "radam",
        "rprop",
        "safe_increment",
        "safe_int32_increment",
        "safe_norm",
        "safe_root_mean_squares",
        "scale_by_adamax",
        "scale_by_adan",
        "scale_by_amsgrad",
        "scale_by_backtracking_linesearch",
        "scale_by_belief",
        "scale_by_distance_over_gradients",
        "scale_by_lbfgs",
        "scale_by_novograd",
        "scale_by_optimistic_gradient",
        "scale_by_param_block_norm",
        "scale_by_polyak",
        "scale_by_radam",
        "scale_by_rprop",
        "scale_by_sign",
        "scale_by_sm3",
        "scale_by_trust_ratio",
        "scale_by_yogi",
        "scale_by_zoom_linesearch",
        "scale_gradient",
        "second_order",
        "sgdr_schedule",
        "sign_sgd",
        "signum",
        "sm3",
        "tree_utils",
        "update_infinity_moment",
        "update_moment",
        "update_moment_per_elem_norm",
        "value_and_grad_from_state",
        "warmup_exponential_decay_schedule",
        "yogi",
        "zero_nans",
    ]
)


def explain(name: str) -> str:
    """The message for a name that gradtx does not have."""
    if name in LOSSES:
        return f"gradtx leaves losses to Optax: use optax.{name}. Only the optimizer lines change."
    if name in OTHERS or re.fullmatch("[A-Z]\\w*State", name):
        return (
            f"gradtx has no {name!r}. Optax's works beside it, and a transform also inside gradtx.chain: "
            f"optax.{name}."
        )
    return f"module 'gradtx' has no attribute {name!r}"
