"""Specs of runs that tests of planning ask about: a small policy that is a model of 16 layers, and PPO's flow."""

from __future__ import annotations

from dataclasses import replace

from hybridflow.config.schema import DType
from hybridflow.models import Head, ModelShape
from hybridflow.parallel.layout import Layout
from hybridflow.planning.arrangement import Arrangement, Seat
from hybridflow.planning.lengths import Lengths
from hybridflow.planning.run_spec import FlowCall, RoleModel, RunSpec, Work

SHAPE = ModelShape(
    family="llama",
    layers=16,
    hidden=2048,
    ffn=8192,
    heads=32,
    kv_heads=8,
    head_dim=64,
    vocab=128256,
    tied=True,
    qkv_bias=False,
    norm_eps=1e-5,
    rope_theta=5e5,
    max_positions=131072,
)  # Llama 3.2 1B
POLICY = RoleModel(SHAPE, DType.bfloat16, trains=True, sharded_optimizer=True)
MODELS = {"actor": POLICY, "reference": replace(POLICY, trains=False), "critic": replace(POLICY, head=Head.value)}
LENGTHS = Lengths(tuple(100.0 + 28.0 * place for place in range(33)))


def build_flow(rows: int, *, minibatches: int = 2, critic: bool = True) -> tuple[FlowCall, ...]:
    """PPO's calls, or GRPO's."""
    calls = [
        FlowCall("actor", "generate_sequences", Work.generate, True, rows),
        FlowCall("reference", "compute_ref_log_prob", Work.score, True, rows, (0,)),
        FlowCall("reward", "compute_reward", Work.grade, True, rows, (0,)),
        FlowCall("actor", "compute_log_prob", Work.score, False, rows, (0,), balanced=False),
    ]
    if critic:
        calls.append(FlowCall("critic", "compute_values", Work.score, False, rows, (0,)))
    calls.append(FlowCall("actor", "compute_advantage", Work.rows, False, rows, tuple(range(len(calls)))))
    read = tuple(range(len(calls)))
    for _ in range(minibatches):
        calls += [FlowCall("critic", "update_critic", Work.train, False, rows // minibatches, read)] * critic
        calls.append(FlowCall("actor", "update_actor", Work.train, False, rows // minibatches, read))
    return tuple(calls)


def build_spec(
    prompts: int = 16,
    samples: int = 4,
    *,
    schedule: str = "sync",
    critic: bool = True,
    responses: Lengths = LENGTHS,
    **changes: object,
) -> RunSpec:
    return RunSpec(
        flow=build_flow(prompts * samples, critic=critic),
        models=MODELS,
        prompts=prompts,
        samples=samples,
        prompt_tokens=Lengths((100.0, 200.0)),
        response_tokens=responses,
        max_response_tokens=1000,
        schedule=schedule,
        schedule_changes=changes,
        max_concurrent_rows=64,
    )


def colocated(devices: int, tensor: int = 1) -> Arrangement:
    layout = Layout(tensor, 1, devices // tensor, generation=(1, 1))
    seats = {role: Seat("main", layout) for role in ("actor", "reference", "critic")}
    return Arrangement({"main": devices}, {**seats, "reward": Seat("main", Layout(data=devices))})


def split(actor: int, critic: int) -> Arrangement:
    """Actor and reference on a pool, critic and reward on another."""
    layouts = Layout(data=actor, generation=(1, 1)), Layout(data=critic)
    seats = {"actor": Seat("one", layouts[0]), "reference": Seat("one", layouts[0])}
    return Arrangement(
        {"one": actor, "two": critic}, {**seats, "critic": Seat("two", layouts[1]), "reward": Seat("two", layouts[1])}
    )


def rollout_apart(trainers: int, generators: int) -> Arrangement:
    """Everything that learns or scores on a pool, generation on another."""
    layout = Layout(data=trainers)
    seats = {role: Seat("main", layout) for role in ("actor", "reference", "critic", "reward")}
    return Arrangement(
        {"main": trainers, "generation": generators}, {**seats, "rollout": Seat("generation", Layout(data=generators))}
    )
