"""Small problems that differ in kind, each with a budget of steps and a value to reach.

A problem is fixed by its own seed: the matrix, the teacher, the split of the data. A run's seed says where
the parameters start and which examples come when.

The targets are numbers, chosen so that AdamW with its best rate gets there in about half of the steps that a
run has, in the median over seeds.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

LICENSE = pathlib.Path(__file__).parents[2] / "LICENSE"


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is trained, on what, and how far.

    Attributes:
        what: the problem in words, for the page.
        steps: the budget of a run.
        every: how many steps there are from one evaluation to the next.
        target: the value that counts as reached.
        init: the first parameters.
        examples: what a number of steps see: a tree of arrays with a first axis of steps and a second of the
            examples of one step.
        loss: the mean over the examples of one step; 0 or more.
        evaluate: what is to reach the target: the loss without noise, or on examples held out.
    """

    what: str
    steps: int
    every: int
    target: float
    init: Callable[[np.random.Generator], Any]
    examples: Callable[[np.random.Generator, int], Any]
    loss: Callable[[Any, Any], jax.Array]
    evaluate: Callable[[Any], jax.Array]


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)


def of_all(number: int) -> Callable[[np.random.Generator, int], np.ndarray]:
    """Every step sees every example."""
    return lambda rng, steps: np.tile(np.arange(number, dtype=np.int32), (steps, 1))


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    right = jnp.take_along_axis(logits, labels[..., None], -1)[..., 0]
    return jnp.mean(jax.nn.logsumexp(logits, -1) - right)


def ill_conditioned() -> Problem:
    rng, size = np.random.default_rng(1), 32
    left, right = (np.linalg.qr(rng.normal(size=(n, size)))[0] for n in (2 * size, size))
    curvatures = np.logspace(0, -3, size)
    features = (left * np.sqrt(2 * size * curvatures)) @ right.T
    best = rng.normal(size=size)
    a, b = (jnp.asarray(x, jnp.float32) for x in (features, features @ best))

    def loss(x: jax.Array, rows: jax.Array) -> jax.Array:
        return jnp.mean((a[rows] @ x - b[rows]) ** 2) / 2

    return Problem(
        "a quadratic of 32 numbers, rotated, with curvatures from 1 down to 1e-3; no noise",
        steps=400,
        every=2,
        target=1e-5,
        init=lambda rng: normal(rng, size),
        examples=of_all(2 * size),
        loss=loss,
        evaluate=lambda x: jnp.mean((a @ x - b) ** 2) / 2,
    )


def heavy_tails() -> Problem:
    rng, size = np.random.default_rng(2), 32
    curvatures = jnp.asarray(np.logspace(0, -2, size), jnp.float32)
    best = jnp.asarray(rng.normal(size=size), jnp.float32)

    def loss(x: jax.Array, noise: jax.Array) -> jax.Array:
        return jnp.mean(((x - best)[None] - noise) ** 2 @ curvatures) / 2

    return Problem(
        "a quadratic of 32 numbers, with curvatures from 1 down to 0.01 along the axes; each of a step's 4 "
        "examples has its own minimum, off by Student's t with 1.5 degrees of freedom, which has no variance",
        steps=600,
        every=5,
        target=0.2,
        init=lambda rng: normal(rng, size),
        examples=lambda rng, steps: rng.standard_t(1.5, (steps, 4, size)).astype(np.float32),
        loss=loss,
        evaluate=lambda x: (x - best) ** 2 @ curvatures / 2,
    )


def sparse() -> Problem:
    rng, words, present = np.random.default_rng(3), 512, 4
    chances = 1 / np.arange(1, words + 1)
    teacher = jnp.asarray(rng.normal(size=words), jnp.float32)

    def drawn(rng: np.random.Generator, *shape: int) -> np.ndarray:
        return rng.choice(words, (*shape, present), p=chances / chances.sum()).astype(np.int32)

    def loss(x: jax.Array, found: jax.Array) -> jax.Array:
        signs = jnp.sign(jnp.sum(teacher[found], -1))
        return jnp.mean(jax.nn.softplus(-signs * jnp.sum(x[found], -1)))

    held_out = jnp.asarray(drawn(rng, 1_024))
    return Problem(
        "logistic regression on 4 of 512 words, the nth of which comes with a chance of 1/n: in a step of 8 "
        "examples most gradients are 0; on 1,024 examples held out",
        steps=800,
        every=5,
        target=0.2,
        init=lambda rng: np.float32(0.1) * normal(rng, words),
        examples=lambda rng, steps: drawn(rng, steps, 8),
        loss=loss,
        evaluate=lambda x: loss(x, held_out),
    )


def scale_invariant() -> Problem:
    rng, rows, size = np.random.default_rng(4), 16, 16
    teacher = rng.normal(size=(rows, size))
    teacher = jnp.asarray(teacher / np.linalg.norm(teacher, axis=1, keepdims=True), jnp.float32)
    sizes = np.logspace(-0.5, 0.5, rows)[:, None]

    def directions(x: jax.Array) -> jax.Array:
        return x * jax.lax.rsqrt(jnp.sum(x**2, -1, keepdims=True) + 1e-12)

    def loss(x: jax.Array, seen: Any) -> jax.Array:
        inputs, noise = seen
        return jnp.mean(jnp.sum((inputs @ (directions(x) - teacher).T - noise) ** 2, -1)) / 2

    def init(rng: np.random.Generator) -> np.ndarray:
        x = rng.normal(size=(rows, size))
        return (sizes * x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)

    def examples(rng: np.random.Generator, steps: int) -> Any:
        return normal(rng, steps, 4, size), np.float32(0.2) * normal(rng, steps, 4, rows)

    return Problem(
        "16 linear units of which only the direction counts, as behind a normalization; their first norms "
        "go from 0.3 to 3, labels are noisy, 4 examples a step; the squared distance to the teacher",
        steps=200,
        every=2,
        target=0.05,
        init=init,
        examples=examples,
        loss=loss,
        evaluate=lambda x: jnp.sum((directions(x) - teacher) ** 2) / 2,
    )


def saddle() -> Problem:
    rng, size, rank = np.random.default_rng(5), 16, 4
    left, right = (np.linalg.qr(rng.normal(size=(size, rank)))[0] for _ in range(2))
    matrix = jnp.asarray((left * 4.0 ** -np.arange(rank)) @ right.T, jnp.float32)

    def loss(x: Any, rows: jax.Array) -> jax.Array:
        return size * jnp.mean(jnp.sum((x["left"][rows] @ x["right"].T - matrix[rows]) ** 2, -1)) / 2

    def init(rng: np.random.Generator) -> Any:
        return {name: np.float32(1e-4) * normal(rng, size, rank) for name in ("left", "right")}

    return Problem(
        "a matrix of rank 4 as a product of two, from next to 0, which is a saddle, and past one saddle more "
        "for each singular value; no noise",
        steps=260,
        every=2,
        target=1e-5,
        init=init,
        examples=of_all(size),
        loss=loss,
        evaluate=lambda x: loss(x, jnp.arange(size)),
    )


def digits() -> Problem:
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(6).permutation(len(images))
    pixels, classes = jnp.asarray(images[order] / 16, jnp.float32), jnp.asarray(labels[order], jnp.int32)
    trained, hidden = 1_437, 32

    def loss(x: Any, rows: jax.Array) -> jax.Array:
        return cross_entropy(logits(x, pixels[rows]), classes[rows])

    def logits(x: Any, seen: jax.Array) -> jax.Array:
        return jax.nn.relu(seen @ x["w1"] + x["b1"][None]) @ x["w2"] + x["b2"][None]

    def init(rng: np.random.Generator) -> Any:
        return {
            "w1": normal(rng, 64, hidden) / np.float32(8),
            "b1": np.zeros(hidden, np.float32),
            "w2": normal(rng, hidden, 10) / np.float32(np.sqrt(hidden)),
            "b2": np.zeros(10, np.float32),
        }

    return Problem(
        "scikit-learn's 8x8 pictures of digits, a network with 32 hidden units, 16 examples a step; the "
        "cross entropy of the fifth that is held out",
        steps=270,
        every=3,
        target=0.15,
        init=init,
        examples=lambda rng, steps: rng.integers(trained, size=(steps, 16), dtype=np.int32),
        loss=loss,
        evaluate=lambda x: cross_entropy(logits(x, pixels[trained:]), classes[trained:]),
    )


def language() -> Problem:
    written = LICENSE.read_text(encoding="utf-8").lower()
    letters = sorted(set(written))
    text = jnp.asarray([letters.index(letter) for letter in written], jnp.int32)
    width, heads, context = 32, 2, 32

    def normed(x: jax.Array) -> jax.Array:
        return x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6)

    def attended(x: jax.Array, weights: jax.Array) -> jax.Array:
        query, key, value = jnp.split((x @ weights).reshape(*x.shape[:-1], 3 * heads, -1), 3, axis=-2)
        scores = jnp.einsum("bthd,bshd->bhts", query, key) / np.float32(np.sqrt(width // heads))
        seen = jnp.tril(jnp.ones((context, context), bool))[None, None]
        chances = jax.nn.softmax(jnp.where(seen, scores, -1e9), axis=-1)
        return jnp.einsum("bhts,bshd->bthd", chances, value).reshape(x.shape)

    def loss(x: Any, starts: jax.Array) -> jax.Array:
        piece = text[starts[:, None] + jnp.arange(context + 1)[None]]
        h = x["letters"][piece[:, :-1]] + x["places"][None]
        h = h + attended(normed(h), x["attention"]) @ x["mixed"]
        h = h + jax.nn.relu(normed(h) @ x["up"]) @ x["down"]
        return cross_entropy(normed(h) @ x["head"], piece[:, 1:])

    def init(rng: np.random.Generator) -> Any:
        sizes = {
            "letters": (1.0, len(letters), width),
            "places": (1.0, context, width),
            "attention": (1.0, width, 3 * width),
            "mixed": (0.1, width, width),
            "up": (1.0, width, 2 * width),
            "down": (0.1, 2 * width, width),
            "head": (0.1, width, len(letters)),
        }
        root = np.sqrt(width)
        return {name: normal(rng, *shape) * np.float32(size / root) for name, (size, *shape) in sizes.items()}

    places = len(written) - context
    spread = jnp.arange(0, places, places // 32)
    return Problem(
        "a transformer of one block and width 32 that guesses the next letter of this repository's LICENSE "
        "in lower case, 8 pieces of 32 letters a step; nats a letter on 32 pieces spread over all of it",
        steps=300,
        every=5,
        target=2.2,
        init=init,
        examples=lambda rng, steps: rng.integers(places, size=(steps, 8), dtype=np.int32),
        loss=loss,
        evaluate=lambda x: loss(x, spread),
    )


MAKERS = {
    "ill-conditioned": ill_conditioned,
    "heavy tails": heavy_tails,
    "sparse": sparse,
    "scale-invariant": scale_invariant,
    "saddle": saddle,
    "digits": digits,
    "language": language,
}


@functools.cache
def problem(name: str) -> Problem:
    return MAKERS[name]()
