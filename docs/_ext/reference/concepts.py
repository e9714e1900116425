"""Which public name belongs to which concept. Every public name has one place here, and a page by it."""

from __future__ import annotations

import dataclasses
import inspect
from types import ModuleType
from typing import Any

import gradtx
import gradtx.flax
import gradtx.testing
import gradtx.typing


@dataclasses.dataclass(frozen=True)
class Group:
    """Some names with one thing in common; as a page a list of them."""

    part: str
    title: str
    slug: str
    about: str
    names: tuple[str, ...]


def _group(part: str, title: str, slug: str, about: str, names: str) -> Group:
    return Group(part, title, slug, about, tuple(names.split()))


def _all_of(module: ModuleType, names: list[str]) -> str:
    return " ".join(f"{module.__name__.removeprefix('gradtx.')}.{name}" for name in names)


GROUPS = [
    _group(
        "Optimizers",
        "Gradient descent, momentum and signs",
        "descent",
        "The gradient, its average, or the sign of either, times a rate.",
        """sgd noisy_sgd optimistic_gradient_descent sign_sgd signum lion rprop""",
    ),
    _group(
        "Optimizers",
        "A rate for each element",
        "elementwise",
        "Steps are divided by the size that the gradients of an element have had.",
        "adagrad rmsprop adadelta madgrad",
    ),
    _group(
        "Optimizers",
        "Adam and its kin",
        "adams",
        "An average of gradients, divided by the root of an average of their squares.",
        """adam adamw nadam nadamw adamax adamaxw amsgrad radam adabelief yogi adan ademamix
        simplified_ademamix adopt laprop acprop adam_atan2 stable_adamw mars optimistic_adam_v2""",
    ),
    _group(
        "Optimizers",
        "Matrix optimizers",
        "matrix-optimizers",
        "They treat a hidden weight as a matrix, and give all other leaves to AdamW.",
        """muon normuon adamuon muown contra_muon aurora dion dion2 scion shampoo soap kl_soap soap_muon kron
        splus""",
    ),
    _group(
        "Optimizers",
        "Less memory, larger batches",
        "layerwise",
        "One number for a row, a block or a leaf in the place of one for each element.",
        "adafactor sm3 came adam_mini galore novograd lars lamb fromage",
    ),
    _group(
        "Optimizers",
        "No rate to tune, no end to know",
        "rate-free",
        "The size of the steps, or when to make them smaller, follows from the run.",
        """prodigy dadapt_adamw dog dowg cocob momo momo_adam polyak_sgd mechanize schedule_free_sgd
        schedule_free_adamw schedule_free""",
    ),
    _group(
        "Optimizers",
        "Curvature and line searches",
        "line-searches",
        "More than one look at the loss for a step.",
        """lbfgs sophia minimize scale_by_lbfgs scale_by_sophia hutchinson_estimator_diag_hessian
        scale_by_backtracking_linesearch scale_by_zoom_linesearch value_and_grad_from_state""",
    ),
    _group(
        "Transforms",
        "Composition",
        "composition",
        "Transforms in a row, side by side, and on some leaves only.",
        """chain named_chain add ratio masked partition multi_transform freeze selective_transform
        conditionally_transform conditionally_mask""",
    ),
    _group(
        "Transforms",
        "Directions",
        "directions",
        "From gradients to the direction of a step, which is what most optimizers differ in.",
        """scale_by_adam scale_by_rms scale_by_stddev scale_by_rss scale_by_adadelta scale_by_belief
        scale_by_yogi scale_by_amsgrad scale_by_adamax scale_by_adan scale_by_radam scale_by_ademamix
        scale_by_simplified_ademamix scale_by_adopt scale_by_laprop scale_by_acprop scale_by_adam_atan2
        scale_by_stable_adam scale_by_novograd scale_by_lion scale_by_sign scale_by_rprop scale_by_madgrad
        scale_by_optimistic_gradient scale_by_sm3 scale_by_factored_rms scale_by_came scale_by_adam_mini
        scale_by_galore scale_by_fromage""",
    ),
    _group(
        "Transforms",
        "Directions of matrices",
        "matrices",
        "What the matrix optimizers do to one matrix, and how a leaf is seen as matrices.",
        """orthogonalize scale_by_muon scale_by_normuon scale_by_adamuon scale_by_muown scale_by_contra_muon
        scale_by_aurora scale_by_dion scale_by_dion2 scale_by_shampoo scale_by_soap scale_by_kl_soap
        scale_by_soap_muon scale_by_kron scale_by_splus scale_by_matrix_size qk_clip by_matrix heads
        matrix_view MatrixView contrib.MuonDimensionNumbers contrib.GaLoreDimensionNumbers""",
    ),
    _group(
        "Transforms",
        "Step sizes that follow from the run",
        "estimates",
        "Factors that are estimated while the run goes on.",
        """scale_by_prodigy scale_by_dadapt_adam scale_by_dog scale_by_dowg scale_by_distance_over_gradients
        scale_by_cocob scale_by_polyak reduce_on_plateau""",
    ),
    _group(
        "Transforms",
        "Clipping and normalizing",
        "clipping",
        "Bounds for gradients and updates.",
        """clip clip_by_global_norm clip_by_block_rms adaptive_grad_clip normalize normalize_by_block_rms
        normalize_by_update_norm centralize zero_nans global_norm unitwise_norm unitwise_clip""",
    ),
    _group(
        "Transforms",
        "Averages of gradients",
        "averages-of-gradients",
        "Momentum, and what belongs to it.",
        "trace ema debias apply_every reduce_variance ema_nesterov",
    ),
    _group(
        "Transforms",
        "Weight decay and bounds of parameters",
        "decay",
        "What looks at the parameters and not at the gradient.",
        """add_decayed_weights add_cautious_decayed_weights keep_params_nonnegative scale_by_hyperball
        radial_brake row_floor""",
    ),
    _group(
        "Transforms",
        "Scaling",
        "scaling",
        "One factor: for all, for a group, for a leaf, or from a norm.",
        """scale scale_by_learning_rate scale_by_schedule scale_by_leaf scale_by_group scale_by_trust_ratio
        scale_by_param_block_norm scale_by_param_block_rms""",
    ),
    _group(
        "Transforms",
        "Atoms and noise",
        "atoms",
        "The smallest parts, from which others can be put together.",
        """identity set_to_zero negate sign square sqrt offset add_noise stateless stateless_with_tree_map
        cautious grams""",
    ),
    _group(
        "Schedules",
        "Schedules",
        "schedules",
        "A number that depends on the step. Wherever a number may stand, a schedule may stand too.",
        """Schedule constant_schedule linear_schedule polynomial_schedule cosine_decay_schedule
        exponential_decay half_life_schedule inverse_sqrt_schedule piecewise_constant_schedule
        piecewise_interpolate_schedule warmup_constant_schedule warmup_linear_decay_schedule
        warmup_cosine_decay_schedule warmup_exponential_decay_schedule warmup_stable_decay_schedule
        linear_onecycle_schedule cosine_onecycle_schedule sgdr_schedule join_schedules""",
    ),
    _group(
        "Wrappers",
        "Accumulation and guards",
        "guards",
        "When an update is made, and when it is not.",
        """accumulate accumulate_gradients MultiSteps guard apply_if_finite skip_not_finite
        skip_large_updates""",
    ),
    _group(
        "Wrappers",
        "Averages of parameters",
        "averages",
        "What is evaluated is not always what is trained.",
        """ema_params polyak_average lookahead eval_params schedule_free_eval_params incremental_update
        periodic_update""",
    ),
    _group(
        "Wrappers",
        "Other wrappers",
        "wrappers",
        "What changes the gradients, or the form in which a transform sees them.",
        "sam flatten split_real_and_imaginary with_extra_args_support",
    ),
    _group(
        "Wrappers",
        "Privacy",
        "privacy",
        "Gradients of single examples, clipped and hidden in noise.",
        """dpsgd differentially_private_aggregate per_example_global_norm_clip
        per_example_layer_norm_clip""",
    ),
    _group(
        "A run",
        "Steps and numbers",
        "numbers",
        "Making a step, and reading and setting the hyperparameters that are in the state.",
        """apply_gradients apply_updates hyperparams set_hyperparams step_count rebase inject_hyperparams
        inject_stateful_hyperparams tree_map_params""",
    ),
    _group(
        "A run",
        "Looking in",
        "looking",
        "What an optimizer is, does, costs and did.",
        """describe check formula diff explain state_bytes routing Route Routing slots_by_leaf track metrics
        monitor measure_with_ema snapshot report plot_schedule plot_metrics plot_paths""",
    ),
    _group(
        "A run",
        "Taking it along",
        "moving",
        "Configs, files, and states of Optax and of torch.",
        """to_config from_config to_state_dict from_state_dict convert_state to_optax from_optax_state
        to_optax_state from_torch_state_dict to_torch_state_dict""",
    ),
    _group(
        "A run",
        "Precision",
        "precision",
        "In how many bits a state is kept, and what keeps small updates of parameters of 16 bits.",
        "precision store precise_params",
    ),
    _group(
        "A run",
        "Many devices",
        "devices",
        "Where a state lies, and how it is put into shards.",
        "shard_state state_sharding",
    ),
    _group(
        "A run",
        "Speed",
        "speed",
        "By which kernels leaves are updated.",
        "kernels",
    ),
    _group(
        "A run",
        "Flax",
        "flax",
        "`gradtx.flax` needs Flax, and is imported by its name.",
        _all_of(gradtx.flax, gradtx.flax.__all__),
    ),
    _group(
        "Writing your own",
        "Rules and recipes",
        "rules",
        "A rule is a formula on one array, a recipe a composition under a name of its own.",
        "Rule Slot Key WholeScalar MatrixRule MatrixSlot recipe",
    ),
    _group(
        "Writing your own",
        "Kinds of numbers",
        "kinds",
        "What a field of a rule may be annotated with: each says which numbers are accepted.",
        """Number NonNegative Positive Fraction Decay Rate Scalar ScalarOrSchedule DTypeName Mask""",
    ),
    _group(
        "Writing your own",
        "Types for annotations",
        "types",
        "`gradtx.typing` has what the methods of a rule see, and any library's transform, for annotations.",
        _all_of(gradtx.typing, gradtx.typing.__all__),
    ),
    _group(
        "Writing your own",
        "Testing",
        "testing",
        "`gradtx.testing` holds any optimizer, of this library or another, against laws.",
        _all_of(gradtx.testing, gradtx.testing.__all__),
    ),
    _group(
        "Writing your own",
        "The protocol",
        "protocol",
        "The types of a transform and of what it takes and gives.",
        """Transform OptState Params Updates TransformInitFn TransformUpdateFn
        TransformUpdateExtraArgsFn EmptyState MaskedNode init_empty_state NO_PARAMS_MSG""",
    ),
    _group(
        "Trees",
        "Functions of trees",
        "trees",
        "`gradtx.tree` has arithmetic, norms and moments of whole trees, and reads a state by names.",
        _all_of(gradtx.tree, [n for n in gradtx.tree.__all__ if n != "map_params"]),
    ),
    _group(
        "Trees",
        "Norms and counts",
        "numerics",
        "Small functions for rules of your own.",
        "safe_norm safe_root_mean_squares safe_increment safe_int32_increment tree_utils.NamedTupleKey",
    ),
]

MODULES = {
    "gradtx.contrib": gradtx.contrib.__all__,
    "gradtx.schedules": gradtx.schedules.__all__,
    "gradtx.transforms": gradtx.transforms.__all__,
    "gradtx.tree": gradtx.tree.__all__,
    "gradtx.tree_utils": gradtx.tree_utils.__all__,
    "gradtx.testing": gradtx.testing.__all__,
    "gradtx.flax": gradtx.flax.__all__,
    "gradtx.typing": gradtx.typing.__all__,
}
"""The public modules below gradtx, and the names of each."""


def found(dotted: str) -> Any:
    """The thing of a public name, such as `adam` or `tree.add`."""
    thing: Any = gradtx
    for part in dotted.split("."):
        thing = getattr(thing, part)
    return thing


def public() -> list[str]:
    """Every public name: those of gradtx, and those of its modules with the module before them."""
    own = [n for n in gradtx.__all__ if not inspect.ismodule(found(n))]
    return own + [f"{m.removeprefix('gradtx.')}.{n}" for m, names in MODULES.items() for n in names]


def aliases() -> dict[str, list[str]]:
    """For each name that has a page, the other names of the same thing.

    Raises:
        ValueError: a name is in no group or in two.
    """
    placed = [name for group in GROUPS for name in group.names]
    twice = sorted({name for name in placed if placed.count(name) > 1})
    things = {name: found(name) for name in placed}
    others: dict[str, list[str]] = {name: [] for name in placed}
    lost = []
    for name in public():
        if name not in things:
            same = [page for page, thing in things.items() if thing is found(name)]
            (others[same[0]] if same else lost).append(name)
    unknown = sorted(set(placed) - set(public()))
    if twice or lost or unknown:
        raise ValueError(
            f"docs/_ext/reference/concepts.py gives each public name one group. In none: {lost}; in two: "
            f"{twice}; not public: {unknown}."
        )
    return others
