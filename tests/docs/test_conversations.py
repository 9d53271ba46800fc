"""docs/conversations.md: its packages are short, their arithmetic is what loops find, and they train a model."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridflow.algorithms import algorithms
from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.batch.shared_prefix import row_tokens, shared_prefixes
from hybridflow.batch.weight_versions import one_run
from hybridflow.config.schema import AdvantageConfig, AlgorithmConfig, Config
from hybridflow.parallel.layout import Layout
from hybridflow.roles import roles
from hybridflow.workers import Context
from hybridflow.workers.advantage import Estimation
from tests.docs.blocks import blocks, write_files

PAGE = "docs/conversations.md"
MOST_LINES = {"my_pkg/tree.py": 60}
END = 9


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The page's modules, whose rows stay in this process; nothing of them is registered afterwards."""
    folder = tmp_path_factory.mktemp("packages")
    write_files(PAGE, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        for registry in (algorithms, roles):
            patch.setattr(registry, "_components", dict(registry._components))
        yield import_module("my_pkg.tree")


class Here:
    """A role whose worker is in this process; each call is made at once."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker

    def __getattr__(self, name: str) -> Callable[..., BatchRef]:
        return lambda rows, **options: BatchRef.from_local(getattr(self._worker, name)(rows.get(), **options))


class Sampler:
    """Random digits, that of END ending a response."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def generate_sequences(self, prompts: Batch, *, max_response_tokens: int) -> Batch:
        rows = self._random.integers(0, 10, (len(prompts), max_response_tokens)).tolist()
        rows = [row[: row.index(END) + 1] if END in row else row for row in rows]
        tokens = Ragged.of(rows, np.int64)
        return Batch(
            response_ids=tokens,
            truncated=np.array([row[-1] != END for row in rows], dtype=bool),
            weight_version=one_run(0, tokens.lengths),
        )


class SumGrader:
    """Grades a response by the sum of its digits, which no part of it has by itself."""

    def compute_reward(self, rollout: Batch) -> Batch:
        return Batch(rewards=np.array([graded(row) for row in rollout.ragged("response_ids")], dtype=np.float32))


def graded(response: np.ndarray) -> float:
    return float(response.sum() % 7)


def prompts(count: int) -> BatchRef:
    return BatchRef.from_local(
        Batch(
            prompt_ids=Ragged.of([[100 + row, 101] for row in range(count)], np.int64),
            answer=np.array([str(row) for row in range(count)], dtype=object),
            sample_id=np.arange(count),
        )
    )


def advantages_of(rows: Batch) -> list[float]:
    """What GRPO finds, for each row."""
    config = Config(algorithm=AlgorithmConfig(name="any", advantage=AdvantageConfig("grpo", {"normalize_std": False})))
    found = Estimation(rows, Context(config, Layout(), 0, "actor"), lambda vector: vector).plain(0.0)
    return [float(row[0]) for row in found.ragged("advantages")]


@pytest.mark.parametrize("name", MOST_LINES)
def test_the_packages_are_as_short_as_promised(name: str) -> None:
    (text,) = (block.text for block in blocks(PAGE) if block.title == name)
    lines = [line for line in text.splitlines() if line.strip()]
    assert 0 < len(lines) <= MOST_LINES[name]
    assert max(map(len, lines)) <= 120 and ";" not in text


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 2**31))
def test_values_are_backed_up_and_segments_compared_as_loops_find(
    packages: Any, count: int, samples: int, seed: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packages, "put", BatchRef.from_local)
        groups = {"actor": Here(Sampler(seed)), "reward": Here(SumGrader()), "tree": Here(packages.Tree(None))}
        settings = AlgorithmConfig(name="tree_grpo", samples_per_prompt=samples)
        rows = packages.TreeGRPO(settings, groups).rollout(prompts(count)).get()
    stems, prompt_of = count * samples, [row for row in range(count) for _ in range(samples)]
    tokens = [row.tolist() for row in row_tokens(rows)]
    responses = [row.tolist() for row in rows.ragged("response_ids")]
    children: list[list[int]] = []  # of each stem: leaves follow in the order of the stems that go on
    leaf = stems
    for stem in range(stems):
        ended = responses[stem][-1] == END
        children.append([] if ended else [*range(leaf, leaf + packages.BRANCHES)])
        leaf += len(children[-1])
    assert leaf == len(rows), "every row is a stem or a leaf"
    values = dict[int, float]()
    for stem, leaves in enumerate(children):
        for at in leaves:
            assert tokens[at][: len(tokens[stem])] == tokens[stem]
            values[at] = graded(np.array(responses[stem] + responses[at]))
        values[stem] = statistics.mean(values[at] for at in leaves) if leaves else graded(np.array(responses[stem]))
    assert rows.dense("rewards").tolist() == pytest.approx([values[row] for row in range(len(rows))])
    families = [[stem for stem in range(stems) if prompt_of[stem] == prompt] for prompt in range(count)]
    expected = {
        row: values[row] - statistics.mean(values[at] for at in family)
        for family in (*families, *filter(None, children))
        for row in family
    }
    assert advantages_of(rows) == pytest.approx([expected[row] for row in range(len(rows))], abs=1e-5)
    shared = shared_prefixes(rows)
    for stem, leaves in enumerate(children):
        for at in leaves:
            count_shared = len(tokens[stem])
            assert shared[at, 1] == count_shared and tokens[shared[at, 0]][:count_shared] == tokens[stem]
