"""Plan of a transition: which rank gives which part of which weight to whom. Pure arithmetic, made once."""

from hybridflow.resharding.plan.colocated import METHODS, make_plan, refuse_unnested
from hybridflow.resharding.plan.disaggregated import make_pool_plan
from hybridflow.resharding.plan.exchange import Exchange
from hybridflow.resharding.plan.plan import Plan
from hybridflow.resharding.plan.program import Bucket, Item, Part, Program

__all__ = [
    "METHODS",
    "Bucket",
    "Exchange",
    "Item",
    "Part",
    "Plan",
    "Program",
    "make_plan",
    "make_pool_plan",
    "refuse_unnested",
]
