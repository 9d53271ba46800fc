"""ResourcePool: a set of slots. One Ray actor a slot hosts every role that is placed there."""

from __future__ import annotations

import gc
import logging
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from hybridflow import interrupt
from hybridflow.config.schema import Config, Device
from hybridflow.controller import ray_services
from hybridflow.controller.call_record import CallRecord
from hybridflow.controller.group import group_class
from hybridflow.controller.pool_calls import PoolCalls
from hybridflow.controller.process_watch import ProcessWatch
from hybridflow.controller.rank_actors import end_actors, start_actors, usual_rank_class, watch_actors
from hybridflow.controller.role_builds import RoleBuild, RoleBuilds, refuse_layout
from hybridflow.controller.slots import Slots
from hybridflow.controller.supervisor import Supervisor
from hybridflow.errors import HybridFlowError
from hybridflow.former_names import Renamed
from hybridflow.observe import logs
from hybridflow.parallel.layout import Layout
from hybridflow.placement import Engines, engines_of
from hybridflow.placement.node_bundles import bundles_of, misplaced
from hybridflow.roles import Role, roles
from hybridflow.runtime.messages import NodeView, Place

log = logging.getLogger(__name__)


class ResourcePool(Renamed):
    """Slots of the cluster, reserved together.

    Example:
        with cluster(slots=4):
            supervisor = Supervisor()
            pool = ResourcePool("main", 4, supervisor)
            scorer = pool.start_role("scorer", Layout(data=4))

    Args:
        slots: how many processes.
        nodes: that they are on, as many on each; None: wherever there is room.
        together: slots in a row that are on one node; tensor groups must be inside of them.
        device: what each slot has to itself, a CPU or a GPU.
        light: no torch in its processes.
        timeout_s: of collective operations of its ranks.
        start_timeout_s: that it may take until its slots are free, its processes are there, and a role is built.
        nodes_timeout_s: that it may take until the cluster has nodes that could hold them.
        rank_class: what each of its processes runs, a class like `runtime.rank.Rank`; None: that one.
        wait: until its processes have met; False: `wait_started` will, so that pools start side by side.

    Attributes:
        places: where each rank is.
        devices: the name of each rank's device; none where nothing needs torch.
        start_s: seconds that the last start of its processes and of its roles took.

    Raises HybridFlowError if the cluster has no room for them; RoleError, naming pool and rank, if one does not start.
    """

    def __init__(
        self,
        name: str,
        slots: int,
        supervisor: Supervisor,
        *,
        nodes: int | None = None,
        together: int = 1,
        light: bool = True,
        device: Device = Device.cpu,
        timeout_s: float = 600.0,
        start_timeout_s: float = 600.0,
        nodes_timeout_s: float = 20.0,
        plugins: Sequence[str] = (),
        rank_class: type | None = None,
        wait: bool = True,
    ) -> None:
        self.name = name
        self.slots = slots
        self._supervisor = supervisor
        self._calls = PoolCalls(self, name, supervisor, start_timeout_s)
        self._processes: ProcessWatch | None = None
        self._device = device
        self._gpus = 1.0 if device is Device.gpu else 0.0
        self._bundles = bundles_of(slots, nodes, together)
        slot = {"CPU": 1.0, **({"GPU": self._gpus} if self._gpus else {})}
        self._reserved = Slots(name, self._bundles, slot, start_timeout_s, nodes_timeout_s)
        self._rank_class = rank_class or usual_rank_class()
        self._plugins = list(plugins)
        self._join_timeout_s = None if light else timeout_s
        self._builds = RoleBuilds(self, supervisor, start_timeout_s)
        self._starting: list[CallRecord] = []
        self._ready = 0.0  # when it was last known to have done what it was asked
        self._logs: Path | None = None
        self.ranks: list[Any] = []
        self.places: list[Place] = []
        self.devices: list[str] = []
        self.start_s = 0.0
        supervisor.register_pool(self)
        try:
            self._start()
            if wait:
                self.wait_started()
        except BaseException:
            self.close()
            raise

    def start_role(
        self,
        role: str,
        layout: Layout,
        *,
        worker: str | None = None,
        config: Config | None = None,
        updates: int = 1,
        engines: Engines | None = None,
        chunk_rows: int | None = None,
        interface: type[Role] | None = None,
        wait: bool = True,
    ) -> Any:
        """Build a role on every rank of the pool.

        Args:
            worker: the registered name of its worker class; None: the role's own name.
            updates: optimizer steps of this role that the run plans.
            engines: those of its model; None: those that the settings name for a role of this name.
            chunk_rows: at most so many rows in one object of the store; see `put`.
            interface: the methods of the group; None: those of the role of that name.
            wait: until it is built; False: `wait_built` will, so that pools build side by side.

        Returns:
            A `Group` with the role's methods. Annotate it as the role over references, as in
            `actor: ActorRole[BatchRef] = pool.start_role("actor", …)`, and a type checker knows them.

        Raises ValueError if the layout does not fill the pool or has a tensor group on several nodes, KeyError for a
        role or a protocol that does not exist, RoleError with a rank's traceback if a build fails.
        """
        refuse_layout(role, layout, self.name, self.slots, self.places)
        interface = interface or roles.get(role)
        made = group_class(interface, config)  # an unknown protocol is an error here, before the model is built
        config = config or Config()
        build = RoleBuild(role, worker or role, layout, config, updates, engines or engines_of(config, role))
        self._builds.begin(build)
        if wait:
            self.wait_built()
        self._builds.keep(build)
        return made(role, interface, layout, self, self._supervisor, chunk_rows)

    def wait_started(self) -> None:
        """Wait until its processes are there, and let them meet."""
        started, *imports = self._starting
        self.places = self._supervisor.values(started)
        log.info("%d processes of pool %s in %.2f s", self.slots, self.name, monotonic() - self._ready)
        if wrong := misplaced(self._bundles, [place.node for place in self.places]):
            raise HybridFlowError(f"placement.pools.{self.name}: {wrong}")
        self._processes = watch_actors(self.name, self.places)
        self._supervisor.health.watch(self, self._processes)
        for record in imports:
            self._supervisor.values(record)
        if self._join_timeout_s is not None:
            with logs.timed(log, f"meeting of pool {self.name}"):
                self.devices = self._calls.join(self.places, self._join_timeout_s, self._device)
        self.start_s = monotonic() - self._ready
        self._ready = monotonic()

    def wait_built(self) -> None:
        """Wait until the roles that were begun are built."""
        self.start_s += self._builds.finish(self._ready)
        self._ready = monotonic()
        gc.collect()
        gc.freeze()  # modules and groups stay for the run: the collector need not look through them during calls

    def restart(self) -> None:
        """Give it new processes in its slots, with the roles that it had; its groups go on with these.

        Slots on a node that is lost are waited for until Ray has others for them.

        Raises RoleError if one does not start, or a role cannot be built; ClusterError if there are no slots for them.
        """
        lost = self._processes.lost_nodes() if self._processes is not None else {}
        self._end_processes()
        self._reserved.replace_lost(lost)
        self._start()
        self.wait_started()
        self._builds.begin_again()
        self.wait_built()
        if self._logs is not None:
            self.write_logs(self._logs)

    def meeting_point(self, others: Sequence[Place] = ()) -> str:
        """Return where its ranks can meet, and those at `others` with them, as torch.distributed takes it; rank 0 is
        host.
        """
        return self._calls.meeting_point([*self.places, *others])

    def node_views(self, folders: Sequence[str], mark: str) -> list[tuple[str, NodeView]]:
        """Return for each of its nodes the address, and how it sees these folders and this file."""
        return self._calls.node_views(self.places, folders, mark)

    def write_logs(self, folder: Path) -> None:
        """Let each of its processes write its log into a folder, which is made on other machines too."""
        self._logs = folder
        self._calls.values("write_log", str(folder / f"{self.name}-"))

    def start_traces(self) -> None:
        """Let each of its processes record what torch computes from now on; none does that has no torch."""
        if self._join_timeout_s is not None:
            self._calls.values_in_line("start_trace")

    def write_traces(self, prefix: str) -> list[Any]:
        """Let each of its processes write what it has recorded to files whose names begin so; "": to none.

        Return for each rank that records the DiskError if there was no room, else None.
        """
        return self._calls.values_in_line("write_trace", prefix) if self._join_timeout_s is not None else []

    def close(self) -> None:
        """End its processes, give its slots back, and remove what they met by."""
        with interrupt.shielded():
            self._end_processes()
        # Slots come back when their job leaves the cluster. What interrupted it (`timeout`, a scheduler) may have ended
        # our own cluster's processes as well, and then this call waits for a minute.
        if not interrupt.asked() and not ray_services.lost():
            self._reserved.release()

    def _start(self) -> None:
        """Begin to start a process in each slot."""
        self._ready = monotonic()
        self.ranks = start_actors(self._rank_class, self._reserved, self._bundles.slots, self._gpus)
        self._builds.forget_begun()
        self._starting = [self._calls.ask("start"), self._calls.ask("import_plugins", self._plugins)]
        if self._join_timeout_s is not None:
            self._starting.append(self._calls.ask("import_torch"))

    def _end_processes(self) -> None:
        """End them, and remove what they met by."""
        self._supervisor.health.forget(self)
        end_actors(self.ranks, self.places, self._processes)
        self._processes = None
        self._calls.forget_meetings()
