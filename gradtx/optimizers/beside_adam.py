"""A method on matrices, and AdamW for the leaves that are none."""

from __future__ import annotations

from gradtx.core.engine.matrix_views import Views
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import ScalarOrSchedule
from gradtx.optimizers.descent import descent
from gradtx.wrappers.groups import partition
from gradtx.wrappers.routes import MATRICES, REST, Routes


def beside_adam(
    name: str,
    of_matrices: Transform,
    adam: Transform,
    learning_rate: ScalarOrSchedule,
    weight_decay: ScalarOrSchedule,
    views: Views,
    argument: str = "views",
) -> Transform:
    """The optimizer `name`: `of_matrices` on the hidden matrices, and AdamW on the rest.

    `argument` is what the optimizer calls `views`, for errors.
    """
    of_rest = descent(name, adam, learning_rate, weight_decay, decay_coupling="rate")
    return partition({MATRICES: of_matrices, REST: of_rest}, Routes(name, views, argument))
