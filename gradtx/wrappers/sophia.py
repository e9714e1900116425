"""Sophia: momentum divided by an estimate of the diagonal of the Hessian, and clipped."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Slot, WholeScalar
from gradtx.core.compose.wrapper import Wrapper
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.scope import Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.engine.wrapped_update import Leaves, WrappedUpdate
from gradtx.core.numbers.steps import Steps, next_count
from gradtx.core.numerics import Decay, cast, divide, number_dtype, total
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import DType, DTypeName, NonNegative, Period, PositiveLimit, ScalarOrSchedule
from gradtx.core.spec.spec import show
from gradtx.wrappers.hessian import HUTCHINSON


class ScaleBySophia(Wrapper, name="scale_by_sophia"):
    """m = b1 m + (1 - b1) g;  h = b2 h + (1 - b2) h^, now and then;  u = clip(m^ / max(gamma h, eps))."""

    b1: Decay
    b2: Decay
    eps: NonNegative
    gamma: NonNegative
    clip_threshold: PositiveLimit | None
    update_interval: Period
    hessian_diagonal_fn: Any
    mu_dtype: DTypeName
    verbose: bool
    print_win_rate_every_n_steps: int
    bias_correction: bool
    estimate_first: bool

    in_place = False
    needs = ("params",)
    supports_complex: ClassVar[bool] = False

    mu, nu = Slot(dtype="mu_dtype", mean=True), Slot()
    age = WholeScalar(dtype="int32")

    def check(self) -> None:
        every = self.print_win_rate_every_n_steps
        if not isinstance(every, int) or every < 0:
            raise ValueError(
                f"{self.name}: print_win_rate_every_n_steps must be an int >= 0, got {show(every)}."
            )

    def wrapped(self) -> dict[str, Any]:
        return {"inner": self.hessian_diagonal_fn}

    def updates_in(self, calls: int) -> int | None:
        return None

    def run(self, gs: Leaves, slots: Slots, call: WrappedUpdate) -> tuple[Leaves, dict[str, Any]]:
        due = slots.age == 0
        estimates, inner = call.run(self.hessian_diagonal_fn, gs, slots.inner, when=due)
        age = next_count(slots.age)
        # Between two estimates the average is mixed with nothing.
        seen = Decay(jnp.where(due, self.b2.complement, 0))
        t = Steps.of(next_count(call.step)).value
        of_mu = 1 / self.b1.correction(t) if self.bias_correction else jnp.ones_like(t)
        mu = [self.b1.astype(g.dtype).mix(m, g) for m, g in zip(slots.mu, gs, strict=True)]
        nu = [seen.astype(h.dtype).mix(h, cast(e, h.dtype)) for h, e in zip(slots.nu, estimates, strict=True)]
        curvatures = nu if self.estimate_first else slots.nu
        ratios = [self._ratio(cast(of_mu, m.dtype) * m, h) for m, h in zip(mu, curvatures, strict=True)]
        if self.verbose and self.print_win_rate_every_n_steps and self.clip_threshold is not None:
            self._tell(ratios, call.step)
        kept = {"mu": mu, "nu": nu, "age": jnp.where(Steps.of(age) >= self.update_interval, 0, age)}
        return [self._clipped(x) for x in ratios], {**kept, "inner": inner}

    def _ratio(self, m: jax.Array, h: jax.Array) -> jax.Array:
        return divide(m, jnp.maximum(cast(self.gamma, h.dtype) * h, cast(self.eps, h.dtype)))

    def _clipped(self, x: jax.Array) -> jax.Array:
        if self.clip_threshold is None:
            return x
        bound = cast(self.clip_threshold, x.dtype)
        return jnp.clip(x, -bound, bound)

    def _tell(self, ratios: Leaves, step: jax.Array) -> None:
        """Prints now and then of which part of the elements the clipping has changed nothing."""
        assert self.clip_threshold is not None
        bound, size = cast(self.clip_threshold, number_dtype()), max(sum(x.size for x in ratios), 1)
        kept = total([jnp.sum(cast(abs(x), bound.dtype) < bound, dtype=bound.dtype) for x in ratios])

        def tell() -> None:
            jax.debug.print(f"{self.name}: win rate {{}}", kept / size)

        jax.lax.cond(next_count(step) % self.print_win_rate_every_n_steps == 0, tell, lambda: None)


@builds(ScaleBySophia)
def scale_by_sophia(
    b1: ScalarOrSchedule = 0.965,
    b2: ScalarOrSchedule = 0.99,
    eps: ScalarOrSchedule = 1e-8,
    gamma: ScalarOrSchedule = 0.01,
    clip_threshold: ScalarOrSchedule | None = 1.0,
    update_interval: ScalarOrSchedule = 10,
    hessian_diagonal_fn: AnyTransform = HUTCHINSON,
    mu_dtype: DType | None = None,
    verbose: bool = False,
    print_win_rate_every_n_steps: int = 0,
    *,
    bias_correction: bool = True,
    estimate_first: bool = False,
) -> Transform:
    """Divides momentum by an estimate of the diagonal of the Hessian, and clips each element.

        m = b1 m + (1 - b1) g
        h = b2 h + (1 - b2) h^,  at update 1 and at every update_interval-th after it
        u = clip(m / (1 - b1^t) / max(gamma h, eps), -clip_threshold, clip_threshold)

    with h^ what `hessian_diagonal_fn` gives. Where the curvature is negative, or small beside m, the step is
    that of a sign. As in Optax and in the authors' code a new h counts from the next update on. The paper is
    `estimate_first=True, bias_correction=False`.

    Args:
        b1: decay of the first moment, in [0, 1).
        b2: decay of the average of estimates, in [0, 1).
        eps: the least denominator, >= 0.
        gamma: the factor of the curvature, >= 0; the larger, the less is clipped.
        clip_threshold: the largest element of an update, > 0; infinity or None for no clipping.
        update_interval: the number of updates from one estimate to the next, a whole number from 1 to
            2^31 - 1.
        hessian_diagonal_fn: a transform, of any library, that gives the estimate in the place of a gradient.
            It gets the gradients, the parameters and the keyword arguments of the call.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        verbose: whether to print the win rate, the part of the elements that are not clipped.
        print_win_rate_every_n_steps: how often, in updates; 0 for never.
        bias_correction: correct averages for their start at zero; here that of the gradients alone.
        estimate_first: whether a new h counts in the update that it is made in.

    Returns:
        A transform whose `update` needs what `hessian_diagonal_fn` needs, by default the parameters and
        `obj_fn=`, the loss as a function of the parameters. It has the slots `mu` and `nu`, which is h, and
        `age`, the number of updates since the last estimate.

    Raises:
        TypeError: at init, a leaf is complex.
        ValueError: a number is out of its domain.

    Examples:
        >>> import gradtx, jax, jax.numpy as jnp
        >>> def loss(x):
        ...     return x @ jnp.diag(jnp.array([1.0, 100.0])) @ x / 2
        >>> x = jnp.array([1.0, 0.001])
        >>> tx = gradtx.scale_by_sophia(b2=0.0, gamma=1.0, clip_threshold=2.0, estimate_first=True)
        >>> updates, _ = tx.update(jax.grad(loss)(x), tx.init(x), x, obj_fn=loss)
        >>> [round(float(u), 4) for u in updates]
        [1.0, 0.001]

    References:
        Liu et al., Sophia: A Scalable Stochastic Second-order Optimizer for Language Model Pre-training,
        2023, https://arxiv.org/abs/2305.14342.
    """
    ...
