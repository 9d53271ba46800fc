"""A published step as the simulators see it: its calls on its layouts, with the constants of NeMo-RL's software.

Hardware is a file of ours, as it stands: what devices and links do at most, and the usual shares of it. What depends on
the software are six `Constants`, the same for all models and all hardware.

A step of sync is its calls one after the other. One step off, generation and learning take place at once, on GPUs of
their own, and a weight sync stands between steps. With more steps off no row waits for the longest of its batch: a
replica has as many rows as its memory and the allowed age leave it, all the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields, replace
from functools import cache
from math import exp, sqrt
from statistics import median
from typing import Any

import numpy as np

from benchmarks.published_rows import PublishedStep, published_steps, sources
from hybridflow.config.schema import DType, Recompute
from hybridflow.models import ModelShape
from hybridflow.parallel.layout import Layout
from hybridflow.planning import model_arithmetic as arithmetic
from hybridflow.planning.call_costs import Simulators
from hybridflow.planning.generation_cost import replica_of
from hybridflow.planning.hardware import Hardware
from hybridflow.planning.hardware_files import read_hardware
from hybridflow.planning.lengths import Lengths
from hybridflow.planning.run_spec import FlowCall, RoleModel, RunSpec, Work

POINTS = 32
SAMPLES = 16  # to a prompt; that copies share their prompt's prefill hardly counts
UNLIMITED = 1_000_000
STATE_BYTES = 2 + 16  # of a parameter: its weight, and gradient, master weight and two moments in float32


@dataclass(frozen=True)
class Constants:
    """What is fitted, in seconds.

    Attributes:
        layer, mixture_layer: of a layer in a pass of the training engine, and of one with experts.
        engine_layer: of a layer in a step of the generation engine.
        latency: of a message between nodes.
        sync_byte: of a byte of weights that a rank takes in a weight sync.
        offload_byte: of a byte of weights and training state that leaves a GPU for generation and comes back.
    """

    layer: float
    mixture_layer: float
    engine_layer: float
    latency: float
    sync_byte: float
    offload_byte: float

    @staticmethod
    def of(logarithms: np.ndarray) -> Constants:
        """Take them from their logarithms."""
        return Constants(*np.exp(logarithms).tolist())

    @property
    def logarithms(self) -> np.ndarray:
        """Return their logarithms."""
        return np.log(astuple(self))


NAMES = [field.name for field in fields(Constants)]


def usual() -> Constants:
    """Return what the simulators take where nothing was measured."""
    hardware = read_hardware("h100_80g_8x")
    costs = hardware.overheads
    return Constants(
        costs.layer,
        costs.layer,
        costs.engine_layer,
        hardware.across.latency_s,
        costs.sync_byte,
        costs.sync_byte,
    )


def predicted(steps: Sequence[PublishedStep], constants: Constants) -> np.ndarray:
    """Return the seconds of steps."""
    return np.array([sum_of_phases(step, phases_of(step, constants)) for step in steps])


def sum_of_phases(step: PublishedStep, phases: dict[str, float]) -> float:
    """Return the seconds of a step from those of its phases."""
    between = phases["sync"] + phases["offload"]
    learned = phases["score"] + phases["train"]
    if step.generation_gpus:
        return max(phases["generate"], learned) + between
    return phases["generate"] + learned + between


def phases_of(step: PublishedStep, constants: Constants) -> dict[str, float]:
    """Return the seconds of a step's phases."""
    mixture = model_of(step, trains=True).experts > 1
    score, train = _learning_s(step, constants.mixture_layer if mixture else constants.layer, constants.latency)
    sent, taken, state = _sync_parts(step, constants.latency)
    return {
        "generate": _generation_s(step, constants.engine_layer, constants.latency),
        "score": score,
        "train": train,
        "sync": sent + taken * constants.sync_byte,
        "offload": 0.0 if step.generation_gpus else state * constants.offload_byte,
    }


def hardware_of(step: PublishedStep, constants: Constants) -> Hardware:
    """Return a step's system with all constants that its model has to do with."""
    layer = constants.mixture_layer if model_of(step, trains=True).experts > 1 else constants.layer
    hardware = _hardware(step, constants.latency, layer=layer, engine_layer=constants.engine_layer)
    costs = replace(hardware.overheads, sync_byte=constants.sync_byte)
    return replace(hardware, overheads=costs)


@cache
def model_of(step: PublishedStep, *, trains: bool) -> RoleModel:
    """Return the model as it is trained, or scored."""
    sizes: dict[str, Any] = dict(sources()["models"][step.model])
    counts = {name: sizes.pop(name) for name in ("experts", "active_experts") if name in sizes}
    shape = ModelShape(
        **{name: size for name, size in sizes.items() if "parameters" not in name},
        tied=False,
        qkv_bias=False,
        norm_eps=1e-6,
        rope_theta=1e6,
        max_positions=step.max_tokens,
    )
    rows = step.train_micro_rows if trains else step.score_micro_rows
    return RoleModel(
        shape,
        DType.bfloat16,
        trains,
        sharded_optimizer=True,
        recompute=step.recompute if trains else Recompute.none,
        max_tokens_per_rank=step.max_tokens * rows if step.packed else int(step.response_tokens),
        sequence=True,
        **counts,
    )


@cache
def prompt_tokens() -> float:
    """Return what the published rates leave for a prompt, in the middle of all rows: their data set is the same."""
    return median(step.prompt_tokens for step in published_steps())


def capped_lengths(mean: float, most: float) -> Lengths:
    """Expect lengths of which only the mean and the most are known: exponential, but for those that are cut.

    Of all distributions over what is at least 0 with a given mean the exponential presumes least.
    """
    low, high = most * 1e-3, most * 1e4
    while high / low > 1 + 1e-9:
        scale = sqrt(low * high)
        low, high = (scale, high) if scale * (1 - exp(-most / scale)) < mean else (low, scale)
    shares = (np.arange(POINTS) + 0.5) / POINTS
    return Lengths(tuple(np.minimum(-low * np.log(1 - shares), most).tolist()))


@cache
def spec_of(step: PublishedStep) -> RunSpec:
    """Return what the step computes, but for its flow."""
    most = step.max_tokens - prompt_tokens()
    return RunSpec(
        flow=(),
        models={},
        prompts=step.rollouts // SAMPLES,
        samples=SAMPLES,
        prompt_tokens=Lengths((prompt_tokens(),)),
        response_tokens=capped_lengths(step.response_tokens, most),
        max_response_tokens=int(most),
        schedule="one_step_off" if step.steps_off else "sync",
        schedule_changes={},
        max_concurrent_rows=UNLIMITED,
        memory_fraction=step.memory_fraction,
    )


def training_layout(step: PublishedStep) -> Layout:
    """Return how the model is cut for training."""
    return Layout(tensor=step.tensor, pipeline=step.pipeline, data=step.data, context=step.context, expert=step.expert)


def generation_layout(step: PublishedStep) -> Layout:
    """Return how the model is cut for generation."""
    ranks = step.generation_tensor * step.generation_pipeline
    replicas = (step.generation_gpus or step.gpus) // ranks
    return Layout(tensor=step.generation_tensor, pipeline=step.generation_pipeline, data=replicas)


def _hardware(step: PublishedStep, latency: float, **overheads: float) -> Hardware:
    """Return a system with some constants.

    In FP8 its GPUs multiply twice as fast; where they generate, weights are half as long as the simulators think, so
    there they have twice the memory and read it twice as fast.
    """
    file = _file(sources()["systems"][step.system])
    halved = 2 if step.precision == "fp8" else 1
    shorter = halved if "engine_layer" in overheads else 1
    return replace(
        file,
        flops={DType.bfloat16: file.flops[DType.bfloat16] * halved},
        memory_bytes=file.memory_bytes * shorter,
        memory_bytes_per_s=file.memory_bytes_per_s * shorter,
        across=replace(file.across, latency_s=latency),
        overheads=replace(file.overheads, sync_byte=0.0, **overheads),
    )


@cache
def _file(name: str) -> Hardware:
    return read_hardware(name)


def _seconds(hardware: Hardware, work: Work, rows: int, model: RoleModel, layout: Layout, spec: RunSpec) -> float:
    simulators = Simulators(hardware)
    return simulators.shared_s(simulators.occupation(FlowCall("actor", work, work, True, rows), model, layout, spec))


@cache
def _generation_s(step: PublishedStep, engine_layer: float, latency: float) -> float:
    hardware = _hardware(step, latency, engine_layer=engine_layer)
    model, layout, spec = model_of(step, trains=True), generation_layout(step), spec_of(step)
    if step.steps_off < 2:
        return _seconds(hardware, Work.generate, step.rollouts, model, layout, spec)
    replica = replica_of(hardware, model, layout)
    rows = step.rollouts / layout.replicas
    places = min(rows * step.steps_off, replica.places(spec))
    context = spec.prompt_tokens.mean + spec.response_tokens.mean / 2
    return rows * spec.response_tokens.mean / places * float(replica.step_s(places, context))


@cache
def _learning_s(step: PublishedStep, layer: float, latency: float) -> tuple[float, float]:
    """Return the seconds of the passes that score, and of the optimizer's steps."""
    hardware = _hardware(step, latency, layer=layer)
    layout, spec = training_layout(step), spec_of(step)
    score = _seconds(hardware, Work.score, step.rollouts, model_of(step, trains=False), layout, spec)
    train = _seconds(hardware, Work.train, step.train_rows, model_of(step, trains=True), layout, spec)
    return step.score_passes * score, step.rollouts // step.train_rows * train


@cache
def _sync_parts(step: PublishedStep, latency: float) -> tuple[float, float, float]:
    """Return the seconds in which weights are sent, the bytes that a rank takes, and those that it can offload."""
    model = model_of(step, trains=True)
    hardware = _hardware(step, latency)
    sent = Simulators(hardware).sync_s(model, training_layout(step), generation_layout(step), spec_of(step)).mean
    numbers = arithmetic.parameters(model)
    ranks = step.generation_tensor * step.generation_pipeline
    return sent, numbers * model.number_bytes / ranks, numbers * STATE_BYTES / step.gpus
