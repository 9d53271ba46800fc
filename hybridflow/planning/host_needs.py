"""Host memory that a run on CPUs takes: its slots' tensors and its processes, compared with what a machine has left."""

from __future__ import annotations

from math import ceil

from hybridflow.algorithms import algorithms
from hybridflow.config.model_roles import section
from hybridflow.config.schema import Config, Device
from hybridflow.observe.host_memory import LESS, HostMemory
from hybridflow.placement import Placement
from hybridflow.planning.arrangement import arrangement_of
from hybridflow.planning.flow_trace import TracedFlow
from hybridflow.planning.row_lengths import expected_prompts, expected_responses
from hybridflow.planning.run_spec import FlowCall, Work
from hybridflow.planning.slot_memory import pool_bytes
from hybridflow.planning.spec_of_config import spec_of

PROCESS_BYTES = 0.8 * 2**30  # of a rank with both engines; `benchmarks.process_bytes` finds 0.7 beside its models
LIGHT_BYTES = (
    0.12 * 2**30
)  # of one without torch, with what grades for it: 0.11 with the grader `exact`, found likewise


def host_warning(config: Config, placed: Placement, memory: HostMemory | None) -> str:
    """Tell of a run that will not fit into what this machine has left, as far as sizes say; "": it does.

    The algorithm's flow is not traced for it: every model is taken to score all of a step's rows at once, and one that
    has an optimizer to learn from a mini-batch of them.
    """
    if memory is None or config.ray.address != "local":
        return ""
    lengths = (expected_prompts(config), expected_responses(config))
    spec = spec_of(config, prompt_tokens=lengths[0], response_tokens=lengths[1], flow=any_flow(config, placed))
    arrangement = arrangement_of(placed)
    on_host = [pool for pool in placed.pools if pool.device is not Device.gpu]
    tensors = sum(pool_bytes(spec, arrangement, pool.name) for pool in on_host)
    processes = sum(pool.slots * (LIGHT_BYTES if pool.light else PROCESS_BYTES) for pool in placed.pools)
    needed = tensors + processes
    if needed <= memory.left:
        return ""
    parts = f"{tensors / 2**30:.1f} for models, what they compute and caches, {processes / 2**30:.1f} for processes"
    return (
        f"warning: this run takes about {needed / 2**30:.1f} GiB of this machine's memory ({parts}), and {memory} are "
        f"left: a process of it may be ended. {LESS}"
    )


def any_flow(config: Config, placed: Placement) -> TracedFlow:
    """Return what any flow has at most: calls that score, and that train; of a pair both responses."""
    flow = algorithms.get(config.algorithm.name)
    sequences = 2 if flow.preferences else 1
    samples = 1 if flow.supervised or flow.preferences else config.algorithm.samples_per_prompt
    rows = config.algorithm.prompts_per_step * samples
    calls = []
    for role in placed.roles:
        if not role.engines.training or role.name == "rollout":
            continue
        calls.append(FlowCall(role.name, "score", Work.score, True, rows, sequences=sequences))
        if role.updates and hasattr(section(config, role.name), "optimizer"):
            learned = min(rows, ceil(rows / config.algorithm.minibatches / samples) * samples)  # a prompt's together
            calls.append(FlowCall(role.name, "update", Work.train, False, learned, sequences=sequences))
    return TracedFlow(tuple(calls), ())
