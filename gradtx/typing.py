"""What the methods of a rule of one's own see, for their annotations.

`prepare` and `conclude` see a `Now`; `measure` and `apply` see the `Slots` of a leaf and the `Leaf`; `solve`
of a rule of matrices sees a `Stack`. The types of parameters, updates and states are `gradtx.Params`,
`gradtx.Updates` and `gradtx.OptState`, and any library's transform is an `AnyTransform`.
"""

from gradtx._names import listing
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.scope import Leaf, Now, Slots, Stack

__dir__ = listing(globals())

__all__ = ["AnyTransform", "Leaf", "Now", "Slots", "Stack"]
