"""MPMD side of a run: a cluster, pools of slots, groups of ranks for roles."""

from hybridflow.controller.cluster import cluster, cluster_cpus, cluster_gpus
from hybridflow.controller.group import Group
from hybridflow.controller.object_store import put
from hybridflow.controller.resource_pool import ResourcePool
from hybridflow.controller.supervisor import Supervisor

__all__ = ["Group", "ResourcePool", "Supervisor", "cluster", "cluster_cpus", "cluster_gpus", "put"]
