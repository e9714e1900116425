"""L-BFGS with a line search."""

from __future__ import annotations

from gradtx.core.compose.combine import chain
from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import ScalarOrSchedule
from gradtx.linesearch.lbfgs import scale_by_lbfgs
from gradtx.linesearch.zoom import scale_by_zoom_linesearch
from gradtx.transforms.elementary import identity, negate
from gradtx.transforms.scale import scale_by_learning_rate

ZOOM = scale_by_zoom_linesearch(20, initial_guess_strategy="one")


@recipe
def lbfgs(
    learning_rate: ScalarOrSchedule | None = None,
    memory_size: int = 10,
    scale_init_precond: bool = True,
    linesearch: Transform | None = ZOOM,
) -> Transform:
    """L-BFGS: a quasi-Newton method for smooth losses without noise; see `scale_by_lbfgs`.

        theta <- theta - t eta H g          H the estimate of the inverse Hessian, t from the line search

    The line search evaluates the loss and its gradient, so that `value_and_grad_from_state` need not do it
    again at the next step.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above. None for 1.
        memory_size: the number of pairs, >= 1; H is made of them.
        scale_init_precond: whether H begins with the multiple of the identity that fits the last pair.
        linesearch: a line search, or any other transform; None for t = 1, with which a loss that is not
            convex may diverge.

    Returns:
        An optimizer. With a line search `update` needs the parameters, `value=` and `value_fn=`, as
        `scale_by_zoom_linesearch` says.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> def loss(x):  # Rosenbrock's valley
        ...     return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
        >>> tx, x = gradtx.lbfgs(), jnp.array([-1.2, 1.0])
        >>> state, value_and_grad = tx.init(x), gradtx.value_and_grad_from_state(loss)
        >>> for _ in range(40):
        ...     value, grad = value_and_grad(x, state=state)
        ...     x, state = gradtx.apply_gradients(tx, grad, state, x, value=value, value_fn=loss)
        >>> bool(jnp.abs(x - 1).max() < 1e-3)
        True

    References:
        Liu, Nocedal, On the Limited Memory BFGS Method for Large Scale Optimization, 1989,
        https://doi.org/10.1007/BF01589116.
    """
    rate = negate() if learning_rate is None else scale_by_learning_rate(learning_rate)
    return chain(
        scale_by_lbfgs(memory_size, scale_init_precond),
        rate,
        identity() if linesearch is None else linesearch,
    )
