"""ResourcePool: a set of slots. One Ray actor a slot hosts every role that is placed there."""

from __future__ import annotations

import gc
import logging
import shutil
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import Any

import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from hybridflow import interrupt
from hybridflow.config.schema import Config, Device
from hybridflow.controller import process_deaths, ray_services
from hybridflow.controller.call_record import CallRecord
from hybridflow.controller.group import group_class
from hybridflow.controller.process_watch import ProcessWatch
from hybridflow.controller.slots import Slots
from hybridflow.controller.supervisor import Supervisor
from hybridflow.errors import HybridFlowError
from hybridflow.former_names import Renamed
from hybridflow.observe import logs
from hybridflow.parallel.layout import Layout
from hybridflow.placement import Engines, engines_of
from hybridflow.placement.node_bundles import bundles_of, misplaced, ranks_by_node, split_groups
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
        self._start_timeout_s = start_timeout_s
        self._meetings: list[str] = []
        self._processes: ProcessWatch | None = None
        self._device = device
        self._gpus = 1.0 if device is Device.gpu else 0.0
        self._bundles = bundles_of(slots, nodes, together)
        slot = {"CPU": 1.0, **({"GPU": self._gpus} if self._gpus else {})}
        self._reserved = Slots(name, self._bundles, slot, start_timeout_s, nodes_timeout_s)
        self._rank_class = rank_class or _rank_class()
        self._plugins = list(plugins)
        self._join_timeout_s = None if light else timeout_s
        self._built: list[tuple[Any, ...]] = []
        self._starting: list[CallRecord] = []
        self._building: list[tuple[CallRecord, float]] = []
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
        if layout.size != self.slots:
            raise ValueError(
                f"role {role!r}: its layout has {layout.size} ranks, pool {self.name!r} has {self.slots} slots"
            )
        if split := split_groups(layout, [place.node for place in self.places]):
            where = ", ".join(f"rank {rank} on {self.places[rank].address}" for rank in split[0])
            raise ValueError(
                f"role {role!r}: a tensor group is on several nodes ({where}); start pool {self.name!r} with "
                f"together={layout.tensor}"
            )
        interface = interface or roles.get(role)
        made = group_class(interface, config)  # an unknown protocol is an error here, before the model is built
        config = config or Config()
        build = (role, worker or role, layout, config, updates, engines or engines_of(config, role))
        self._build(build)
        if wait:
            self.wait_built()
        self._built.append(build)
        return made(role, interface, layout, self, self._supervisor, chunk_rows)

    def wait_started(self) -> None:
        """Wait until its processes are there, and let them meet."""
        started, *imports = self._starting
        self.places = self._supervisor.values(started)
        log.info("%d processes of pool %s in %.2f s", self.slots, self.name, monotonic() - self._ready)
        if wrong := misplaced(self._bundles, [place.node for place in self.places]):
            raise HybridFlowError(f"placement.pools.{self.name}: {wrong}")
        self._watch()
        for record in imports:
            self._supervisor.values(record)
        if self._join_timeout_s is not None:
            with logs.timed(log, f"meeting of pool {self.name}"):
                self._join(self._join_timeout_s)
        self.start_s = monotonic() - self._ready
        self._ready = monotonic()

    def wait_built(self) -> None:
        """Wait until the roles that were begun are built."""
        for record, begun in self._building:
            self._supervisor.values(record)
            seconds = monotonic() - max(begun, self._ready)
            self._ready = monotonic()
            self.start_s += seconds
            log.info("%s: built on %d ranks of pool %s in %.2f s", record.role, self.slots, self.name, seconds)
        self._building.clear()
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
        for build in self._built:
            self._build(build)
        self.wait_built()
        if self._logs is not None:
            self.write_logs(self._logs)

    def meeting_point(self, others: Sequence[Place] = ()) -> str:
        """Return where its ranks can meet, and those at `others` with them, as torch.distributed takes it; rank 0 is
        host.
        """
        places = [*self.places, *others]
        if len({place.node for place in places}) == 1:  # a file, so that nothing listens
            self._meetings.append(self._of_first("make_meeting_folder"))
            return f"file://{self._meetings[-1]}/store"
        return f"tcp://{places[0].address}:{self._of_first('free_port')}"

    def node_views(self, folders: Sequence[str], mark: str) -> list[tuple[str, NodeView]]:
        """Return for each of its nodes the address, and how it sees these folders and this file."""
        nodes = [place.node for place in self.places]
        speakers = [nodes.index(node) for node in dict.fromkeys(nodes)]
        views = self._settled("view_files", speakers, folders, mark)
        return [(self.places[rank].address, views[rank]) for rank in speakers]

    def write_logs(self, folder: Path) -> None:
        """Let each of its processes write its log into a folder, which is made on other machines too."""
        self._logs = folder
        self._settled("write_log", str(folder / f"{self.name}-"))

    def start_traces(self) -> None:
        """Let each of its processes record what torch computes from now on; none does that has no torch."""
        self._traced("start_trace")

    def write_traces(self, prefix: str) -> list[Any]:
        """Let each of its processes write what it has recorded to files whose names begin so; "": to none.

        Return for each rank that records the DiskError if there was no room, else None.
        """
        return self._traced("write_trace", prefix)

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
        actor = ray.remote(self._rank_class)
        self.ranks = [
            actor.options(
                num_cpus=1,
                num_gpus=self._gpus,
                max_restarts=0,
                scheduling_strategy=PlacementGroupSchedulingStrategy(self._reserved.group, bundle),
            ).remote(rank)
            for rank, bundle in enumerate(ranks_by_node(self._reserved.nodes, self._bundles.slots))
        ]
        self._building.clear()
        self._starting = [self._ask("start"), self._ask("import_plugins", self._plugins)]
        if self._join_timeout_s is not None:
            self._starting.append(self._ask("import_torch"))

    def _build(self, build: tuple[Any, ...]) -> None:
        """Begin to build a role on every rank."""
        calls = [rank.build.remote(*build) for rank in self.ranks]
        record = self._supervisor.ask(build[0], "build", calls, self._start_timeout_s, self)
        self._building.append((record, monotonic()))

    def _end_processes(self) -> None:
        """End them, and remove what they met by."""
        self._supervisor.health.forget(self)
        for handle in () if ray_services.lost() else self.ranks:  # the services would have to pass it on
            ray.kill(handle)
        if self._processes is not None:
            for rank in range(len(self.places)):  # also those that are stopped, which Ray's message does not reach
                self._processes.kill(rank)
            self._processes.close()
            self._processes = None
        for place in self.places:
            process_deaths.forget(place.pid)
        for folder in self._meetings:
            shutil.rmtree(folder, ignore_errors=True)  # it is on the node of rank 0; if elsewhere, its next start does
        self._meetings.clear()

    def _settled(self, method: str, *arguments: Any) -> list[Any]:
        """Return the values of a call on every rank that is no call on a role."""
        return self._supervisor.values(self._ask(method, *arguments))

    def _ask(self, method: str, *arguments: Any) -> CallRecord:
        """Make a call on every rank that is no call on a role."""
        key = f"placement.pools.{self.name}"
        calls = [getattr(rank, method).remote(key, *arguments) for rank in self.ranks]
        return self._supervisor.ask(key, method, calls, self._start_timeout_s, self)

    def _traced(self, method: str, *arguments: Any) -> list[Any]:
        """Return the values of a call that stands in line behind calls on roles, whose deadline it has."""
        if self._join_timeout_s is None:
            return []
        key = f"placement.pools.{self.name}"
        calls = [getattr(rank, method).remote(key, *arguments) for rank in self.ranks]
        return self._supervisor.gather(key, method, calls, pool=self, setting="")

    def _of_first(self, method: str) -> Any:
        """Return the value of a call on rank 0 that is no call on a role."""
        key = f"placement.pools.{self.name}"
        calls = [getattr(self.ranks[0], method).remote(key)]
        return self._supervisor.gather(key, method, calls, self._start_timeout_s, self)[0]

    def _watch(self) -> None:
        """Ping its processes from now on, and see to it that the end of one on this machine can be told."""
        here = ray.get_runtime_context().get_node_id()
        self._processes = ProcessWatch(self.name, self.places, here)
        self._supervisor.health.watch(self, self._processes)
        for place in self.places:
            if place.node == here:
                process_deaths.watch(place.pid)

    def _join(self, timeout_s: float) -> None:
        nodes = [place.node for place in self.places]
        meeting = self.meeting_point()
        key = f"placement.pools.{self.name}"
        calls = [
            handle.join.remote(key, self.slots, nodes[:rank].count(nodes[rank]), meeting, timeout_s, self._device)
            for rank, handle in enumerate(self.ranks)
        ]
        self.devices = self._supervisor.gather(key, "join", calls, self._start_timeout_s, self)


def _rank_class() -> type:
    """Find the class of ranks by name, for scripts that start a pool themselves.

    The controller's modules import of the other side of a call nothing but its messages; so whoever reads or tests them
    needs no worker. `trainer.build` hands the class over.
    """
    rank_class: type = import_module("hybridflow.runtime.rank").Rank
    return rank_class
