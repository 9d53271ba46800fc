"""From settings to a `RunSpec`: the flow as the algorithm's own code has it, models as their folders do, and lengths.

Lengths are measured where they can be, in an earlier run's rows or the task's; else they are expectations
(`planning.row_lengths`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hybridflow.config import schedule_settings
from hybridflow.config.model_roles import section, with_models
from hybridflow.config.schema import Config, Device, OptimizerConfig, TrainParallelConfig
from hybridflow.models import Head, ModelShape, read_shape
from hybridflow.placement import resolve
from hybridflow.planning.flow_trace import TracedFlow, trace_flow
from hybridflow.planning.lengths import Lengths
from hybridflow.planning.row_lengths import RowLengths, row_lengths
from hybridflow.planning.run_spec import RoleModel, RunSpec, Work
from hybridflow.scheduling import SCHEDULES

GIB = 2.0**30
SHARING = "megatron"  # the training engine that computes a prompt once for all of its responses


def spec_of(
    config: Config,
    *,
    shapes: Mapping[str, ModelShape] | None = None,
    prompt_tokens: Lengths | None = None,
    response_tokens: Lengths | None = None,
    kept_share: float = 1.0,
    flow: TracedFlow | None = None,
) -> RunSpec:
    """Return what a run with these settings computes in a step. Plugins have been imported.

    Args:
        shapes: by role with a model, where their folders are not there yet; None: they are read.
        prompt_tokens, response_tokens: of rows, where they are known better than from settings.
        kept_share: of the groups, those whose rewards differ, where the flow filters by that.
        flow: what is taken for it; None: it is traced.

    Raises:
        FlowError: the algorithm's flow cannot be traced.
        ConfigError: the settings cannot be placed.
        FileNotFoundError, ValueError: a model's folder cannot be read.
    """
    from hybridflow.algorithms import algorithms

    algorithm = algorithms.get(config.algorithm.name)
    called = algorithm.roles_of(config.algorithm)
    placed = resolve(config, called)
    with_model = with_models(config, called)
    lengths = row_lengths(config, prompt_tokens, response_tokens, supervised=algorithm.supervised)
    flow = flow or trace_flow(
        config,
        algorithm,
        {role: placed.role(role).interface for role in called},
        with_model,
        kept_share=kept_share,
        prompt_tokens=int(lengths.prompts.mean),
        response_tokens=int(lengths.responses.mean),
    )
    models = {role: _model(config, role, _shape(config, role, shapes), flow) for role in with_model}
    return _spec(config, flow, models, lengths)


def _spec(config: Config, flow: TracedFlow, models: Mapping[str, RoleModel], lengths: RowLengths) -> RunSpec:
    samples = any(call.work is Work.generate for call in flow.calls)
    return RunSpec(
        flow=flow.calls,
        models=models,
        prompts=config.algorithm.prompts_per_step,
        samples=config.algorithm.samples_per_prompt if samples else 1,
        prompt_tokens=lengths.prompts,
        response_tokens=lengths.responses,
        max_response_tokens=config.rollout.max_response_tokens,
        schedule=config.trainer.schedule,
        schedule_changes=_schedule_changes(config),
        max_concurrent_rows=config.rollout.max_concurrent_rows,
        kv_cache_bytes=config.rollout.kv_cache_gib * GIB if _on_cpu(config) else 0.0,
        memory_fraction=config.rollout.gpu_memory_fraction,
        notes=(*flow.notes, *lengths.notes, *_unknown_parts(config)),
        generation_engine=config.rollout.engine,
        resharding=config.rollout.resharding,
        shares_prompts=all(section(config, role).engine == SHARING for role in models),
    )


def _unknown_parts(config: Config) -> list[str]:
    """Say what of these settings the simulators know nothing of."""
    notes = []
    if config.trainer.schedule not in SCHEDULES:
        notes.append(f"trainer.schedule={config.trainer.schedule} is not one of ours; its steps are taken for sync's")
    if config.environment.name:
        notes.append(
            f"environment {config.environment.name}: a conversation counts as one response; no wait for answers"
        )
    return notes


def _schedule_changes(config: Config) -> dict[str, object]:
    """Return what settings change of the schedule's policy, where the schedule is one of ours."""
    changes = schedule_settings.changes(config.trainer)
    if schedule_settings.learns_in_parts(config.trainer.schedule):
        changes["minibatches"] = min(config.algorithm.minibatches, config.algorithm.prompts_per_step)
    return changes


def _on_cpu(config: Config) -> bool:
    from hybridflow.placement import model_device
    from hybridflow.placement.hardware import local_gpus

    gpus = local_gpus() if config.ray.address == "local" else None
    return model_device(config, gpus) is Device.cpu


def _shape(config: Config, role: str, shapes: Mapping[str, ModelShape] | None) -> ModelShape:
    if shapes is not None and role in shapes:
        return shapes[role]
    return read_shape(section(config, role).model.path)


def _model(config: Config, role: str, shape: ModelShape, flow: TracedFlow) -> RoleModel:
    settings = section(config, role)
    optimizer = getattr(settings, "optimizer", None)
    parallel = settings.parallel
    works = {call.work for call in flow.calls if call.role == role}
    return RoleModel(
        shape=replace(shape, head=Head.lm) if role == "actor" else shape,
        dtype=settings.model.dtype,
        trains=Work.train in works,
        sharded_optimizer=isinstance(optimizer, OptimizerConfig) and optimizer.distributed,
        recompute=settings.recompute,
        max_tokens_per_rank=settings.max_tokens_per_rank,
        sequence=isinstance(parallel, TrainParallelConfig) and parallel.sequence,
        offloads_weights=settings.offload.weights,
        offloads_optimizer=settings.offload.optimizer,
        head=head_of(role),
        engine=settings.engine,
    )


def head_of(role: str) -> Head:
    """Return what a role has on top of its decoder: a policy the next token, a critic values, another a score."""
    from hybridflow.roles import CostCriticRole, CriticRole, ReferenceRole, is_policy, roles

    interface = roles.get(role)
    if is_policy(role) or issubclass(interface, ReferenceRole):
        return Head.lm
    return Head.value if issubclass(interface, CriticRole | CostCriticRole) else Head.reward
