"""The qualitative claims of the articles that gradtx was founded on, each as an experiment with a picture."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # where what all pictures share is

from . import adadelta, adagrad, batches, bias_correction, decay, momentum, warmup

EXPERIMENTS = tuple(
    module.EXPERIMENT for module in (momentum, adagrad, bias_correction, decay, warmup, adadelta, batches)
)
"""In the order of docs/why.md."""
