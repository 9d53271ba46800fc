"""Conversations that are sampled over many calls, beside others that come, go, and wait; no ranks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridflow.batch import Batch, Ragged, concat
from hybridflow.batch.weight_versions import NO_VERSION, refuse_other_tokens
from hybridflow.config.schema import Config, EnvironmentConfig, RolloutConfig
from hybridflow.engines.generation_session import Request, Session
from hybridflow.engines.sampling import LENGTH, STOP, FinishedRow
from hybridflow.environments.conversation import Conversation
from hybridflow.parallel.layout import Layout
from hybridflow.workers.conversation_session import ConversationSession
from hybridflow.workers.rollout_loop import RolloutLoop
from hybridflow.workers.worker import Context

TURNS, TOKENS = 3, 20


class Writing(Session):
    """Stands for an engine: a turn is of tokens that its seed says, one a step, whose log-prob is minus the version."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._rows: dict[int, tuple[Request, list[int], list[float]]] = {}
        generator.open = self

    def submit(self, requests: Sequence[Request]) -> None:
        for one in requests:
            assert one.row not in self._rows and one.sampling.max_tokens > 0
            self._rows[one.row] = one, [], []

    def advance(self) -> list[FinishedRow]:
        finished = []
        for row, (request, tokens, log_probs) in [*self._rows.items()]:
            tokens.append(request.seed % 1000 + len(tokens))
            log_probs.append(-float(self._generator.version))
            stops = len(tokens) > 2 + request.seed % 6
            if stops or len(tokens) == request.sampling.max_tokens:
                by = STOP if stops else LENGTH
                finished.append(FinishedRow(row, np.array(tokens), np.array(log_probs, dtype=np.float32), by, 0))
                del self._rows[row]
        return finished

    def abort(self, rows: Collection[int]) -> None:
        for row in rows:
            self._rows.pop(row, None)

    def written(self) -> dict[int, int]:
        return {row: len(tokens) for row, (_, tokens, _) in self._rows.items()}

    @contextmanager
    def renewing(self, *, keeps_cache: bool) -> Iterator[None]:
        yield

    @property
    def pending(self) -> bool:
        return bool(self._rows)

    def close(self) -> None:
        self._rows.clear()


class Generator:
    """Stands for the engine that has sessions."""

    version = 0
    open: Writing

    def session(self) -> Writing:
        return Writing(self)


class Asker:
    """Stands for the environments: each says its turn's number as two tokens, once it is let to."""

    def __init__(self) -> None:
        self.open: set[int] = set()
        self.asked: list[Conversation] = []
        self.lets: Callable[[int], bool] = lambda _: True

    def begin(self, rows: Batch, numbers: Sequence[int], seeds: Sequence[int]) -> None:
        assert len(rows) == len(numbers) == len(seeds) and not self.open.intersection(numbers)
        self.open.update(numbers)

    def ask(self, talk: Conversation, ended_by: str) -> None:
        assert talk.row in self.open
        self.asked.append(talk)

    def heard(self, *, wait_s: float, together: bool) -> list[list[Any]]:
        heard = [talk for talk in self.asked if self.lets(talk.row)]
        if together and len(heard) < len(self.asked):
            return []
        self.asked = [talk for talk in self.asked if talk not in heard]
        return [[talk.row, [talk.turns] * 2, 1.0, False, {}] for talk in heard]

    def finish(self, rows: Sequence[int]) -> None:
        self.open.difference_update(rows)
        self.asked = [talk for talk in self.asked if talk.row not in rows]


class Talks:
    """Stands for `ConversationLoop`, whose replica is this rank alone."""

    def __init__(self, settings: EnvironmentConfig, asker: Asker) -> None:
        self.settings, self.asker = settings, asker

    def session(self, generator: Any, answer_s: float) -> ConversationSession:
        return ConversationSession(generator.session(), self.settings, self.asker, lambda heard: heard, answer_s)  # type: ignore[arg-type]


def build_loop(asker: Asker, *, in_step: bool = False) -> tuple[RolloutLoop, Generator]:
    environment = EnvironmentConfig(name="guess", max_turns=TURNS, in_step=in_step)
    config = Config(environment=environment, rollout=RolloutConfig(max_response_tokens=TOKENS))
    generator: Any = Generator()
    context = Context(config, Layout(), 0, "rollout")
    return RolloutLoop(generator, context, Talks(environment, asker)), generator  # type: ignore[arg-type]


def rows(numbers: Sequence[int]) -> Batch:
    own = np.array(numbers)
    return Batch(prompt_ids=Ragged.of([[number] for number in numbers], np.int64), stream_id=own, rollout_id=own)


def undisturbed(count: int) -> dict[int, list[int]]:
    """The tokens of conversations that nothing keeps waiting."""
    loop, _ = build_loop(Asker())
    loop.take_up(rows(range(count)), 0, {})
    found = loop.go_on(10_000)
    return dict(
        zip(found.dense("rollout_id").tolist(), (row.tolist() for row in found.ragged("response_ids")), strict=True)
    )


EVENTS = ("begin", "go on", "let", "renew", "stop")


@settings(max_examples=25)
@given(
    events=st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 10**6)), max_size=40),
    in_step=st.booleans(),
)
def test_each_ends_once_with_the_tokens_that_it_has_alone_and_the_versions_that_sampled_them(
    events: list[tuple[str, int]], in_step: bool
) -> None:
    asker = Asker()
    loop, generator = build_loop(asker, in_step=in_step)
    free: set[int] = set()
    asker.lets = free.__contains__
    begun: list[int] = []
    stopped: set[int] = set()
    found: list[Batch] = []
    for event, number in events:
        chosen = begun[number % len(begun)] if begun else 0
        match event:
            case "begin":
                new = [*range(len(begun), len(begun) + 1 + number % 3)]
                loop.take_up(rows(new), 0, {})
                begun += new
            case "go on":
                found.append(loop.go_on(1 + number % 4))
            case "let":
                free.add(chosen)
            case "renew":
                with loop.renewing(generator.version + 1):
                    generator.version += 1
            case "stop" if begun:
                loop.stop([chosen])
                stopped.add(chosen)
    asker.lets = lambda _: True
    found += [loop.go_on(10_000), loop.go_on(10_000)]
    finished = concat([part for part in found if len(part)]) if any(map(len, found)) else rows([])
    numbers = finished.dense("rollout_id").tolist()
    assert len({*numbers}) == len(numbers) and {*numbers} | stopped == {*begun}
    assert not asker.open and not asker.asked and not loop._rows and loop._session is None
    alone = undisturbed(len(begun)) if begun else {}
    for place, number in enumerate(numbers):
        assert finished.ragged("response_ids")[place].tolist() == alone[number]
        wrote = finished.ragged("loss_mask")[place]
        by_log_prob = np.where(wrote, -finished.ragged("rollout_log_probs")[place].astype(int), NO_VERSION)
        runs = finished.ragged("weight_version")[place].reshape(-1, 2)
        assert np.repeat(runs[:, 0], runs[:, 1]).tolist() == by_log_prob.tolist()
    if numbers:
        refuse_other_tokens(finished.ragged("weight_version"), finished.lengths("response_ids"))


def test_one_that_waits_for_its_environment_keeps_no_other_waiting() -> None:
    asker = Asker()
    loop, _ = build_loop(asker)
    loop.take_up(rows(range(6)), 0, {})
    asker.lets = lambda row: row != 2
    found = concat([loop.go_on(8) for _ in range(20)])
    assert sorted(found.dense("rollout_id").tolist()) == [0, 1, 3, 4, 5]
    assert len(loop.go_on(8)) == 0 and asker.open == {2}


def test_in_step_no_turn_begins_before_all_that_are_under_way_were_answered() -> None:
    asker = Asker()
    loop, generator = build_loop(asker, in_step=True)
    loop.take_up(rows(range(6)), 0, {})
    asker.lets = lambda row: row != 2
    assert len(loop.go_on(100)) == 0
    assert not generator.open.pending and len(asker.asked) == 6
