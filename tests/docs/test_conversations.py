"""docs/conversations.md: its packages are short, their arithmetic is what loops find, and they run on ranks."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.schedule_learning import GAIN, ONE_RANK, WARM_UP
from benchmarks.short_runs import metrics_of, short_runs
from hybridflow.algorithms import algorithms
from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.batch.shared_prefix import row_tokens, shared_prefixes
from hybridflow.batch.weight_versions import one_run
from hybridflow.config import sections
from hybridflow.config.schema import AdvantageConfig, AlgorithmConfig, Config
from hybridflow.parallel.layout import Layout
from hybridflow.roles import roles
from hybridflow.workers import Context
from hybridflow.workers.advantage import Estimation
from tests.docs.blocks import blocks, commands, write_files
from tests.docs.conftest import Meets, Problems

PAGE = "docs/conversations.md"
MOST_LINES = {"my_pkg/tree.py": 60, "my_pkg/checking.py": 50, "my_pkg/two_policies.py": 30}
END = 9


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The page's modules, whose rows stay in this process; nothing of them is registered afterwards."""
    folder = tmp_path_factory.mktemp("packages")
    write_files(PAGE, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        for registry in (algorithms, roles):
            ours = {name: registry.get(name) for name in registry}  # imported before, for they register once
            patch.setattr(registry, "_components", ours)
        patch.setattr(sections, "_added", dict(sections._added))
        yield SimpleNamespace(**{name: import_module(f"my_pkg.{name}") for name in ("tree", "checking")})


class Here:
    """A role whose worker is in this process; each call is made at once."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(rows: BatchRef, **options: Any) -> Any:
            made = getattr(self._worker, name)(rows.get(), **options)
            return BatchRef.from_local(made) if isinstance(made, Batch) else made

        return call


class Sampler:
    """Random digits, that of END ending a response."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def generate_sequences(self, prompts: Batch, *, max_response_tokens: int = 4) -> Batch:
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
        patch.setattr(packages.tree, "put", BatchRef.from_local)
        groups = {"actor": Here(Sampler(seed)), "reward": Here(SumGrader()), "tree": Here(packages.tree.Tree(None))}
        settings = AlgorithmConfig(name="tree_grpo", samples_per_prompt=samples)
        rows = packages.tree.TreeGRPO(settings, groups).rollout(prompts(count)).get()
    stems, prompt_of = count * samples, [row for row in range(count) for _ in range(samples)]
    tokens = [row.tolist() for row in row_tokens(rows)]
    responses = [row.tolist() for row in rows.ragged("response_ids")]
    children: list[list[int]] = []  # of each stem: leaves follow in the order of the stems that go on
    leaf = stems
    for stem in range(stems):
        ended = responses[stem][-1] == END
        children.append([] if ended else [*range(leaf, leaf + packages.tree.BRANCHES)])
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


class DigitGrader:
    """Grades by the last digit: of an answer whether it is small, of a verdict whether it is the right one."""

    def compute_reward(self, rollout: Batch) -> Batch:
        grades = []
        for answer, response in zip(rollout.dense("answer"), rollout.ragged("response_ids"), strict=True):
            asked = answer.startswith("q")
            grades.append(float(response[-1] < 5) if asked else float(str(response[0]) == answer))
        return Batch(rewards=np.array(grades, dtype=np.float32))


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 2**31))
def test_each_side_is_asked_and_compared_by_itself(packages: Any, count: int, samples: int, seed: int) -> None:
    context = Context(Config(), Layout(), 0, "referee")
    groups = {
        "actor": Here(Sampler(seed)),
        "reward": Here(DigitGrader()),
        "referee": Here(packages.checking.Referee(context)),
    }
    algorithm = packages.checking.Checking(AlgorithmConfig(name="checking", samples_per_prompt=samples), groups)
    asked = prompts(count)
    answers = BatchRef.from_local(Batch(answer=np.array([f"q{row}" for row in range(count)], dtype=object)))
    rows = algorithm.rollout(asked.select_columns(["prompt_ids", "sample_id"]) | answers).get()
    proposals, checks = count * samples, count * samples * packages.checking.CHECKS
    assert len(rows) == proposals + checks
    rewards, tokens = rows.dense("rewards").tolist(), [row.tolist() for row in row_tokens(rows)]
    for check in range(checks):
        proposal, row = check // packages.checking.CHECKS, proposals + check
        assert rows.ragged("prompt_ids")[row].tolist() == tokens[proposal]
        assert rows.dense("answer")[row] == str(int(rewards[proposal])), "the verdict that is right"
        assert rewards[row] == float(str(rows.ragged("response_ids")[row][0]) == rows.dense("answer")[row])
    family = [row // samples for row in range(proposals)]
    family += [count + check // packages.checking.CHECKS for check in range(checks)]
    means = {one: statistics.mean(r for r, f in zip(rewards, family, strict=True) if f == one) for one in family}
    expected = [reward - means[one] for reward, one in zip(rewards, family, strict=True)]
    assert advantages_of(rows) == pytest.approx(expected, abs=1e-5)
    measured = context.metrics
    assert measured["checking/right"] == pytest.approx(statistics.mean(r == 1 for r in rewards[:proposals]))
    assert measured["checking/right_verdicts"] == pytest.approx(statistics.mean(rewards[proposals:]))


@pytest.mark.processes
@pytest.mark.ranks
def test_its_check_meets_all_expectations(meets: Meets) -> None:
    """Two steps of each on real engines: a tree, two roles of one policy, and two policies in the same processes."""
    flows = ["algorithm=checking", "algorithm=tree_grpo", "algorithm=two_policies"]
    assert [line for line in meets(PAGE) if line.startswith("algorithm")] == flows


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_tree_learns_to_add(forks: dict[str, str]) -> None:
    """From a start that is right on more than half of the sums, in 30 steps."""
    (command,) = (found for found in commands(PAGE, "hybridflow train") if "algorithm=tree_grpo" in found)
    length = ("trainer.steps=30", "trainer.validate_every=30", "trainer.stop_at_accuracy=null")
    with short_runs(forks) as runs:
        write_files(PAGE, runs.place)
        runs.run("sft", "addition_warmup", *WARM_UP)
        ran = runs.run("train", "tree", *command[2:], *ONE_RANK, *length, "trainer.validation_prompts=1000")
        before, after = (line["validation/accuracy"] for line in metrics_of(ran, "validation/accuracy"))
    assert after >= before + GAIN


@pytest.mark.processes
def test_its_commands_pass_every_check(tmp_path: Path, problems: Problems, tiny: Callable[..., Path]) -> None:
    write_files(PAGE, tmp_path)
    model = tiny(layers=2, hidden=64, heads=2, kv_heads=2)
    found = [[*command, f"actor.model.path={model}"] for command in commands(PAGE, "hybridflow train")]
    assert len(found) == 3
    found[-1] = [part.replace("runs/addition_warmup/model", str(model)) for part in found[-1]]
    assert problems(found) == [[]] * 3
