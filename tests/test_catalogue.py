"""The catalogue is complete, and every public name is documented."""

import inspect

import pytest

import gradtx
import references
from catalogue import ENTRIES, STORAGE
from gradtx.core.numbers.steps import REST

# Public names that are not transforms, with why.
NOT_TRANSFORMS = {
    "kinds of arguments, for annotations": [
        "DTypeName",
        "Decay",
        "EmptyState",
        "Fraction",
        "Mask",
        "MaskedNode",
        "NO_PARAMS_MSG",
        "NonNegative",
        "Number",
        "OptState",
        "Params",
        "Positive",
        "Rate",
        "Scalar",
        "ScalarOrSchedule",
        "TransformInitFn",
        "TransformUpdateExtraArgsFn",
        "TransformUpdateFn",
        "Updates",
    ],
    "what a new rule is written with": [
        *(
            "Key",
            "MatrixRule",
            "MatrixSlot",
            "MatrixView",
            "Rule",
            "Slot",
            "WholeScalar",
            "heads",
            "matrix_view",
            "recipe",
        )
    ],
    "classes of what the catalogue builds": [
        "GradientTransformation",
        "GradientTransformationExtraArgs",
        "Schedule",
        "Transform",
    ],
    "optimizers and states as plain data": ["from_config", "from_state_dict", "to_config", "to_state_dict"],
    "functions of gradient functions": ["accumulate_gradients", "value_and_grad_from_state"],
    "functions of trees": [
        "apply_gradients",
        "apply_updates",
        "global_norm",
        "incremental_update",
        "minimize",
        "per_example_global_norm_clip",
        "per_example_layer_norm_clip",
        "periodic_update",
    ],
    "what a transform of two functions is written with": [
        "bias_correction",
        "init_empty_state",
        "safe_norm",
        "safe_root_mean_squares",
        "unitwise_clip",
        "unitwise_norm",
        "safe_increment",
        "safe_int32_increment",
        "update_infinity_moment",
        "update_moment",
        "update_moment_per_elem_norm",
    ],
    "namespaces": ["contrib", "schedules", "transforms", "tree", "tree_utils"],
    "what looks into a transform": [
        "check",
        "describe",
        "Route",
        "Routing",
        "routing",
        "diff",
        "explain",
        "formula",
        "plot_metrics",
        "plot_paths",
        "plot_schedule",
        "state_bytes",
    ],
    "functions of a state": [
        "convert_state",
        "eval_params",
        "schedule_free_eval_params",
        "hyperparams",
        "metrics",
        "rebase",
        "report",
        "set_hyperparams",
        "slots_by_leaf",
        "state_sharding",
        "step_count",
        "tree_map_params",
    ],
    "what other libraries take and give": [
        "from_optax_state",
        "from_torch_state_dict",
        "to_optax",
        "to_optax_state",
        "to_torch_state_dict",
    ],
    "what is around a whole optimizer and places its state": ["shard_state"],
    "what chooses kernels": ["kernels"],
    "conditions to skip a step": ["skip_large_updates", "skip_not_finite"],
}


def test_every_public_name_is_in_the_catalogue():
    others = [name for names in NOT_TRANSFORMS.values() for name in names]
    assert sorted([*ENTRIES, *others]) == sorted(gradtx.__all__)


@pytest.mark.parametrize("name", [n for n in gradtx.__all__ if inspect.isfunction(getattr(gradtx, n))])
def test_every_public_function_has_an_example(name):
    assert ">>> " in (inspect.getdoc(getattr(gradtx, name)) or "")


@pytest.mark.parametrize("name", [n for n in gradtx.__all__ if inspect.isclass(getattr(gradtx, n))])
def test_every_public_class_has_a_docstring(name):
    assert getattr(gradtx, name).__doc__


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=list(ENTRIES))
def test_the_alternative_differs_in_every_number(entry):
    """Of one structure, so that one compiled program serves both; with no number in common."""
    one, other = entry.transform(), entry.transform("alternative")
    assert one.program == other.program
    given = {*entry.settings, *(["b1", "b2"] if "betas" in entry.settings else [])}
    for path, number in one.program.numbers.items():
        is_rest = path[-1].endswith(REST)  # 0 where float32 holds the number of steps
        # What a recipe leaves at its default stands under the name of the transform that has it.
        is_default = entry.kind == "optimizer" and path[0] != entry.name
        if not (is_rest or is_default) and given & {part.removeprefix("one_minus_") for part in path}:
            assert other.program.numbers[path] != number, path


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=list(ENTRIES))
def test_every_form_has_a_reference_or_a_reason(entry):
    for variant in ["", "alternative", *entry.variants]:
        if entry.reference is None:
            assert entry.no_reference
        elif entry.kind == "schedule":
            assert isinstance(entry.build_reference(variant)(1), float)
        else:
            assert isinstance(entry.build_reference(variant), references.Reference)
    for layout, changes in entry.layouts.items():
        assert set(changes) & set(STORAGE), layout
