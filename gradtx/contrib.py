"""What `optax.contrib` has of the optimizers and transforms here; each is in `gradtx` too."""

from typing import TYPE_CHECKING

from gradtx._names import explaining, listing
from gradtx.optimizers.acprop import acprop
from gradtx.optimizers.ademamix import ademamix
from gradtx.optimizers.adopt import adopt
from gradtx.optimizers.cocob import cocob
from gradtx.optimizers.dadapt import dadapt_adamw
from gradtx.optimizers.distance import dog, dowg
from gradtx.optimizers.dpsgd import dpsgd
from gradtx.optimizers.galore import galore
from gradtx.optimizers.madgrad import madgrad
from gradtx.optimizers.muon import muon
from gradtx.optimizers.prodigy import prodigy
from gradtx.optimizers.schedule_free import schedule_free_adamw, schedule_free_sgd
from gradtx.optimizers.simplified_ademamix import simplified_ademamix
from gradtx.optimizers.sophia import sophia
from gradtx.transforms.acprop import scale_by_acprop
from gradtx.transforms.ademamix import scale_by_ademamix
from gradtx.transforms.adopt import scale_by_adopt
from gradtx.transforms.cocob import scale_by_cocob
from gradtx.transforms.dimension_numbers import GaLoreDimensionNumbers, MuonDimensionNumbers
from gradtx.transforms.madgrad import scale_by_madgrad
from gradtx.transforms.momo import momo, momo_adam
from gradtx.transforms.muon import scale_by_muon
from gradtx.transforms.normalize import normalize
from gradtx.transforms.plateau import reduce_on_plateau
from gradtx.transforms.simplified_ademamix import scale_by_simplified_ademamix
from gradtx.wrappers.differential_privacy import differentially_private_aggregate
from gradtx.wrappers.evaluation import schedule_free_eval_params
from gradtx.wrappers.galore import scale_by_galore
from gradtx.wrappers.hessian import hutchinson_estimator_diag_hessian
from gradtx.wrappers.mechanize import mechanize
from gradtx.wrappers.real_and_imaginary import split_real_and_imaginary
from gradtx.wrappers.sam import sam
from gradtx.wrappers.schedule_free import schedule_free

if not TYPE_CHECKING:  # To a type checker it would say that every name is there.
    __getattr__ = explaining("contrib")
__dir__ = listing(globals())

__all__ = [
    "GaLoreDimensionNumbers",
    "MuonDimensionNumbers",
    "acprop",
    "ademamix",
    "adopt",
    "cocob",
    "dadapt_adamw",
    "differentially_private_aggregate",
    "dog",
    "dowg",
    "dpsgd",
    "galore",
    "hutchinson_estimator_diag_hessian",
    "madgrad",
    "mechanize",
    "momo",
    "momo_adam",
    "muon",
    "normalize",
    "prodigy",
    "reduce_on_plateau",
    "sam",
    "scale_by_acprop",
    "scale_by_ademamix",
    "scale_by_adopt",
    "scale_by_cocob",
    "scale_by_galore",
    "scale_by_madgrad",
    "scale_by_muon",
    "scale_by_simplified_ademamix",
    "schedule_free",
    "schedule_free_adamw",
    "schedule_free_eval_params",
    "schedule_free_sgd",
    "simplified_ademamix",
    "sophia",
    "split_real_and_imaginary",
]
