"""Which state of Optax is which of gradtx: one table, read in both directions.

Optax's states are known by the name of their class and their fields, so that nothing of Optax is imported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.numerics import number_dtype
from gradtx.transforms.sm3 import MOST_AXES

PARAMS = "params"
"""The name of the parameters among the values that a row takes, where it takes them."""

Values = dict[str, Any]
"""Slots by gradtx's names: a list of arrays for a slot of leaves, an array or a tree for another one."""

Steps = tuple[int | None, int | None]
"""The step of a chain, and that of the transform that a wrapper in it wraps; None where it is not known."""


def _as_they_are(rule: Any, values: Values, step: int) -> Values:
    return values


def _unknown(rule: Any, values: Values, outer: int | None, inner: int | None) -> Steps:
    return outer, inner


@dataclasses.dataclass(frozen=True)
class Inner:
    """The state of what a wrapper wraps: the field of Optax's, and what is known of the two steps."""

    field: str
    steps: Callable[[Any, Values, int | None, int | None], Steps] = _unknown


@dataclasses.dataclass(frozen=True)
class Row:
    """One rule or wrapper of gradtx, and the state that Optax has for it.

    Attributes:
        state: the name of Optax's class.
        slots: its field for each slot of leaves; with a dot and a number, a part of what stands in the place
            of each leaf.
        scalars: its field for each slot of the whole tree; with a dot, a field of a field.
        counts: its counters, each of which is the step.
        first_count: what they say before the first step.
        is_first: its field that says whether the first step is still to come.
        before: its field with the state of what stands before it in a chain of gradtx.
        inner: for each transform that it wraps, the field with its state.
        takes_params: whether `taken` gets the parameters too, as a list under `PARAMS`.
        setting: the setting of the rule that this row is for, where there are several.
        taken: what becomes of Optax's values on the way to gradtx; a slot that it leaves out starts anew.
        given: what becomes of gradtx's values on the way to Optax; what it leaves out stays as it is there.
    """

    state: str
    slots: Mapping[str, str] = dataclasses.field(default_factory=dict)
    scalars: Mapping[str, str] = dataclasses.field(default_factory=dict)
    counts: tuple[str, ...] = ()
    first_count: int = 0
    is_first: str = ""
    before: str = ""
    inner: Mapping[str, Inner] = dataclasses.field(default_factory=dict)
    takes_params: bool = False
    setting: tuple[str, Any] | None = None
    taken: Callable[[Any, Values, int], Values] = _as_they_are
    given: Callable[[Any, Values, int], Values] = _as_they_are

    @property
    def fields(self) -> set[str]:
        """The fields of Optax's that it is about."""
        named = {field.partition(".")[0] for field in (*self.slots.values(), *self.scalars.values())}
        wrapped = {inner.field for inner in self.inner.values()}
        return {*named, *wrapped, *self.counts, *filter(None, [self.is_first, self.before])}


def _same(rule: Any, values: Values, outer: int | None, inner: int | None) -> Steps:
    known = inner if outer is None else outer
    return known, known if inner is None else inner


def _key_taken(rule: Any, values: Values, step: int) -> Values:
    key = values["rng_key"]
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return {"rng_key": jax.random.key_data(key) if typed else key}


def _sophia_taken(rule: Any, values: Values, step: int) -> Values:
    # Optax renews its estimate at the steps that the interval divides. Of a scheduled one that is not known.
    every = rule.update_interval
    return {**values, "age": np.int32(0 if callable(every) else step % int(every))}


def _steps_of_sophia(rule: Any, values: Values, outer: int | None, inner: int | None) -> Steps:
    if outer is None or inner is not None or callable(rule.update_interval):
        return outer, inner
    return outer, -(-outer // int(rule.update_interval))


def _key_given(rule: Any, values: Values, step: int) -> Values:
    return {"rng_key": jax.random.wrap_key_data(jnp.array(values["rng_key"], copy=True))}


def _sum_taken(rule: Any, values: Values, step: int) -> Values:
    # Optax leaves the sum that it has let through in its place, and starts anew at the next call.
    if values["count"] == 0:
        values = {**values, "sum": jax.tree.map(jnp.zeros_like, values["sum"])}
    return values


def _means(rule: Any) -> bool:
    return getattr(rule, "use_grad_mean", True)


def _mean_taken(rule: Any, values: Values, step: int) -> Values:
    count, sums = values["count"], values["sum"]
    if _means(rule):
        sums = jax.tree.map(lambda s: s * np.asarray(count, s.dtype), sums)
    latest = np.int32(step if count == 0 and values["clock"] > 0 else 0)
    return {**values, "sum": sums, "latest": latest}


def _mean_given(rule: Any, values: Values, step: int) -> Values:
    count, sums = values["count"], values["sum"]
    if _means(rule):
        sums = jax.tree.map(lambda s: s / np.asarray(max(int(count), 1), s.dtype), sums)
    return {**values, "sum": sums}


def _steps_of_accumulation(rule: Any, values: Values, outer: int | None, inner: int | None) -> Steps:
    updates = int(values["clock"])
    if outer is None and not callable(rule.every) and getattr(rule, "should_skip_update_fn", None) is None:
        outer = updates * int(np.ceil(float(rule.every))) + int(values["count"])
    return outer, updates


def _errors_taken(rule: Any, values: Values, step: int) -> Values:
    # After too many errors in a row Optax counts on and applies each; gradtx starts the count anew.
    many = not callable(rule.max_consecutive_errors) and (
        values["notfinite_count"] > rule.max_consecutive_errors
    )
    return {**values, "notfinite_count": np.int32(0)} if many else values


def _steps_unless_skipped(rule: Any, values: Values, outer: int | None, inner: int | None) -> Steps:
    never = int(values["total_notfinite"]) == 0
    return _same(rule, values, outer, inner) if never else (outer, inner)


def _steps_of_calls(rule: Any, values: Values, outer: int | None, inner: int | None) -> Steps:
    return int(values["calls"]), inner


def _steps_of_lookahead(rule: Any, values: Values, outer: int | None, inner: int | None) -> Steps:
    return (outer, inner) if rule.reset_state else _same(rule, values, outer, inner)


def _plateau_taken(rule: Any, values: Values, step: int) -> Values:
    # The best value is infinite at first in Optax, and the largest number in gradtx.
    best = np.asarray(values["best_value"])
    return {**values, "best_value": np.minimum(best, np.finfo(number_dtype()).max)}


def _plateau_given(rule: Any, values: Values, step: int) -> Values:
    best = np.asarray(values["best_value"])
    return {**values, "best_value": np.where(best == np.finfo(best.dtype).max, np.inf, best)}


def _later(name: str) -> Callable[[Any, Values, int], Values]:
    """A slot that before the first step is nothing yet in gradtx, and something in Optax."""

    def changed(rule: Any, values: Values, step: int) -> Values:
        return values if step > 0 else {k: v for k, v in values.items() if k != name}

    return changed


_LEAFWISE = ("max_dist", "grad_sum_of_squares")
"""What Optax has as an array of one element for each leaf, or as a scalar; gradtx has a scalar."""


def _distances_taken(rule: Any, values: Values, step: int) -> Values:
    scalars = {name: [None if x is None else x.reshape(()) for x in values[name]] for name in _LEAFWISE}
    return {**values, **scalars}


def _distances_given(rule: Any, values: Values, step: int) -> Values:
    # Optax does not move from a distance of 0, and knows the first one at init.
    far = [None if x is None or float(x) == 0 else x for x in values["max_dist"]]
    sums = [None if x is None else x.reshape(1) for x in values["grad_sum_of_squares"]]
    return {**values, "max_dist": far, "grad_sum_of_squares": sums}


def _path_taken(rule: Any, values: Values, step: int) -> Values:
    # Optax keeps the sum of the updates as what leads from the first parameters to these.
    if step == 0:
        return {k: v for k, v in values.items() if k != "s"}
    far = jnp.sum(values["s"])
    pairs = zip(values[PARAMS], values["x0"], strict=True)
    moved = [None if x is None else (jnp.asarray(p).astype(x.dtype) - x) / far for p, x in pairs]
    return {**values, "delta": moved}


def _sam_taken(rule: Any, values: Values, step: int) -> Values:
    is_away = np.float32(values["steps_since_sync"] > 0)
    return {**values, "away": [None if x is None else is_away for x in values["cache"]]}


def _steps_of_rounds(rule: Any, values: Values, outer: int | None, inner: int | None) -> Steps:
    if rule.opaque_mode:
        return _same(rule, values, outer, inner)
    count = int(values["steps_since_sync"])
    if outer is None:
        return None if inner is None else inner * rule.sync_period + count, inner
    return outer, (outer - count) // rule.sync_period


def _steps_of_climbs(rule: Any, values: Values, outer: int | None, inner: int | None) -> Steps:
    count = int(values["steps_since_sync"])
    if rule.reset_state:
        return outer, count
    if outer is None:
        return outer, inner
    rounds = outer if rule.opaque_mode else (outer - count) // rule.sync_period
    return outer, rounds * (rule.sync_period - 1) + count


_FOUND = ("decrease_error", "curvature_error")
"""What Optax has as infinity before the first search, and gradtx as 0."""


def _found(start: float) -> Callable[[Any, Values, int], Values]:
    def changed(rule: Any, values: Values, step: int) -> Values:
        first = {name: np.full_like(values[name], start) for name in _FOUND if name in values}
        return values if int(values["num_linesearch_steps"]) else {**values, **first}

    return changed


def _search(state: str, **errors: str) -> Row:
    trials = {"num_linesearch_steps": "info.num_linesearch_steps", "decrease_error": "info.decrease_error"}
    scalars = {"learning_rate": "learning_rate", "value": "value", **trials, **errors}
    return Row(state, {"grad": "grad"}, scalars, taken=_found(0.0), given=_found(np.inf))


_ACCUMULATION = Row(
    "MultiStepsState",
    {"sum": "acc_grads"},
    {"count": "mini_step", "clock": "gradient_step"},
    inner={"inner": Inner("inner_opt_state", _steps_of_accumulation)},
    taken=_mean_taken,
    given=_mean_given,
)
_CALLS = {"scalars": {"calls": "step"}, "inner": {"inner": Inner("inner_state", _steps_of_calls)}}

ROWS: dict[str, tuple[Row, ...]] = {
    "trace": (Row("TraceState", {"trace": "trace"}),),
    "ema": (Row("EmaState", {"ema": "ema"}, counts=("count",)),),
    "apply_every": (Row("ApplyEvery", {"sum": "grad_acc"}, {"count": "count"}, taken=_sum_taken),),
    "scale_by_rss": (Row("ScaleByRssState", {"sum_of_squares": "sum_of_squares"}),),
    "scale_by_rms": (
        Row("ScaleByRmsState", {"nu": "nu"}, setting=("bias_correction", False)),
        Row("ScaleByRmsWithCountState", {"nu": "nu"}, counts=("count",), setting=("bias_correction", True)),
    ),
    "scale_by_stddev": (
        Row("ScaleByRStdDevState", {"mu": "mu", "nu": "nu"}, setting=("bias_correction", False)),
        Row(
            "ScaleByRStdDevWithCountState",
            {"mu": "mu", "nu": "nu"},
            counts=("count",),
            setting=("bias_correction", True),
        ),
    ),
    "scale_by_adadelta": (Row("ScaleByAdaDeltaState", {"e_g": "e_g", "e_x": "e_x"}),),
    "scale_by_adam": (Row("ScaleByAdamState", {"mu": "mu", "nu": "nu"}, counts=("count",)),),
    "scale_by_ademamix": (
        Row("ScaleByAdemamixState", {"m1": "m1", "m2": "m2", "nu": "nu"}, counts=("count", "count_m2")),
    ),
    "scale_by_belief": (Row("ScaleByBeliefState", {"mu": "mu", "nu": "nu"}, counts=("count",)),),
    "scale_by_yogi": (Row("ScaleByAdamState", {"mu": "mu", "nu": "nu"}, counts=("count",)),),
    "scale_by_adamax": (Row("ScaleByAdamState", {"mu": "mu", "nu": "nu"}, counts=("count",)),),
    "scale_by_radam": (Row("ScaleByAdamState", {"mu": "mu", "nu": "nu"}, counts=("count",)),),
    "scale_by_amsgrad": (
        Row("ScaleByAmsgradState", {"mu": "mu", "nu": "nu", "nu_max": "nu_max"}, counts=("count",)),
    ),
    "scale_by_adan": (Row("ScaleByAdanState", {"m": "m", "v": "v", "n": "n", "g": "g"}, counts=("t",)),),
    "scale_by_novograd": (Row("ScaleByNovogradState", {"mu": "mu", "nu": "nu"}, counts=("count",)),),
    "scale_by_rprop": (
        Row("ScaleByRpropState", {"step_sizes": "step_sizes", "prev_updates": "prev_updates"}),
    ),
    "scale_by_muon": (Row("MuonState", {"mu": "mu"}, counts=("count",)),),
    "scale_by_lion": (Row("ScaleByLionState", {"mu": "mu"}, counts=("count",)),),
    "scale_by_factored_rms": (
        Row("FactoredState", {"v_row": "v_row", "v_col": "v_col", "v": "v"}, counts=("count",)),
    ),
    "scale_by_prodigy": (
        Row(
            "ProdigyState",
            {"mu": "exp_avg", "nu": "exp_avg_sq", "grad_sum": "grad_sum", "params0": "params0"},
            {"d": "estim_lr", "r": "numerator_weighted"},
            counts=("count",),
        ),
    ),
    "scale_by_acprop": (Row("ScaleByBeliefState", {"mu": "mu", "nu": "nu"}, counts=("count",)),),
    "scale_by_adopt": (Row("ScaleByAdamState", {"mu": "mu", "nu": "nu"}, counts=("count",)),),
    "scale_by_simplified_ademamix": (
        Row("ScaleBySimplifiedAdEMAMixState", {"m": "m", "n": "n"}, counts=("t",)),
    ),
    "scale_by_madgrad": (
        Row("MadgradState", {"grad_sum_sq": "grad_sum_sq", "s": "s", "x0": "x0"}, counts=("count",)),
    ),
    "scale_by_cocob": (
        Row(
            "COCOBState",
            {n: n for n in ("init_particles", "cumulative_gradients", "scale", "subgradients", "reward")},
        ),
    ),
    "scale_by_dog": (
        Row(
            "DoGState",
            {"params0": "init_params"},
            {"max_dist": "max_dist", "sum_sq_norm_grads": "sum_sq_norm_grads"},
            is_first="is_init_step",
            taken=_later("max_dist"),
            given=_later("max_dist"),
        ),
    ),
    "scale_by_distance_over_gradients": (
        Row(
            "ScaleByDistanceOverGradientsState",
            {n: n for n in ("init_params", *_LEAFWISE)},
            taken=_distances_taken,
            given=_distances_given,
        ),
    ),
    "scale_by_optimistic_gradient": (
        Row(
            "ScaleByOptimisticGradientState",
            {"previous_gradient": "previous_gradient"},
            is_first="is_initial_step",
        ),
    ),
    "scale_by_sm3": (
        Row("ScaleBySM3State", {"nu": "nu", **{f"axis_{i}": f"mu.{i}" for i in range(MOST_AXES)}}),
    ),
    "schedule_free": (
        Row(
            "ScheduleFreeState",
            {"z": "z"},
            {"weight_sum": "weight_sum", "max_lr": "max_lr", "share": "b1"},
            counts=("step_count",),
            first_count=1,
            before="base_optimizer_state",
            taken=_later("share"),
            given=_later("share"),
        ),
    ),
    "mechanize": (
        Row(
            "MechanicState",
            {"x0": "x0"},
            {name: name for name in ("r", "m", "v", "s")},
            counts=("count",),
            inner={"inner": Inner("base_optimizer_state", _same)},
            takes_params=True,
            taken=_path_taken,
            given=_later("s"),
        ),
    ),
    "sam": (
        Row(
            "SAMState",
            {"cache": "cache"},
            {"steps_since_sync": "steps_since_sync"},
            inner={
                "inner": Inner("opt_state", _steps_of_rounds),
                "inner_adversarial": Inner("adv_state", _steps_of_climbs),
            },
            taken=_sam_taken,
        ),
    ),
    "scale_by_dowg": (
        Row(
            "DoWGState",
            {"params0": "init_params"},
            {"estim_sq_dist": "estim_sq_dist", "weighted_sq_norm_grads": "weighted_sq_norm_grads"},
        ),
    ),
    "momo": (
        Row(
            "MomoState",
            {"exp_avg": "exp_avg"},
            {"barf": "barf", "gamma": "gamma", "lb": "lb"},
            counts=("count",),
        ),
    ),
    "momo_adam": (
        Row(
            "MomoAdamState",
            {"exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"},
            {"barf": "barf", "gamma": "gamma", "lb": "lb"},
            counts=("count",),
        ),
    ),
    "scale_by_dadapt_adam": (
        Row(
            "DAdaptAdamWState",
            {"mu": "exp_avg", "nu": "exp_avg_sq", "grad_sum": "grad_sum"},
            {"d": "estim_lr", "r": "numerator_weighted"},
            counts=("count",),
        ),
    ),
    "differentially_private_aggregate": (
        Row(
            "DifferentiallyPrivateAggregateState",
            scalars={"rng_key": "rng_key"},
            taken=_key_taken,
            given=_key_given,
        ),
    ),
    "add_noise": (
        Row(
            "AddNoiseState",
            scalars={"rng_key": "rng_key"},
            counts=("count",),
            taken=_key_taken,
            given=_key_given,
        ),
    ),
    "hutchinson_estimator_diag_hessian": (
        Row("HutchinsonState", scalars={"rng_key": "key"}, taken=_key_taken),
    ),
    "scale_by_sophia": (
        Row(
            "SophiaState",
            {"mu": "mu", "nu": "nu"},
            counts=("count",),
            inner={"inner": Inner("hessian_fn_state", _steps_of_sophia)},
            taken=_sophia_taken,
        ),
    ),
    "scale_by_galore": (
        Row(
            "GaLoreState",
            {"projector": "projector"},
            counts=("count",),
            inner={"inner": Inner("base_optimizer_state", _same)},
        ),
    ),
    "accumulate": (_ACCUMULATION,),
    "MultiSteps": (
        dataclasses.replace(_ACCUMULATION, scalars={**_ACCUMULATION.scalars, "skip": "skip_state"}),
    ),
    "apply_if_finite": (
        Row(
            "ApplyIfFiniteState",
            scalars={n: n for n in ("notfinite_count", "last_finite", "total_notfinite")},
            inner={"inner": Inner("inner_state", _steps_unless_skipped)},
            taken=_errors_taken,
        ),
    ),
    "reduce_on_plateau": (
        Row(
            "ReduceLROnPlateauState",
            scalars={
                n: n for n in ("scale", "best_value", "plateau_count", "cooldown_count", "count", "avg_value")
            },
            taken=_plateau_taken,
            given=_plateau_given,
        ),
    ),
    "scale_by_lbfgs": (
        Row(
            "ScaleByLBFGSState",
            {n: n for n in ("params", "updates", "diff_params_memory", "diff_updates_memory")},
            {"weights_memory": "weights_memory"},
            counts=("count",),
        ),
    ),
    "scale_by_backtracking_linesearch": (_search("ScaleByBacktrackingLinesearchState"),),
    "scale_by_zoom_linesearch": (
        _search("ScaleByZoomLinesearchState", curvature_error="info.curvature_error"),
    ),
    "conditionally_transform": (Row("ConditionallyTransformState", **_CALLS),),
    "conditionally_mask": (Row("ConditionallyMaskState", **_CALLS),),
    "lookahead": (
        Row(
            "LookaheadState",
            scalars={"count": "steps_since_sync"},
            inner={"inner": Inner("fast_state", _steps_of_lookahead)},
        ),
    ),
    "inject_hyperparams": (
        Row(
            "InjectStatefulHyperparamsState",
            scalars={"states": "hyperparams_states"},
            counts=("count",),
            inner={"inner": Inner("inner_state", _same)},
        ),
    ),
}
"""By the name of the rule or wrapper. A slot that is not here has no counterpart, and starts anew."""

COUNTERS = {"ScaleByScheduleState": "count", "WeightDecaySchedule": "count", "WrappedScheduleState": "count"}
"""States of Optax that only count steps, which gradtx does once for a chain."""

MEASURED = ("MonitorState", "SnapshotState", "ZeroNansState")
"""States of Optax of what is measured, which the next update measures anew."""

MEASURES = ("measurement", "measure_with_ema", "measure_by_transform")
"""The units of gradtx that measure."""

INJECTED = ("InjectHyperparamsState", "InjectStatefulHyperparamsState")
"""Optax's states that hold hyperparameters."""

GROUPS = ("PartitionState", "MultiTransformState")
"""Optax's states that hold one state for each label."""

LABELS = {"matrices": "muon", "rest": "adam"}
"""Optax's labels for the groups of an optimizer of matrices."""


def row_of(rule: Any) -> Row | None:
    """The row for a rule or a wrapper with its settings."""
    for row in ROWS.get(getattr(rule, "name", ""), ()):
        if row.setting is None or getattr(rule, row.setting[0]) == row.setting[1]:
            return row
    return None
