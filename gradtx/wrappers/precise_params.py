"""Parameters of 16 bits whose small updates are not lost in rounding."""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.compose.rule import Slot
from gradtx.core.compose.wrapper import Wrapper
from gradtx.core.engine import leaves as lv
from gradtx.core.engine.coded import is_as_wide
from gradtx.core.engine.composed import Composed
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.scope import Slots
from gradtx.core.engine.transform import Transform, added
from gradtx.core.engine.wrapped_update import WrappedUpdate
from gradtx.core.numerics import cast, widest
from gradtx.core.rounding import seed, uniform_like
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import check_count
from gradtx.core.spec.spec import show
from gradtx.core.splits import FORMS

How = Literal["stochastic", "kahan", "master", "split16", "split8"]


def _beside(wrapper: Any, params: Any) -> list[tuple[int, ...] | None]:
    """The shape of what is kept beside each parameter, None of one that it is not for."""
    keeps = FORMS[wrapper.how].beside(np.dtype(np.float32)) is not None
    return [np.shape(x) if keeps and is_of_16_bits(x) else None for x in lv.flatten(params)[0]]


def is_of_16_bits(x: Any) -> bool:
    """Whether something is a parameter of 16 bits."""
    return lv.is_trainable_leaf(x) and jnp.result_type(x).name in ("bfloat16", "float16")


def _is_precise(tx: Any) -> bool:
    """Whether a transform is a `precise_params` or has one inside."""
    if not isinstance(tx, Composed):
        return False
    program = tx.program
    here = any(isinstance(unit.transform, PreciseParams) for unit in program.units)
    return here or any(map(_is_precise, program.wrapped.values()))


class PreciseParams(Wrapper, name="precise_params"):
    """p and what is beside it are a float32, which the inner transform sees and moves."""

    inner: Any
    how: How
    seed: int
    beside = Slot(
        shapes=_beside,
        dtype=lambda rule, dtype: FORMS[rule.how].beside(dtype),
        init=lambda rule, param: param if rule.how == "master" else 0.0,
    )

    needs = ("params",)
    last: ClassVar[bool] = True
    shows_wide: ClassVar[bool] = True
    # It works on each element by itself; what is wrapped is asked for itself.
    knows_shards: ClassVar[bool] = True

    def check(self) -> None:
        if self.how not in get_args(How):
            raise ValueError(
                f"precise_params: how must be one of {', '.join(map(repr, get_args(How)))}, got "
                f"{show(self.how)}."
            )
        check_count("precise_params: seed", self.seed, 0)
        if _is_precise(self.inner):
            raise ValueError(
                "precise_params: what it wraps has a precise_params inside, which would see parameters in "
                "float32, with nothing to keep beside them. Leave one of the two out. gradtx.precision takes "
                "how parameters are kept as its argument params."
            )

    def wrapped(self) -> dict[str, Any]:
        return {"inner": self.inner}

    def check_leaves(self, params: Any, on: list[bool], where: str) -> None:
        dtypes = FORMS[self.how].dtypes
        for x, path, works in zip(lv.flatten(params)[0], lv.paths(params), on, strict=True):
            if works and is_of_16_bits(x) and jnp.result_type(x).name not in dtypes:
                raise ValueError(
                    f"{where}: {self.how!r} is for bfloat16, whose bits are the first ones of a float32, and "
                    f"the leaf {path!r} is {jnp.result_type(x).name}. Take 'kahan', 'master' or 'stochastic'."
                )

    def run(self, gs: list[jax.Array], slots: Slots, call: WrappedUpdate) -> tuple[list[Any], dict[str, Any]]:
        assert call.params is not None
        form, params, beside = FORMS[self.how], call.params, slots.beside
        narrow = [is_of_16_bits(p) and not is_as_wide() for p in params]
        if not is_as_wide():
            self._check_form(params, beside, call)
        exact = [
            form.value(p, b) if is_narrow else p
            for p, b, is_narrow in zip(params, beside, narrow, strict=True)
        ]
        everything = [*call.all_params]
        for i, p in zip(call.positions, exact, strict=True):
            everything[i] = p
        inside = dataclasses.replace(call, params=exact, all_params=everything)
        result, inner = inside.run(self.inner, gs, slots.inner)
        for n, is_narrow in enumerate(narrow):
            if not is_narrow:
                continue
            p = params[n]
            new = result[n] if call.apply else added(exact[n], result[n])
            written = form.write(new, p.dtype, self._random(new, call, n) if form.is_random else None)
            result[n] = written
            if not call.apply:
                # What the caller adds is as wide as the gradient and the parameter, and rounded once more.
                outside = widest(call.given[n].dtype, p.dtype)
                result[n] = cast(written.astype(jnp.float32) - p.astype(jnp.float32), outside)
                written = added(p, result[n])
            beside[n] = form.rest(new, written)
        return result, {"beside": beside, "inner": inner}

    def _check_form(self, params: list[Any], beside: list[Any], call: WrappedUpdate) -> None:
        """Raises for a state of another `how`, whose bits would be taken for something else."""
        for n, (p, b) in enumerate(zip(params, beside, strict=True)):
            wanted = FORMS[self.how].beside(p.dtype) if is_of_16_bits(p) else None
            # What is a float here is as wide as arithmetic is.
            kept, own = (
                None if x is None else str(x) if jnp.issubdtype(x, jnp.integer) else "a float"
                for x in (wanted, None if b is None else b.dtype)
            )
            if own != kept:
                path = lv.paths(call.structure.unflatten(call.all_params))[call.positions[n]]
                raise TypeError(
                    f"{self.name}: beside {path!r}, a parameter in {p.dtype.name}, the state has "
                    f"{own or 'nothing'}, and {self.how!r} keeps {kept or 'nothing'} there. Bring both into "
                    f"this form: params, state, report = gradtx.convert_state(old_tx, state, tx, params)."
                )

    def _random(self, x: jax.Array, call: WrappedUpdate, n: int) -> jax.Array:
        number = np.uint32(call.path_number(call.positions[n]) ^ zlib.crc32(str(self.seed).encode()))
        return uniform_like(x, seed(call.step, number))


@builds(PreciseParams)
def precise_params(inner: AnyTransform, how: How = "split8", *, seed: int = 0) -> Transform:
    """Trains parameters of 16 bits without losing small updates.

    A number of bfloat16 has 8 bits of digits, so that an update of less than a 500th of a parameter is
    rounded away. Here a parameter and what is kept beside it stand for a float32: the inner transform sees
    that and moves it, and what it has become is written to both.

    | `how` | beside each parameter | bytes | what is kept |
    |---|---|---|---|
    | `"stochastic"` | nothing | 0 | one of the two nearest numbers at random, right on average |
    | `"kahan"` | what was rounded away, in the parameter's dtype | 2 | 16 bits of digits |
    | `"master"` | a copy in float32 | 4 | a float32 |
    | `"split16"` | the other 16 bits | 2 | a float32 |
    | `"split8"` | 8 more bits | 1 | 16 bits of digits |

    The last two are for bfloat16, the others for float16 too. Wider parameters and complex ones are left to
    the inner transform as they are.

    With `apply_gradients` both are written as they should be. `update` gives a difference, in the wider dtype
    of gradient and parameter, and counts on it being added: where a parameter changes its size by more than
    a factor of two in one step, the difference is rounded once more, and what is beside makes up for it.
    What `"stochastic"` draws depends on the path of the leaf and the step alone.

    A parameter that somebody else changes, as a projection after the step does, counts as it is then; a bit
    pattern of `"split16"` and `"split8"` beside it moves it by less than a rounding would.

    Args:
        inner: the wrapped transform, of any library. It is the whole optimizer: nothing may change its
            updates afterwards.
        how: what is kept beside a parameter.
        seed: another one rounds at random in another way.

    Returns:
        A transform of parameters that are wider than they look.

    Raises:
        ValueError: `how` is another word; there is a `precise_params` inside; at init, a leaf is float16 and
            `how` is for bfloat16 alone.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> params, grads = jnp.ones(2, jnp.bfloat16), jnp.ones(2, jnp.bfloat16)
        >>> for tx in (gradtx.sgd(1e-4), gradtx.precise_params(gradtx.sgd(1e-4))):
        ...     p, state = params, tx.init(params)
        ...     for _ in range(100):
        ...         p, state = gradtx.apply_gradients(tx, grads, state, p)
        ...     print(p[0])
        1
        0.988281

    References:
        Zamirai et al., Revisiting BFloat16 Training, 2020, https://arxiv.org/abs/2010.06192.
    """
    ...
