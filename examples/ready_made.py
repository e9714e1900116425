"""The ready-made optimizers behind `train_lm.py --optimizer`, each with its usual settings."""

from __future__ import annotations

from typing import Any

from transformer import DECAYED

import gradtx

USUAL: dict[str, dict[str, Any]] = {
    "adamw": {"learning_rate": 2e-3, "weight_decay": 0.1},
    "adam": {"learning_rate": 2e-3},
    "sgd": {"learning_rate": 1.0},
    "rmsprop": {"learning_rate": 3e-3},
    "adagrad": {"learning_rate": 0.1},
    "adadelta": {"learning_rate": 1.0},
    "lion": {"learning_rate": 1e-3, "weight_decay": 0.1},
    "adafactor": {"learning_rate": 3e-2},
    "prodigy": {"learning_rate": 1.0},
    "muon": {"learning_rate": 2e-3, "weight_decay": 0.1},
    "normuon": {"learning_rate": 2e-3, "weight_decay": 0.1},
    "soap": {"learning_rate": 3e-3, "weight_decay": 0.1},
    "shampoo": {"learning_rate": 2e-3, "weight_decay": 0.1},
    "kron": {"learning_rate": 1e-3, "weight_decay": 0.1},
    "scion": {"learning_rate": 2e-3, "weight_decay": 1.0},
}
VIEWS = {"*query_key_value/kernel": gradtx.matrix_view("rc", column_blocks=3)}
"""Queries, keys and values are three matrices beside each other."""


def ready_made(name: str, rate: gradtx.Schedule | float, decay: float) -> gradtx.Transform:
    """An optimizer by name; one without a decay of its own adds it to the gradient, as in torch."""
    l2 = gradtx.add_decayed_weights(decay, mask=DECAYED)
    match name:
        case "adam":
            return gradtx.chain(l2, gradtx.adam(rate, b2=0.95))
        case "sgd":
            return gradtx.chain(l2, gradtx.sgd(rate, momentum=0.9, nesterov=True))
        case "rmsprop":
            return gradtx.chain(l2, gradtx.rmsprop(rate))
        case "adagrad":
            return gradtx.chain(l2, gradtx.adagrad(rate))
        case "adadelta":
            return gradtx.chain(l2, gradtx.adadelta(rate))
        case "lion":
            return gradtx.lion(rate, weight_decay=decay, mask=DECAYED)
        case "adafactor":
            return gradtx.chain(l2, gradtx.adafactor(rate))
        case "prodigy":
            return gradtx.prodigy(rate, weight_decay=decay)
        case "muon":  # its updates have the size of Adam's, whose rate it then takes
            return gradtx.muon(
                rate,
                weight_decay=decay,
                adam_b2=0.95,
                convention="moonlight",
                muon_weight_dimension_numbers=VIEWS,
            )
        case "normuon":
            return gradtx.normuon(rate, weight_decay=decay, consistent_rms=0.2, views=VIEWS)
        case "soap":
            return gradtx.soap(rate, weight_decay=decay, views=VIEWS)
        case "shampoo":
            return gradtx.shampoo(
                rate, b2=0.95, weight_decay=decay, graft_beta=0.95, adam_b2=0.95, views=VIEWS
            )
        case "kron":
            return gradtx.kron(rate, weight_decay=decay, adam_b2=0.95, views=VIEWS)
        case "scion":  # a head of 128 inputs, whose elements stay within 1
            return gradtx.scion(rate, radius=3.0, head_radius=128.0, weight_decay=decay, views=VIEWS)
    raise ValueError(f"there is no optimizer {name!r}")
