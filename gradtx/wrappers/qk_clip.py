"""QK-clip: queries and keys that shrink where the largest logit of their head is too large."""

from __future__ import annotations

import functools
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp

from gradtx.core.compose.wrapper import Wrapper
from gradtx.core.engine import leaves as lv
from gradtx.core.engine.on_shards import refuse_shards
from gradtx.core.engine.scope import Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.engine.wrapped_update import WrappedUpdate
from gradtx.core.numerics import cast, compute_dtype, like, number_dtype, real_dtype
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import Fraction, PositiveLimit, ScalarOrSchedule
from gradtx.core.spec.spec import show
from gradtx.wrappers.attention_heads import HeadsOf
from gradtx.wrappers.attention_modules import KEYS, QUERIES, logits_of, modules_of

Sharing = Literal["group", "key", "query"]

MAX_LOGITS = "max_logits"
"""The keyword argument that has the largest logit of each head."""


class QkClip(Wrapper, name="qk_clip"):
    """u = f (theta + g) - theta;  f = (tau / S)^alpha of queries, ^(1 - alpha) of keys, where S > tau."""

    heads: Any
    tau: PositiveLimit
    alpha: Fraction
    sharing: str

    needs = ("params", MAX_LOGITS)
    last: ClassVar[bool] = True
    in_place = False

    def check(self) -> None:
        if self.sharing not in get_args(Sharing):
            known = ", ".join(map(repr, get_args(Sharing)))
            raise ValueError(f"{self.name}: sharing must be one of {known}, got {show(self.sharing)}.")

    def check_leaves(self, params: Any, on: list[bool], where: str) -> None:
        leaves, _ = lv.flatten(params)
        for module in modules_of(self.heads, params, where):
            present = [m for m in module.members if leaves[m.position] is not None]
            left_out = [m.path for m in present if not on[m.position]]
            if left_out and len(left_out) < len(present):
                raise ValueError(
                    f"{where}: it works on some leaves of the attention module {module.path!r}, and not on "
                    f"{', '.join(map(repr, left_out))}. Put it where it sees them all, as behind a partition."
                )

    def run(self, gs: list[jax.Array], slots: Slots, call: WrappedUpdate) -> tuple[list[Any], dict[str, Any]]:
        modules = modules_of(self.heads, call.structure.unflatten(call.all_params), self.name)
        logits = logits_of(call.extra[MAX_LOGITS], modules, self.name)
        place = {position: n for n, position in enumerate(call.positions)}
        params, result = call.params or [], list(gs)
        for module, largest in zip(modules, logits, strict=True):
            own = [(place[m.position], m.heads) for m in module.members if m.position in place and m.heads]
            if not own:
                continue
            at, heads = zip(*own, strict=True)
            refuse_shards(self.name, [[gs[n], params[n]] for n in at])
            keys = module.count(KEYS)
            queries = module.count(QUERIES) or (largest.shape[-1] if largest.ndim else keys or 1)
            clipped = _clipped(
                (heads, (*module.batch, queries), keys or queries, self.sharing),
                [gs[n] for n in at],
                [params[n] for n in at],
                largest,
                self.tau,
                self.alpha,
            )
            for n, u in zip(at, clipped, strict=True):
                result[n] = u
        return result, {}


Static = tuple[tuple[HeadsOf, ...], tuple[int, ...], int, str]
"""The heads of the leaves, the numbers of layers and of query heads, that of key heads, and who shares."""


@functools.partial(jax.jit, static_argnums=0)
def _clipped(
    static: Static,
    gs: list[jax.Array],
    params: list[jax.Array],
    largest: jax.Array,
    tau: jax.Array,
    alpha: jax.Array,
) -> list[jax.Array]:
    """The updates of the leaves of one attention module."""
    heads, shape, keys, sharing = static
    largest = jnp.broadcast_to(cast(largest, number_dtype()), shape)
    # Nothing can be said by what is not finite, and a head of zeros would stay one.
    over = (largest > tau) & jnp.isfinite(largest)
    one = jnp.ones_like(largest)
    gamma = jnp.where(over, tau, one) / jnp.where(over, largest, one)
    factors = _factors(gamma, keys, alpha, sharing)
    result = []
    for own, g, param in zip(heads, gs, params, strict=True):
        dtype = compute_dtype(g.dtype, param.dtype)
        f = cast(own.spread(factors), real_dtype(dtype))
        shrunk = f * g + (f - 1) * cast(param, like(param.dtype, dtype))
        # A head that is not clipped keeps its update bit for bit, also a 0 with a sign.
        result.append(jnp.where(f < 1, shrunk, cast(g, shrunk.dtype)))
    return result


def _factors(gamma: jax.Array, keys: int, alpha: jax.Array, sharing: str) -> dict[str, jax.Array]:
    """What each head is multiplied by, by its role; a key head serves several query heads in a row."""
    groups = gamma.reshape(*gamma.shape[:-1], keys, gamma.shape[-1] // keys)
    least = groups.min(axis=-1)
    if sharing == "query" and groups.shape[-1] > 1:
        return {"query": gamma, "key": jnp.ones_like(least), "rotary_query": gamma}
    if sharing == "group":
        queries = jnp.broadcast_to(least[..., None], groups.shape).reshape(gamma.shape)
    else:
        queries = gamma
    return {"query": queries**alpha, "key": least ** (1 - alpha), "rotary_query": gamma}


@builds(QkClip)
def qk_clip(
    heads: Any,
    tau: ScalarOrSchedule = 100.0,
    alpha: ScalarOrSchedule = 0.5,
    sharing: Sharing = "group",
) -> Transform:
    """Shrinks the queries and keys of each head whose largest logit is above a bound, as MuonClip does.

    With theta + u the parameters that the optimizer would make, and S the largest logit of a head, before
    the softmax and with its 1 / sqrt(d), in the forward pass that gave the gradient:

        gamma = tau / S where S > tau, else 1
        queries <- gamma^alpha queries            keys <- gamma^(1 - alpha) keys

    In multi-head latent attention a rotary query, whose keys all heads share, is multiplied by gamma, and
    these keys and the values stay. It stands at the end, after the learning rate. A head gets its update bit
    for bit unless it, or one that shares its key, is above tau. None with negative logits is, and none whose
    S is not finite: for a step that went wrong there is `gradtx.guard`. A bias of queries or keys belongs to
    the heads too.

    Args:
        heads: which leaves are queries and keys: path patterns with a `gradtx.heads` for each, or a role
            alone, as in `{"*query/kernel": "query", "*key/kernel": "key"}`; or a tree of these, or a function
            of (path, leaf), or of the parameters. Other leaves, and those with None, pass. Queries and keys
            belong together by their paths, in the innermost module that has both.
        tau: the bound of the logits, > 0 or a schedule; infinity for none.
        alpha: the part of the queries in the factor of a logit, in [0, 1].
        sharing: who shrinks where several query heads share a key head. `"group"`: all of them and the key,
            by the least gamma of the group, as in Megatron-LM; `"key"`: the key by the least gamma, each
            query by its own; `"query"`: a query by the whole of its gamma and the key not at all, which
            touches no head that is not above the bound.

    Returns:
        A transform without slots; `update` needs the parameters and `max_logits=`. That is a tree, such as
        what Flax has sown, in which the array of each attention module stands in it or at its path; or a dict
        from path patterns of these modules, one of which matches each; or one number for all heads, so that 0
        clips nothing at a step without a measurement. An array has a number for each query head, behind the
        layers if these are scanned: the largest over the batch, all micro-batches and all devices.

    Raises:
        ValueError: another `sharing`. At init, a pattern that matches no leaf, `heads` that do not fit their
            leaf, queries without keys, or a number of them that is no multiple of that of the keys; a
            transform after this one changes the updates. While tracing, a module without its `max_logits`,
            or one of another shape.
        TypeError: at init, something else than `heads` for a leaf; while tracing, no `max_logits`.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.chain(gradtx.sgd(0.1), gradtx.qk_clip({"*query": "query", "*key": "key"}))
        >>> params = {"attention": {"query": jnp.ones((1, 2, 1)), "key": jnp.ones((1, 2, 1))}}
        >>> updates, _ = tx.update(
        ...     jax.tree.map(jnp.zeros_like, params),
        ...     tx.init(params),
        ...     params,
        ...     max_logits={"attention": jnp.array([90.0, 400.0])},
        ... )
        >>> gradtx.apply_updates(params, updates)["attention"]["key"].ravel().tolist()
        [1.0, 0.5]

    References:
        Kimi Team, Kimi K2: Open Agentic Intelligence, 2025, https://arxiv.org/abs/2507.20534.
    """
    ...
