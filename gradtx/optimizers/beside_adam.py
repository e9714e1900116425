"""A method on matrices, and AdamW for the leaves that are none."""

from __future__ import annotations

from gradtx.core.engine.matrix_views import Views
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import ScalarOrSchedule
from gradtx.optimizers.descent import descent
from gradtx.transforms.adam import scale_by_adam
from gradtx.wrappers.groups import partition
from gradtx.wrappers.routes import MATRICES, REST, Routes


def beside_adam(
    name: str,
    of_matrices: Transform,
    learning_rate: ScalarOrSchedule,
    adam_learning_rate: ScalarOrSchedule | None,
    adam_b1: ScalarOrSchedule,
    adam_b2: ScalarOrSchedule,
    adam_eps: ScalarOrSchedule,
    adam_weight_decay: ScalarOrSchedule,
    views: Views,
) -> Transform:
    """The optimizer `name`: `of_matrices` on the hidden matrices, and AdamW on the rest."""
    rate = learning_rate if adam_learning_rate is None else adam_learning_rate
    of_rest = descent(name, scale_by_adam(adam_b1, adam_b2, adam_eps), rate, adam_weight_decay, None, "rate")
    return partition({MATRICES: of_matrices, REST: of_rest}, Routes(name, views))
