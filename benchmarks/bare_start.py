"""Program that starts bare what a run of `experiment=addition` starts: Ray, a process a rank, their engines. No more.

`python -m benchmarks.bare_start FILE`: FILE is a pickled `BareRun`. Each rank builds its engines with the classes and
the arguments that the roles use, gives generation the actor's weights and lets vLLM answer the prompts of the run's
first call. Prints the moment, in seconds of the epoch, at which the last rank was done with each part.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybridflow.config.schema import Config
    from hybridflow.placement import RoleSpec

PARTS = ("torch", "megatron", "training", "vllm", "generation", "weights", "rows")
"""What a rank does, one after the other: imports torch and meets the others; Megatron is imported, the training engines
are built, vLLM is imported, its engine is built, it has the weights, it has answered."""


@dataclass(frozen=True)
class BareRun:
    """What ranks are told.

    Attributes:
        roles: those that have a model, in the order in which a run builds them.
        prompts: token ids of the first call of a run that generates.
        temperature: of that call.
    """

    config: Config
    roles: Sequence[RoleSpec]
    prompts: Sequence[Sequence[int]]
    temperature: float


class BareRank:
    """A process with both engines."""

    def __init__(self, rank: int, world: int, file: str) -> None:
        self._rank = rank
        self._world = world
        self._file = file
        self._moments: dict[str, float] = {}

    def run(self) -> dict[str, float]:
        """Start everything, and answer; return the moments at which each part was done."""
        os.environ.update(RANK=str(self._rank), WORLD_SIZE=str(self._world), LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
        run: BareRun = pickle.loads(Path(self._file).read_bytes())
        self._join()
        trained = self._build_training(run)
        generator = self._build_generation(run)
        self._give_weights(run, trained["actor"], generator)
        self._answer(run, generator)
        return self._moments

    def _join(self) -> None:
        import torch.distributed as dist

        from hybridflow.config.schema import Device
        from hybridflow.parallel.host_address import LOOPBACK, be_reachable
        from hybridflow.parallel.platform import choose_platform, platform

        be_reachable(LOOPBACK)
        choose_platform(Device.cpu)
        platform().start(0)
        meeting = f"file://{self._file}.store"
        dist.init_process_group("gloo", init_method=meeting, rank=self._rank, world_size=self._world)
        self._done("torch")

    def _build_training(self, run: BareRun) -> dict[str, Any]:
        from hybridflow.engines.base import training_engines
        from hybridflow.engines.megatron import engine  # noqa: F401  to time its import by itself
        from hybridflow.models import Head
        from hybridflow.parallel.process_groups import make_groups

        self._done("megatron")
        built = {}
        for role in run.roles:
            settings = getattr(run.config, role.name)
            groups = make_groups(role.layout, run.config.trainer.collective_timeout_s)
            built[role.name] = (
                groups,
                training_engines.get(role.engines.training).build(
                    settings,
                    groups,
                    head=Head.value if role.name == "critic" else Head.lm,
                    optimizer=getattr(settings, "optimizer", None),
                    total_steps=role.updates,
                    seed=run.config.run.seed,
                ),
            )
        self._done("training")
        return built

    def _build_generation(self, run: BareRun) -> Any:
        from hybridflow.engines.base import generation_engines
        from hybridflow.engines.vllm.engine import ENVIRONMENT
        from hybridflow.tasks.tokenizer import end_ids

        os.environ.update(ENVIRONMENT)
        import vllm  # noqa: F401  to time its import by itself
        from vllm import LLM  # noqa: F401

        self._done("vllm")
        config = run.config
        actor = next(role for role in run.roles if role.name == "actor")
        engine = generation_engines.get(actor.engines.generation)
        ends = end_ids(config.actor.model.path)
        built = engine.build(config.actor.model, actor.layout, config.rollout, seed=config.run.seed, stop_ids=ends)
        self._done("generation")
        return built

    def _give_weights(self, run: BareRun, trained: tuple[Any, Any], generator: Any) -> None:
        from hybridflow.engines.base import make_shardings
        from hybridflow.models import read_shape
        from hybridflow.resharding.refit import Refit
        from hybridflow.workers.model_worker import torch_dtype

        groups, engine = trained
        actor = next(role for role in run.roles if role.name == "actor")
        shape = read_shape(run.config.actor.model.path)
        shardings = make_shardings(
            actor.engines.training, actor.engines.generation, shape, groups.layout, groups.layout
        )
        Refit(shardings, groups, engine, torch_dtype(run.config.actor.model.dtype.value))(generator, 0)
        self._done("weights")

    def _answer(self, run: BareRun, generator: Any) -> None:
        from dataclasses import replace

        from hybridflow.engines.sampling import Sampling
        from hybridflow.engines.vllm.requests import parameters

        sampling = replace(Sampling.of(run.config.rollout, {}), temperature=run.temperature)
        mine = run.prompts[self._rank :: self._world]
        wanted = parameters(sampling, range(len(mine)), generator._stop_ids)
        generator._llm.generate([{"prompt_token_ids": list(ids)} for ids in mine], wanted, use_tqdm=False)
        self._done("rows")

    def _done(self, part: str) -> None:
        self._moments[part] = time.time()


def main(file: str) -> None:
    """Start Ray and the ranks."""
    import ray

    moments = {"import ray": time.time()}
    world = int(os.environ["WORLD"])
    ray.init("local", num_cpus=world, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    moments["ray.init"] = time.time()
    actor = ray.remote(num_cpus=1)(BareRank)
    ranks = [actor.remote(rank, world, file) for rank in range(world)]
    found = ray.get([rank.run.remote() for rank in ranks])
    moments |= {part: max(own[part] for own in found) for part in PARTS}
    print(json.dumps(moments), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
