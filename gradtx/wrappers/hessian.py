"""An estimate of the diagonal of the Hessian."""

from __future__ import annotations

from typing import Any, ClassVar

import jax

from gradtx.core.compose.rule import Key
from gradtx.core.compose.wrapper import Wrapper
from gradtx.core.engine.on_shards import refuse_unnamed
from gradtx.core.engine.protocol import Seed
from gradtx.core.engine.scope import Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.engine.update import OBJ_FN
from gradtx.core.engine.wrapped_update import Leaves, WrappedUpdate
from gradtx.core.numerics import cast
from gradtx.core.spec.arguments import factory
from gradtx.transforms.noise import given_key, typed_key


class HutchinsonEstimatorDiagHessian(Wrapper, name="hutchinson_estimator_diag_hessian"):
    """u = z (H z), elementwise, with signs z and the Hessian H of obj_fn."""

    random_seed: Any

    in_place = False
    needs = ("params", OBJ_FN)
    supports_complex: ClassVar[bool] = False

    rng_key = Key(lambda wrapper: typed_key(wrapper.random_seed))

    def run(self, gs: Leaves, slots: Slots, call: WrappedUpdate) -> tuple[Leaves, dict[str, Any]]:
        params = call.params
        assert params is not None
        keys = call.keys(slots.rng_key)
        signs = [jax.random.rademacher(k, p.shape, p.dtype) for k, p in zip(keys, params, strict=True)]

        def loss(params: Leaves) -> jax.Array:
            value = call.extra[OBJ_FN](call.tree(params))
            refuse_unnamed(f"{self.name}: the loss", self, value)
            return value

        gradient = jax.grad(loss)
        _, products = jax.jvp(gradient, (params,), (signs,))
        return [cast(z * h, g.dtype) for z, h, g in zip(signs, products, gs, strict=True)], {}


@factory
def hutchinson_estimator_diag_hessian(random_seed: Seed | None = None) -> Transform:
    """Gives, in the place of gradients, an estimate of the diagonal of the Hessian: z (H z), elementwise.

    z is +1 or -1 with equal chance for each element, drawn anew at each call, so that the mean of the
    estimates is the diagonal. One estimate is one product of the
    Hessian and a vector.

    Args:
        random_seed: an int, a `jax.random.key`, or a key's raw data; by default 0.

    Returns:
        A transform whose `update` needs the parameters and `obj_fn=`, the loss as a function of the
        parameters alone. Its state holds the key's raw data.

    Raises:
        TypeError: at init, a leaf is complex.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, x = gradtx.hutchinson_estimator_diag_hessian(), jnp.array([1.0, 2.0])
        >>> tx.update(x, tx.init(x), x, obj_fn=lambda x: jnp.sum(x**3))[0].tolist()
        [6.0, 12.0]

    References:
        Hutchinson, A Stochastic Estimator of the Trace of the Influence Matrix for Laplacian Smoothing
        Splines, 1990.
    """
    key = given_key("hutchinson_estimator_diag_hessian", random_seed, None)
    return HutchinsonEstimatorDiagHessian(random_seed=0 if key is None else key)


HUTCHINSON = hutchinson_estimator_diag_hessian()
"""The estimate that Sophia takes unless it is given another."""
