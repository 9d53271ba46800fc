"""RolloutJournal: finished rows, written as they finish, and found again by a process that has to make them once more.

A row is taken from the journal in place of one that is asked for if the two are the same row of the same call (its seed
says so: it is of the run's seed, the step, the call and the row's place), of the same prompt, and sampled by the same
settings from the same weights, bit for bit. There is no other way in, so a journal is never wrong, only of no use.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np

from hybridflow.batch import Ragged
from hybridflow.engines.base import GenerationEngine
from hybridflow.engines.sampling import FinishedRow, Sampling
from hybridflow.errors import HybridFlowError
from hybridflow.observe.disk_errors import writing
from hybridflow.observe.metrics import Metrics
from hybridflow.workers.journal_records import Record, decode, encode, prompt_digest, whole_records

log = logging.getLogger(__name__)

SUFFIX = ".rows"


class Place(NamedTuple):
    """Place of a row in the files of earlier processes."""

    file: Path
    start: int
    stop: int
    row: int


class RolloutJournal:
    """Journal of one rank.

    Args:
        file: to write to; made with its first row. None: another rank has the same rows, and writes them.
        earlier: files of earlier processes, and how many bytes of each are to be read. All ranks of a replica are given
            the same, for they must leave out the same rows.
        settings: that are no part of `Sampling` and change what is sampled.
        stops: raise DiskError if the disk takes no more; else warn, and write nothing any more.

    Attributes:
        seconds: that were spent on it by the last call.

    Raises HybridFlowError if an earlier file cannot be read here.
    """

    def __init__(
        self, file: Path | None, earlier: Mapping[Path, int], settings: Mapping[str, object], *, stops: bool = True
    ) -> None:
        self._file = file
        self._descriptor: int | None = None
        self._settings = settings
        self._stops = stops
        self._full = False
        self._places: dict[int, list[Place]] = {}
        self.seconds = 0.0
        for path, size in sorted(earlier.items()):
            self._read(path, size)

    @property
    def known(self) -> int:
        """Number of rows of earlier processes that are whole."""
        return sum(map(len, self._places.values()))

    def stream(
        self,
        generator: GenerationEngine,
        prompts: Ragged,
        sampling: Sampling,
        seeds: Sequence[int],
        weights: str,
        metrics: Metrics,
    ) -> Iterator[list[FinishedRow]]:
        """Yield the rows of a call that are known, and then the others as they finish; see `GenerationEngine.stream`.

        Args:
            weights: the identity of those that the generator has.
        """
        begin = perf_counter()
        conditions = conditions_of(generator.version, weights, sampling, self._settings)
        digests = np.array([prompt_digest(prompt) for prompt in prompts], dtype=np.int64)
        known, stale = self.find(conditions, seeds, digests)
        metrics.total("rollout/reused_rows", len(known))
        metrics.total("rollout/stale_rows", stale)
        self.seconds = perf_counter() - begin
        if known:
            yield list(known.values())
        missing = np.array([row for row in range(len(prompts)) if row not in known], dtype=np.int64)
        if not len(missing):
            return
        wanted = [seeds[row] for row in missing]
        for rows in generator.stream(prompts.select(missing), sampling, wanted):
            made = [one._replace(row=int(missing[one.row])) for one in rows]
            numbers = [one.row for one in made]
            self.write(Record(conditions, np.array([seeds[row] for row in numbers]), digests[numbers], made))
            if self._full:
                metrics.total("rollout/unjournaled_rows", len(made))
            yield made

    def find(self, conditions: str, seeds: Sequence[int], prompts: np.ndarray) -> tuple[dict[int, FinishedRow], int]:
        """Return by number the rows of a call that are there; and how many are there that are not what is asked for."""
        known: dict[int, FinishedRow] = {}
        others: set[str] = set()
        stale = 0
        records: dict[tuple[Path, int], Record] = {}
        for number, (seed, prompt) in enumerate(zip(seeds, prompts.tolist(), strict=True)):
            for place in self._places.get(seed, ()):
                at = place.file, place.start
                record = records.get(at) or records.setdefault(at, _record(place))
                if record.conditions == conditions and record.prompts[place.row] == prompt:
                    known[number] = record.rows[place.row]._replace(row=number)
                    break
                others.add(record.conditions)
            else:
                stale += seed in self._places
        if stale:
            log.warning("%d journaled rows are made again: %s", stale, _differences(conditions, others))
        return known, stale

    def write(self, record: Record) -> None:
        """Append a record, if this rank writes any. Raises DiskError if the disk takes no more and that is to stop."""
        if self._file is None or self._full:
            return
        begin = perf_counter()
        try:
            with writing(self._file):
                self._append(self._file, encode(record))
        except HybridFlowError as error:
            if self._stops:
                raise
            log.warning("no more rows are journaled: %s", error)
            self._full = True
        self.seconds += perf_counter() - begin

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _append(self, file: Path, encoded: bytes) -> None:
        if self._descriptor is None:
            self._descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        left = memoryview(encoded)
        while left:
            left = left[os.write(self._descriptor, left) :]

    def _read(self, path: Path, size: int) -> None:
        try:
            with path.open("rb") as stream:
                for (start, stop), payload in whole_records(stream, size):
                    for row, seed in enumerate(decode(payload).seeds.tolist()):
                        self._places.setdefault(seed, []).append(Place(path, start, stop, row))
        except OSError as error:
            raise HybridFlowError(
                f"rollout.recovery: {path}: {error.strerror}: all machines of a run that is `durable` must see its "
                "folder"
            ) from error
        except ValueError as error:
            log.warning("%s has a record that no run wrote, and is not read on: %s", path, error)


def conditions_of(version: int | None, weights: str, sampling: Sampling, settings: Mapping[str, object]) -> str:
    """Return in JSON all that the rows of a call have in common and that decides what is sampled.

    Args:
        version: of the weights.
        weights: their identity.
    """
    whole = {"version": version, "weights": weights, **asdict(sampling), **settings}
    return json.dumps(whole, sort_keys=True, default=list)


def _record(place: Place) -> Record:
    with place.file.open("rb") as stream:
        stream.seek(place.start)
        return decode(stream.read(place.stop - place.start))


def _differences(wanted: str, others: set[str]) -> str:
    """Name what is not as in any of the other conditions."""
    now = json.loads(wanted)
    found = {f"{name} was {old.get(name)}, is {now[name]}" for old in map(json.loads, others) for name in now
             if old.get(name) != now[name]}  # fmt: skip
    return "; ".join(sorted(found)) or "their prompts are others"
