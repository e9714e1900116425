"""DoG and DoWG."""

from __future__ import annotations

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import ScalarOrSchedule
from gradtx.optimizers.descent import Coupling, descent
from gradtx.transforms.dog import First, scale_by_dog
from gradtx.transforms.dowg import scale_by_dowg


@recipe
def dog(
    learning_rate: ScalarOrSchedule = 1.0,
    init_step: tuple[First, ScalarOrSchedule] = ("heuristic", 1e-6),
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    *,
    decay_coupling: Coupling = "gradient",
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """DoG: gradient descent whose rate is a distance over a root of squared norms; see `scale_by_dog`.

    The authors evaluate an average of the parameters, as `gradtx.polyak_average` makes it.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; a factor of the estimated rate, usually 1.
        init_step: a word and a number that give the first step, as `scale_by_dog` takes them; the number is
            read and set as `init_value`.
        eps: added inside the root, >= 0.
        weight_decay: lambda, the strength of the weight decay, >= 0; by default none.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.

    Returns:
        An optimizer with the slot `params0`; `update` needs the parameters.

    Raises:
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx
        >>> gradtx.dog(init_step=("distance", 0.1))
        dog(init_step=('distance', 0.1))

    References:
        Ivgi et al., DoG is SGD's Best Friend: A Parameter-Free Dynamic Step Size Schedule, 2023,
        https://arxiv.org/abs/2302.12022.
    """
    kind, init_value = init_step
    return descent(
        "dog",
        scale_by_dog(kind, init_value, eps, axis_name=axis_name),
        learning_rate,
        weight_decay,
        mask,
        decay_coupling,
    )


@recipe
def dowg(
    learning_rate: ScalarOrSchedule = 1.0,
    init_estim_sq_dist: ScalarOrSchedule | None = None,
    eps: ScalarOrSchedule = 1e-4,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    *,
    decay_coupling: Coupling = "gradient",
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """DoWG: DoG with squared norms that are weighted by the distance so far; see `scale_by_dowg`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; a factor of the estimated rate, usually 1.
        init_estim_sq_dist: the first squared distance, > 0; `eps` by default.
        eps: added to the root, > 0.
        weight_decay: lambda, the strength of the weight decay, >= 0; by default none.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.

    Returns:
        An optimizer with the slot `params0`; `update` needs the parameters.

    Raises:
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx
        >>> gradtx.dowg()
        dowg()

    References:
        Khaled et al., DoWG Unleashed: An Efficient Universal Parameter-Free Gradient Descent Method, 2023,
        https://arxiv.org/abs/2305.16284.
    """
    direction = scale_by_dowg(init_estim_sq_dist, eps, axis_name=axis_name)
    return descent("dowg", direction, learning_rate, weight_decay, mask, decay_coupling)
