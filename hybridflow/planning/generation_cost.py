"""Seconds of generation: prompts are computed at once (prefill), then each row gets a token a step (decode).

Prefill is bound by arithmetic. A decode step reads the weights once and the keys and values of every row: it is bound
by memory until very many rows share it, and few rows take almost as long as many. What is left of the memory after the
weights says how many rows a replica has at once; the others wait in its queue. Lengths are ragged: while there is a
queue all places are taken; then rows end and the batch shrinks, and the longest row of all replicas ends the call.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import ceil
from typing import Any

import numpy as np

from hybridflow.parallel.layout import Layout
from hybridflow.planning import model_arithmetic as arithmetic
from hybridflow.planning.collectives import GroupPlace, all_reduce_s, send_s
from hybridflow.planning.hardware import Curve, Hardware, Link
from hybridflow.planning.lengths import Lengths
from hybridflow.planning.run_spec import FlowCall, RoleModel, RunSpec
from hybridflow.planning.training_cost import Occupation
from hybridflow.planning.workload import ordered_lengths

ROWS = np.unique(np.geomspace(1, 2**20, 160).round())  # of which a step's seconds are computed; between, in proportion
WHOLE = Curve((1.0,), (1.0,))
CPU_BLOCK, GPU_BLOCK = 32, 16  # tokens of a block of vLLM's cache of keys and values
PREFILL_TOKENS = 8192  # that an engine computes in a step, at most
LOOKED_AT = 3  # replicas that may be the slowest, by each of two measures


@dataclass(frozen=True)
class Replica:
    """Replica that generates, on t_g × p_g ranks."""

    hardware: Hardware
    model: RoleModel
    tensor: int
    pipeline: int

    @cached_property
    def place(self) -> GroupPlace:
        """Return where its tensor ranks are, which are neighbors."""
        within = min(self.tensor, self.hardware.devices_per_node)
        return GroupPlace(within, ceil(self.tensor / within))

    @cached_property
    def _adding(self) -> Hardware:
        """Hardware as its tensor ranks find it: vLLM's processes on CPUs add up in memory that they share."""
        if not self.hardware.cores:
            return self.hardware
        shared = Link(0.0, self.hardware.memory_bytes_per_s)
        return replace(self.hardware, within=shared, efficiency=replace(self.hardware.efficiency, link=WHOLE))

    def step_s(self, rows: Any, context: Any) -> Any:
        """Return the seconds of a decode step.

        Args:
            rows: that get a token.
            context: tokens before it, of each.
        """
        return (
            np.interp(rows, ROWS, self._empty_steps) + np.maximum(rows, self.pipeline) * context * self._cached_token_s
        )

    @cached_property
    def _cached_token_s(self) -> float:
        """Seconds to read the keys and values of a token, by all stages."""
        reading = self.hardware.memory_bytes_per_s * self.hardware.efficiency.reading
        return arithmetic.kv_bytes(self.model, self.tensor, self.pipeline) / reading

    @cached_property
    def _empty_steps(self) -> np.ndarray:
        """Seconds of a step of `ROWS` rows without keys and values; a search asks for them again and again."""
        costs = self.hardware.overheads
        model = self.model
        layers = -(-model.shape.layers // self.pipeline)
        each = np.maximum(ROWS / self.pipeline, 1.0)  # stages take turns with them
        layer = arithmetic.layer_s(self.hardware, model, each, self.tensor, decodes=True) + costs.engine_layer
        message = each * model.shape.hidden * model.number_bytes
        layer = layer + 2 * all_reduce_s(self._adding, self.place, message)
        head = arithmetic.head_s(self.hardware, model, each, self.tensor, decodes=True)
        stage = layers * layer + head / self.pipeline
        if self.pipeline > 1:
            across = self.tensor * self.pipeline > self.hardware.devices_per_node
            stage = stage + send_s(self.hardware, across=across, size=message)
        steps: np.ndarray = stage * self.pipeline + costs.engine_step + costs.engine_row * ROWS
        return steps

    def prefill_s(self, prompts: float, length: float) -> float:
        """Return the seconds of computing so many prompts."""
        tokens = prompts * length
        if tokens <= 0:
            return 0.0
        steps = ceil(tokens / PREFILL_TOKENS)
        each = tokens / steps
        layers = -(-self.model.shape.layers // self.pipeline)
        attention = arithmetic.attention_s(self.hardware, self.model, each * length, length, self.tensor)
        layer = float(arithmetic.layer_s(self.hardware, self.model, each, self.tensor) + attention)
        message = each * self.model.shape.hidden * self.model.number_bytes
        layer += 2 * float(all_reduce_s(self._adding, self.place, message)) + self.hardware.overheads.engine_layer
        return (steps + self.pipeline - 1) * layers * layer

    def places(self, spec: RunSpec) -> int:
        """Return how many rows it has at once: what settings allow, and what its keys and values leave room for."""
        per_token = arithmetic.kv_bytes(self.model, self.tensor, self.pipeline)
        room = spec.kv_cache_bytes
        if not room:
            weights = arithmetic.rank_parameters(self.model, self.tensor, self.pipeline)
            room = spec.memory_fraction * self.hardware.memory_bytes - weights * self.model.number_bytes
        else:
            room /= self.tensor * self.pipeline
        row = per_token * (spec.prompt_tokens.mean + spec.response_tokens.mean)
        return max(1, min(spec.max_concurrent_rows, int(room / row) if row else spec.max_concurrent_rows))

    def decode_s(self, lengths: np.ndarray, weight: float, prompt: float, places: int) -> float:
        """Return the seconds in which rows get their tokens.

        Counted in tokens, when a row begins and ends does not depend on how long a step takes: all in a place advance
        together. So that is found first, and then what each of the steps takes.

        Args:
            lengths: tokens of rows, in the order in which they take their places.
            weight: rows that each of them stands for.
            prompt: tokens before their first.
            places: rows that are decoded together.
        """
        begins = _begins(lengths.tolist(), max(1, round(places / weight)))
        ends = np.asarray(begins) + lengths
        by_end = np.argsort(ends)
        events = np.union1d(begins, ends)
        # Of the rows in a place between two events: how many they are, and the sum of when they began.
        begun = np.searchsorted(np.sort(begins), events[:-1], side="right")
        ended = np.searchsorted(ends[by_end], events[:-1], side="right")
        started = np.concatenate([[0.0], np.cumsum(np.sort(begins))])[begun]
        finished = np.concatenate([[0.0], np.cumsum(np.asarray(begins)[by_end])])[ended]
        alive = np.maximum(begun - ended, 1)
        context = prompt + (events[1:] + events[:-1]) / 2 - (started - finished) / alive
        rows = np.minimum(np.maximum(alive * weight, 1.0), places)
        return float((np.diff(events) * self.step_s(rows, context)).sum())


def _begins(lengths: list[float], places: int) -> list[float]:
    """Return when each row takes its place, the first that is free, counted in tokens."""
    begins = [0.0] * min(places, len(lengths))
    ends = lengths[: len(begins)]
    heapq.heapify(ends)
    for length in lengths[len(begins) :]:
        begins.append(ends[0])
        heapq.heapreplace(ends, ends[0] + length)
    return begins


@lru_cache(maxsize=1024)
def _replica(hardware: Hardware, model: RoleModel, tensor: int, pipeline: int) -> Replica:
    return Replica(hardware, model, tensor, pipeline)


def replica_of(hardware: Hardware, model: RoleModel, layout: Layout) -> Replica:
    """Return a replica of a layout's generation."""
    return _replica(hardware, model, *layout.generation_sizes)


def generation_occupation(
    hardware: Hardware, call: FlowCall, model: RoleModel, layout: Layout, spec: RunSpec, deviations: float = 0.0
) -> Occupation:
    """Return what generating a call's rows takes; see `expected_workload` for `deviations`."""
    if not call.rows:
        return Occupation(0.0, 0.0)
    replica = replica_of(hardware, model, layout)
    rows = ceil(call.rows / layout.replicas)
    prompt = spec.prompt_tokens.mean
    prefill = replica.prefill_s(_computed_prompts(hardware, call, spec, rows), prompt)
    decode = _expected_decode_s(
        replica, spec.response_tokens, rows, call.rows, deviations, prompt, replica.places(spec)
    )
    seconds = prefill + decode + hardware.overheads.generate
    busy = min(layout.replicas, call.rows) * replica.tensor * replica.pipeline
    return Occupation(seconds, busy)


@lru_cache(maxsize=2**14)
def _expected_decode_s(
    replica: Replica, responses: Lengths, rows: int, of: int, deviations: float, prompt: float, places: int
) -> float:
    """Return the seconds in which a replica's rows get their tokens, of the lengths to expect: many layouts ask that
    have as many rows a replica.
    """
    lengths = ordered_lengths(responses, rows, of, deviations)
    return replica.decode_s(lengths, rows / len(lengths), prompt, places)


def drawn_occupation(
    hardware: Hardware, call: FlowCall, model: RoleModel, layout: Layout, spec: RunSpec, lengths: np.ndarray
) -> Occupation:
    """Return what generating rows of these lengths takes, which replicas share out as they come."""
    if not call.rows or not len(lengths):
        return Occupation(0.0, 0.0)
    replica = replica_of(hardware, model, layout)
    shares = [share for share in np.array_split(np.resize(lengths, call.rows), layout.replicas) if len(share)]
    places = replica.places(spec)
    prompt = spec.prompt_tokens.mean
    times = [
        replica.prefill_s(_computed_prompts(hardware, call, spec, len(share)), prompt)
        + replica.decode_s(share, 1.0, prompt, places)
        for share in _slowest(shares)
    ]
    return Occupation(max(times) + hardware.overheads.generate, len(shares) * replica.tensor * replica.pipeline)


def _computed_prompts(hardware: Hardware, call: FlowCall, spec: RunSpec, rows: int) -> float:
    """Return how many prompts a replica computes for its rows: copies of one share its whole blocks of the cache."""
    prompts = ceil(rows / spec.samples) if call.rows == spec.rows else rows
    prompt = max(spec.prompt_tokens.mean, 1.0)
    block = CPU_BLOCK if hardware.cores else GPU_BLOCK
    shared = (prompt - 1) // block * block  # its last token is computed in any case
    return prompts + (rows - prompts) * (1 - shared / prompt)


def _slowest(shares: list[np.ndarray]) -> list[np.ndarray]:
    """Return the shares of which one takes longest: those with the longest rows and those with the most tokens."""
    longest = sorted(range(len(shares)), key=lambda at: -shares[at].max())[:LOOKED_AT]
    fullest = sorted(range(len(shares)), key=lambda at: -shares[at].sum())[:LOOKED_AT]
    return [shares[at] for at in dict.fromkeys([*longest, *fullest])]
