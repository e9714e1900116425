"""Complex leaves as two real ones."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.wrapper import Wrapper
from gradtx.core.engine import transform
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.scope import Slots
from gradtx.core.engine.transform import Transform, cast_like
from gradtx.core.engine.wrapped_update import Leaves, WrappedUpdate
from gradtx.core.numerics import is_complex, real_dtype
from gradtx.core.spec.arguments import builds
from gradtx.wrappers.views import seen_through

REAL, IMAG = "real", "imag"


def _split(x: Any) -> Any:
    if not is_complex(jnp.result_type(x)):
        return x
    if isinstance(x, jax.ShapeDtypeStruct):
        part = jax.ShapeDtypeStruct(x.shape, real_dtype(x.dtype), sharding=x.sharding)
        return {REAL: part, IMAG: part}
    return {REAL: jnp.real(x), IMAG: jnp.imag(x)}


def _is_split(x: Any) -> bool:
    return isinstance(x, dict) and set(x) == {REAL, IMAG}


def _merged(tree: Any) -> Any:
    return jax.tree.map(
        lambda x: jax.lax.complex(x[REAL], x[IMAG]) if _is_split(x) else x, tree, is_leaf=_is_split
    )


class SplitRealAndImaginary(Wrapper, name="split_real_and_imaginary"):
    """u = inner(Re g, Im g), for each complex leaf."""

    inner: Any

    in_place = False
    sees_leaves = False

    def wrapped(self) -> dict[str, Any]:
        return {"inner": self.inner}

    def view(self, params: Any) -> Any:
        return jax.tree.map(_split, params)

    def run(self, gs: Leaves, slots: Slots, call: WrappedUpdate) -> tuple[Leaves, dict[str, Any]]:
        # The parameter says how a leaf is seen, whose gradient may be real all the same.
        seen = gs if call.params is None else call.params
        whole = [g + 0j if is_complex(p.dtype) else g for g, p in zip(gs, seen, strict=True)]
        params = None if call.params is None else self.view(call.tree(call.params))
        inner, extra = transform.adapted(self.inner), seen_through(call.extra, self.view, _merged)
        result, state = inner.step(self.view(call.tree(whole)), slots.inner, params, extra, None, apply=False)
        parts = call.structure.flatten_up_to(result)
        updates = [
            jax.lax.complex(parts[i][REAL], parts[i][IMAG]) if is_complex(g.dtype) else parts[i]
            for i, g in zip(call.positions, whole, strict=True)
        ]
        return updates, {"inner": jax.tree.map(cast_like, state, slots.inner)}


@builds(SplitRealAndImaginary)
def split_real_and_imaginary(inner: AnyTransform) -> Transform:
    """Shows a transform each complex leaf as two real ones, called `real` and `imag`.

    A rule that works elementwise then treats the parts apart, where it would otherwise see one magnitude.

    Args:
        inner: the wrapped transform, of any library.

    Returns:
        The transform; its state holds real arrays.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, z = gradtx.split_real_and_imaginary(gradtx.sign_sgd(1.0)), jnp.array([3.0 - 4.0j])
        >>> tx.update(z, tx.init(z))[0].tolist()
        [(-1+1j)]
    """
    ...
