"""The MPMD side: a cluster, pools of slots, groups of ranks that play roles. Ray lives here only."""

from hybridflow.controller.cluster import cluster
from hybridflow.controller.group import Group
from hybridflow.controller.pool import ResourcePool
from hybridflow.controller.store import put
from hybridflow.controller.supervise import Supervisor

__all__ = ["Group", "ResourcePool", "Supervisor", "cluster", "put"]
