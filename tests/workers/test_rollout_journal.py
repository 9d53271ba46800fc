"""Finished rows outlive the process that made them: none is lost, none is made or given twice, none is another's."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save
from torch import Tensor

from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.dispatch.random_streams import stream_ids
from hybridflow.engines.base import GenerationEngine
from hybridflow.engines.row_seeds import row_seeds
from hybridflow.engines.sampling import FinishedRow, Sampling
from hybridflow.engines.weight_readings import WeightReadings
from hybridflow.observe.disk_errors import DiskError
from hybridflow.observe.metrics import Metrics
from hybridflow.workers.journal_records import FRAME, MAGIC, Record, decode, encode, prompt_digest, whole_records
from hybridflow.workers.rollout_journal import RolloutJournal

SAMPLING = Sampling(1.0, max_tokens=9)
SETTINGS = {"dtype": "float32"}
WEIGHTS = "a"
PROMPTS = Ragged.of([[row, row + 1] for row in range(12)])
SEEDS = [1000 + row for row in range(12)]


class Dice(GenerationEngine):
    """Engine that throws dice: a row's tokens follow from its seed, its log-probs also from who is beside it."""

    def __init__(self, version: int = 3) -> None:
        self.version = version
        self.made: Counter[int] = Counter()

    def stream(self, prompts: Ragged, sampling: Sampling, seeds: Sequence[int]) -> Iterator[list[FinishedRow]]:
        rows = [self._row(row, seed, len(seeds)) for row, seed in enumerate(seeds)]
        for length in sorted({len(row.tokens) for row in rows}):
            finished = [row for row in rows if len(row.tokens) == length]
            self.made.update(seeds[row.row] for row in finished)
            yield finished

    def _row(self, row: int, seed: int, beside: int) -> FinishedRow:
        drawn = np.random.default_rng(seed)
        length = int(drawn.integers(0, 6))
        log_probs = (-drawn.random(length) - 1e-7 * beside).astype(np.float32)
        return FinishedRow(row, drawn.integers(0, 50, length), log_probs, ("end", "stop", "length")[length % 3], length)

    def update_weights(
        self, shards: Iterator[tuple[str, Tensor]], version: int, *, readings: WeightReadings | None = None
    ) -> None:
        raise NotImplementedError

    def sleep(self) -> None:
        raise NotImplementedError

    @property
    def weight_bytes(self) -> int:
        raise NotImplementedError


def open_journal(folder: Path, number: int, *, stops: bool = True) -> RolloutJournal:
    """The journal of a new process, which knows all that is in the folder."""
    earlier = {file: file.stat().st_size for file in folder.iterdir()}
    return RolloutJournal(folder / f"{number:06d}-actor-0.rows", earlier, SETTINGS, stops=stops)


def generate(
    journal: RolloutJournal,
    engine: Dice,
    *,
    prompts: Ragged = PROMPTS,
    sampling: Sampling = SAMPLING,
    seeds: Sequence[int] = SEEDS,
    weights: str = WEIGHTS,
    upto: int | None = None,
) -> tuple[dict[int, bytes], Metrics]:
    """Take rows of a call, those of so many messages at most; their bytes, each row once, and what was measured."""
    metrics = Metrics()
    stream = journal.stream(engine, prompts, sampling, seeds, weights, metrics)
    taken = [row for _, rows in zip(range(99 if upto is None else upto), stream, strict=False) for row in rows]
    assert len({row.row for row in taken}) == len(taken), "no row comes twice"
    return {row.row: content(row) for row in taken}, metrics


def content(row: FinishedRow) -> bytes:
    """Every bit of a row."""
    tokens = row.tokens.astype(np.int64).tobytes()
    return b"|".join((tokens, row.log_probs.tobytes(), row.ended_by.encode(), str(row.cached_tokens).encode()))


records = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 5)), max_size=4),
        st.text(max_size=5).map(lambda name: json.dumps({name: 1})),
    ).map(
        lambda drawn: Record(
            drawn[1],
            np.array([seed for seed, _ in drawn[0]], dtype=np.int64),
            np.array([-seed for seed, _ in drawn[0]], dtype=np.int64),
            [
                FinishedRow(n, np.arange(length), np.full(length, np.nan, dtype=np.float32), "end", n)
                for n, (_, length) in enumerate(drawn[0])
            ],
        )
    ),
    max_size=3,
)


@settings(max_examples=20)
@given(records)
def test_a_record_is_read_as_it_was_written(written: list[Record]) -> None:
    journal = b"".join(map(encode, written))
    read = [decode(payload) for _, payload in whole_records(BytesIO(journal), len(journal))]
    assert len(read) == len(written)
    for one, other in zip(read, written, strict=True):
        assert one.conditions == other.conditions
        assert one.seeds.tolist() == other.seeds.tolist() and one.prompts.tolist() == other.prompts.tolist()
        assert list(map(content, one.rows)) == list(map(content, other.rows))


def build_journal() -> tuple[bytes, list[int]]:
    """A journal of three records, and where each ends."""
    rows = [FinishedRow(0, np.arange(3), np.zeros(3, dtype=np.float32), "end", 0)]
    encoded = [encode(Record("{}", np.array([seed]), np.array([seed]), rows)) for seed in range(3)]
    return b"".join(encoded), np.cumsum([len(one) for one in encoded]).tolist()


def ends_of(journal: bytes, size: int | None = None) -> list[int]:
    """Where the whole records of its first bytes end."""
    return [span.stop for span, _ in whole_records(BytesIO(journal), len(journal) if size is None else size)]


def test_a_journal_that_is_cut_anywhere_has_the_records_before_the_cut() -> None:
    journal, ends = build_journal()
    for cut in range(len(journal) + 1):
        assert ends_of(journal[:cut]) == ends_of(journal, cut) == [end for end in ends if end <= cut]


def test_a_byte_that_differs_ends_a_journal_before_its_record() -> None:
    journal, ends = build_journal()
    for place in range(len(journal)):
        broken = bytearray(journal)
        broken[place] ^= 0xFF
        assert ends_of(bytes(broken)) == [end for end in ends if end <= place]


def framed(payload: bytes) -> bytes:
    """A record whose checksum is right."""
    return FRAME.pack(MAGIC, len(payload), crc32(payload)) + payload


ROW = [FinishedRow(0, np.arange(3), np.zeros(3, dtype=np.float32), "end", 0)]
ARRAYS = load(encode(Record("{}", np.array([1]), np.array([1]), ROW))[FRAME.size :])


@pytest.mark.parametrize(
    "payload",
    [
        *(b"", b"no safetensors", save({})),
        *(save({name: values for name, values in ARRAYS.items() if name != left}) for left in ARRAYS),
        *(save({**ARRAYS, name: np.zeros(0, dtype=values.dtype)}) for name, values in ARRAYS.items()),
        save({**ARRAYS, "offsets": np.array([0, 2**40])}),
        save({**ARRAYS, "offsets": np.array([3, 0])}),
        save({**ARRAYS, "seeds": np.array([1, 2])}),
        *(save({**ARRAYS, "conditions": np.frombuffer(text, dtype=np.uint8)}) for text in (b"[" * 99999, b"[1]")),
    ],
)
def test_a_record_that_no_run_wrote_ends_a_journal(
    tmp_path: Path, payload: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    first, _ = generate(open_journal(tmp_path, 0), Dice())
    file = tmp_path / "000000-actor-0.rows"
    file.write_bytes(file.read_bytes() + framed(payload))
    again, metrics = generate(open_journal(tmp_path, 1), Dice())
    assert again == first and metrics["rollout/reused_rows"] == 12
    assert "has a record that no run wrote" in caplog.text


def test_a_file_of_any_size_is_read_a_record_at_a_time(tmp_path: Path) -> None:
    """Of one that is larger than the memory, as a hole in a file makes it, no more is read than is a record."""
    first, _ = generate(open_journal(tmp_path, 0), Dice())
    file = tmp_path / "000000-actor-0.rows"
    whole = file.stat().st_size
    os.truncate(file, 2**42)
    assert generate(open_journal(tmp_path, 1), Dice())[0] == first
    os.truncate(file, whole)
    file.write_bytes(file.read_bytes() + FRAME.pack(MAGIC, 2**63, 0))
    (tmp_path / "000001-actor-0.rows").unlink(missing_ok=True)
    assert generate(open_journal(tmp_path, 2), Dice())[0] == first


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 400)), max_size=4))
def test_whenever_processes_are_killed_no_row_is_lost_or_made_twice(kills: list[tuple[int, int]]) -> None:
    """Each is killed after so many messages, in the writing of its last record, of which so many bytes are lost."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        made: Counter[int] = Counter()
        kept: dict[int, bytes] = {}
        for number, (messages, lost) in enumerate(kills):
            engine = Dice()
            journal = open_journal(folder, number)
            taken, _ = generate(journal, engine, upto=messages)
            assert all(taken.get(row, bits) == bits for row, bits in kept.items() if row in taken)
            tear(folder / f"{number:06d}-actor-0.rows", lost)
            kept = known_rows(folder)
            made += engine.made
            journal.close()
        engine = Dice()
        whole, metrics = generate(open_journal(folder, 99), engine)
        assert sorted(whole) == list(range(len(SEEDS))), "none is lost"
        assert {row: whole[row] for row in kept} == kept, "what was finished is kept byte for byte"
        assert engine.made.keys() == {SEEDS[row] for row in whole if row not in kept}, "and is not made again"
        assert metrics["rollout/reused_rows"] == len(kept) and metrics["rollout/stale_rows"] == 0


def tear(file: Path, lost: int) -> None:
    """Cut bytes off the last record of a file, as a kill in its writing does."""
    if file.exists():
        spans = [span for span, _ in whole_records(BytesIO(file.read_bytes()), file.stat().st_size)]
        os.truncate(file, max(file.stat().st_size - lost, spans[-1].start - FRAME.size))


def known_rows(folder: Path) -> dict[int, bytes]:
    """The rows that are whole in a folder's journal, by number."""
    rows = {}
    for file in sorted(folder.iterdir()):
        journal = file.read_bytes()
        for _, payload in whole_records(BytesIO(journal), len(journal)):
            record = decode(payload)
            rows |= {seed - 1000: content(row) for seed, row in zip(record.seeds.tolist(), record.rows, strict=True)}
    return rows


OTHERS = {
    "weights": {"weights": "b"},
    "settings": {"sampling": Sampling(0.7, max_tokens=9)},
    "prompts": {"prompts": Ragged.of([[row, row + 2] for row in range(12)])},
}


@pytest.mark.parametrize("other", OTHERS)
def test_rows_of_other_conditions_are_made_again(other: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    generate(open_journal(tmp_path, 0), Dice())
    engine = Dice()
    whole, metrics = generate(open_journal(tmp_path, 1), engine, **OTHERS[other])  # type: ignore[arg-type]
    assert len(whole) == engine.made.total() == metrics["rollout/stale_rows"] == 12
    assert metrics["rollout/reused_rows"] == 0
    assert len(caplog.messages) == 1 and caplog.messages[0].startswith("12 journaled rows are made again: ")
    told = {"weights": "weights was a, is b", "settings": "temperature was 1.0, is 0.7", "prompts": "their prompts"}
    assert told[other] in caplog.messages[0]


def test_rows_of_other_versions_are_made_again(tmp_path: Path) -> None:
    generate(open_journal(tmp_path, 0), Dice(version=2))
    _, metrics = generate(open_journal(tmp_path, 1), Dice(version=3))
    assert metrics["rollout/stale_rows"] == 12 and metrics["rollout/reused_rows"] == 0


def test_rows_of_another_call_are_not_looked_at(tmp_path: Path) -> None:
    """A seed is of one row of one call of one step: a greedy baseline, a refill, a validation have others."""
    generate(open_journal(tmp_path, 0), Dice(), seeds=range(12))
    engine = Dice()
    _, metrics = generate(open_journal(tmp_path, 1), engine)
    assert engine.made.total() == 12 and metrics["rollout/stale_rows"] == metrics["rollout/reused_rows"] == 0


def test_calls_of_one_step_do_not_share_rows(tmp_path: Path) -> None:
    """ReMax asks for the same prompts twice: the seeds of its second call are others, and so are its sampling rules."""
    prompts = BatchRef.from_local(Batch(prompt_ids=PROMPTS)).placed(np.arange(12))
    calls = [row_seeds(1, 0, stream_ids(prompts, step=5, number=number).tolist(), Counter()) for number in range(2)]
    journal = open_journal(tmp_path, 0)
    first = [generate(journal, Dice(), seeds=seeds)[0] for seeds in calls]
    engine = Dice()
    resumed = open_journal(tmp_path, 1)
    assert [generate(resumed, engine, seeds=seeds)[0] for seeds in calls] == first and not engine.made
    assert first[0] != first[1]


def test_a_call_in_another_order_finds_its_own_rows(tmp_path: Path) -> None:
    """Which rows a rank is given depends on how many ranks there are."""
    first, _ = generate(open_journal(tmp_path, 0), Dice())
    order = [5, 3, 11]
    engine = Dice()
    again, _ = generate(
        open_journal(tmp_path, 1), engine, prompts=PROMPTS.select(order), seeds=[SEEDS[row] for row in order]
    )
    assert again == {place: first[row] for place, row in enumerate(order)} and not engine.made


def test_a_journal_that_is_there_twice_gives_each_row_once(tmp_path: Path) -> None:
    first, _ = generate(open_journal(tmp_path, 0), Dice())
    (tmp_path / "000001-actor-0.rows").write_bytes((tmp_path / "000000-actor-0.rows").read_bytes() * 2)
    again, metrics = generate(open_journal(tmp_path, 2), Dice())
    assert again == first and metrics["rollout/reused_rows"] == 12


def test_the_newest_rows_are_found_behind_stale_ones(tmp_path: Path) -> None:
    generate(open_journal(tmp_path, 0), Dice(), weights="b")
    second, _ = generate(open_journal(tmp_path, 1), Dice())
    engine = Dice()
    third, metrics = generate(open_journal(tmp_path, 2), engine)
    assert third == second and not engine.made and metrics["rollout/stale_rows"] == 0


def test_files_are_their_owners(tmp_path: Path) -> None:
    generate(open_journal(tmp_path, 0), Dice())
    assert (tmp_path / "000000-actor-0.rows").stat().st_mode & 0o777 == 0o600


def test_a_rank_whose_rows_another_one_has_writes_none(tmp_path: Path) -> None:
    whole, _ = generate(RolloutJournal(None, {}, SETTINGS), Dice())
    assert len(whole) == 12 and list(tmp_path.iterdir()) == []


def test_a_full_disk_ends_it_or_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for stops in (True, False):
        file = tmp_path / f"{stops}.rows"
        journal = RolloutJournal(file, {}, SETTINGS, stops=stops)
        journal._descriptor = os.open("/dev/full", os.O_WRONLY)
        if stops:
            with pytest.raises(DiskError, match=r"^No space left on device: "):
                generate(journal, Dice())
        else:
            whole, metrics = generate(journal, Dice())
            assert len(whole) == metrics["rollout/unjournaled_rows"] == 12
            assert [message.partition(":")[0] for message in caplog.messages] == ["no more rows are journaled"]
        journal.close()


def test_prompts_are_told_apart() -> None:
    assert len({prompt_digest(np.array(ids, dtype=np.int32)) for ids in ([], [0], [0, 0], [1], [1, 0], [0, 1])}) == 6
    assert prompt_digest(np.array([7, 8], dtype=np.int32)) == prompt_digest(np.array([7, 8]))
