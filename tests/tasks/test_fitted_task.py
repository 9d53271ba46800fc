"""Rows that a run can take: what is too long, what is no token, and an order that does not depend on where a run is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from hybridflow.batch import Batch, Ragged
from hybridflow.config.schema import Malformed, TooLong
from hybridflow.errors import DataError
from hybridflow.tasks import Example, PreferenceTask, Prompts
from hybridflow.tasks.fitted_task import FittedTask, Limits
from hybridflow.tasks.row_order import Portion
from hybridflow.tasks.tokenizer import char_tokenizer
from hybridflow.tasks.vocabulary import Vocabulary, differences

DIGITS = "0123456789"
WAYS = {"train": "rows", "held_out": "rows"}


class Long(PreferenceTask):
    """Row i has a prompt of i % 10 + 1 digits, and an answer of i % 3 + 1."""

    grader = "exact"

    def __init__(self, tokenizer: Any = None, rows: int = 100) -> None:
        super().__init__(tokenizer or char_tokenizer(DIGITS))
        self.count = rows

    def size(self, split: str) -> int:
        return self.count

    def example(self, split: str, index: int) -> Example:
        return Example(DIGITS[: index % 10 + 1], "7" * (index % 3 + 1), index)

    def rejected(self, split: str, index: int) -> str:
        return "8" * (index % 5 + 1)


def build_fitted_task(
    too_long: str = "error", tokens: int = 12, response: int = 4, way: str = "rows", **more: Any
) -> FittedTask:
    """`Long`, where a prompt may have `tokens` - `response` tokens."""
    task = more.pop("task", None) or Long()
    return FittedTask(task, Limits(tokens, response, **more), TooLong(too_long), {**WAYS, "train": way})


def test_rows_that_fit_are_the_task_s_own() -> None:
    for too_long in TooLong:
        task = build_fitted_task(too_long, tokens=14)
        assert task.size("train") == 100 and task.look() == []
        assert task.rows("train", [5, 99]) == task.task.rows("train", [5, 99])


def test_a_prompt_that_leaves_no_room_names_its_row_and_what_to_do() -> None:
    task = build_fitted_task()
    assert len(task.rows("train", [0, 7])) == 2
    line = (
        r"row 19 of split 'train': its prompt of 10 tokens is too long: rollout.max_sequence_tokens less 4 for "
        r"rollout.max_response_tokens leaves 8; raise it, or set task.too_long to drop or truncate_left"
    )
    with pytest.raises(DataError, match=line):
        task.rows("train", [0, 19, 8])
    with pytest.raises(DataError, match="row 8 of split 'train'"):
        task.look()


@pytest.mark.parametrize("way", ["rows", "supervised", "preferences"])
def test_dropped_rows_are_counted_and_leave_an_order_of_seed_and_draw(way: str) -> None:
    task = build_fitted_task("drop", tokens=10, response=4, way=way)
    longest = {"rows": lambda i: 4, "supervised": lambda i: i % 3 + 2, "preferences": lambda i: max(i % 3, i % 5) + 2}
    stays = [i for i in range(100) if i % 10 + 1 + longest[way](i) <= 10]
    assert 0 < len(stays) < 100 and task.size("train") == len(stays)
    prompts = Prompts(task, "train", 8, seed=3)
    walked = [getattr(task, way)("train", prompts.at(draw)).dense("sample_id").tolist() for draw in range(40)]
    flat = [id for draw in walked for id in draw]
    assert sorted(flat[: len(stays)]) == stays and sorted(flat[len(stays) : 2 * len(stays)]) == stays
    again = build_fitted_task("drop", tokens=10, response=4, way=way)
    at_once = getattr(again, way)("train", Prompts(again, "train", 8, seed=3).at(31))
    assert at_once.dense("sample_id").tolist() == walked[31]
    assert f"task.too_long: {100 - len(stays)} of the 100 rows of train left out: longer than" in task.look()[0]
    assert [task.example("train", n).sample_id for n in range(3)] == stays[:3]


class Halves(Long):
    """`Long`, whose even and odd rows are two sources."""

    def portions(self, split: str) -> list[Portion]:
        return [Portion("even", np.arange(0, self.count, 2), 1), Portion("odd", np.arange(1, self.count, 2), 3)]


def test_portions_lose_the_rows_that_are_left_out() -> None:
    fitted = build_fitted_task("drop", tokens=8, task=Halves())  # prompts of 4 tokens stay
    for portion, parity in zip(fitted.portions("train"), (0, 1), strict=True):
        assert {fitted.example("train", int(row)).sample_id % 10 for row in portion.rows} == {parity, parity + 2}
    draw = fitted.rows("train", Prompts(fitted, "train", 40, seed=1).at(0)).dense("sample_id")
    assert (draw % 2 == 1).sum() == 30
    with pytest.raises(DataError, match="no row of the source 'odd' is left: each is too long"):
        build_fitted_task("drop", tokens=5, task=Halves()).portions("train")


def test_a_validation_takes_the_first_rows_that_are_left() -> None:
    task = build_fitted_task("drop", tokens=7)
    assert task.rows("held_out", [0, 3]).dense("sample_id").tolist() == [0, 10]
    with pytest.raises(IndexError, match="30 rows are left"):
        task.rows("held_out", [30])


def test_cut_prompts_keep_their_end_and_what_opens_them() -> None:
    task = build_fitted_task("truncate_left")
    assert task.size("train") == 100
    plain, cut = task.task.rows("train", [19, 7]), task.rows("train", [19, 7])
    assert cut.ragged("prompt_ids")[0].tolist() == plain.ragged("prompt_ids")[0].tolist()[-8:]
    assert cut.ragged("prompt_ids")[1].tolist() == plain.ragged("prompt_ids")[1].tolist()
    assert cut.columns == plain.columns and cut["answer"].tolist() == plain["answer"].tolist()
    assert task.look() == [
        f"task.too_long: 20 of the 100 rows of {split} cut on the left: longer than rollout.max_sequence_tokens "
        "less 4 for rollout.max_response_tokens"
        for split in WAYS
    ]
    opened = build_fitted_task("truncate_left", task=Long(build_tokenizer_with_bos()))
    (ids,) = opened.rows("train", [9]).ragged("prompt_ids")
    assert opened.task.encoder.opening == [ids[0]] and opened.tokenizer.decode(ids[1:]) == DIGITS[-7:]


def build_tokenizer_with_bos() -> PreTrainedTokenizerFast:
    """Digits, opened by <s>."""
    backend = char_tokenizer(DIGITS).backend_tokenizer
    backend.add_special_tokens(["<s>"])
    bos = backend.token_to_id("<s>")
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="<|endoftext|>")


def test_of_a_pair_the_longer_side_counts_and_a_prompt_is_cut_for_it() -> None:
    task = build_fitted_task("truncate_left", tokens=9, way="preferences")
    (row,) = [task.preferences("train", [19])]
    assert len(row.ragged("rejected_ids")[0]) == 6 and len(row.ragged("prompt_ids")[0]) == 3


def test_a_response_that_fills_a_sequence_cannot_be_helped_by_cutting() -> None:
    task = build_fitted_task("truncate_left", tokens=3, way="supervised")
    with pytest.raises(DataError, match=r"row 2 .*less 4 for its response leaves 0; raise it, or set .* to drop$"):
        task.supervised("train", [0, 2])


def test_a_split_without_rows_says_so() -> None:
    with pytest.raises(DataError, match="split 'held_out' is empty, and accuracy is measured on it: it has no rows"):
        build_fitted_task(task=Long(rows=0)).size("held_out")
    with pytest.raises(DataError, match="'train' is empty, and there is nothing to learn from: every row is too long"):
        build_fitted_task("drop", tokens=4).size("train")
    assert build_fitted_task(task=Long(rows=0)).size("warmup") == 0  # which this run does not use


@pytest.mark.parametrize("size", [-1, 3.0, "3", None])
@pytest.mark.parametrize("too_long", list(TooLong))
def test_a_size_that_is_no_number_of_rows_says_so(size: Any, too_long: str) -> None:
    with pytest.raises(DataError, match=r"^size\('train'\) gave .*; a whole number of rows was expected"):
        build_fitted_task(too_long, task=Long(rows=size)).look()


def test_a_size_may_be_numpys() -> None:
    task = build_fitted_task("truncate_left", task=Long(rows=np.int64(5)))  # type: ignore[arg-type]
    assert task.size("train") == 5 and task.look() == []


class OwnRows(Long):
    """Ids that no tokenizer gave."""

    def __init__(self, *ids: list[int]) -> None:
        super().__init__(rows=len(ids))
        self.ids, self.answers = ids, ["1"] * len(ids)

    def rows(self, split: str, indices: Any) -> Batch:
        return Batch(
            prompt_ids=Ragged.of([self.ids[n] for n in np.asarray(indices)], np.int64),
            answer=np.array([self.answers[n] for n in np.asarray(indices)], dtype=object),
            sample_id=np.asarray(indices),
        )


@pytest.mark.parametrize("strange", [12, 63, 64, 10**6, -1])
def test_an_id_outside_of_the_vocabulary_names_row_model_and_size(strange: int) -> None:
    """Also where the embedding is padded to 64 rows: nobody has trained those."""
    sees = [Vocabulary("models/actor", 64_000_000, "actor"), Vocabulary("models/critic", 12, "critic")]
    if strange < 0:
        sees = sees[1:]
    task = build_fitted_task(task=OwnRows([2, 3], [2, 11], [4, strange, 5]), vocabularies=sees)
    assert len(task.rows("train", [0, 1])) == 2
    line = rf"row 2 of split 'train': its prompt has the id {strange}, but the vocabulary of models/critic \(critic\)"
    with pytest.raises(DataError, match=line + " has 12 tokens, ids 0 to 11"):
        task.rows("train", [0, 2, 1])


@pytest.mark.parametrize(("way", "what"), [("supervised", "response"), ("preferences", "rejected response")])
def test_added_tokens_may_be_there_and_are_refused_by_name_where_they_are_used(
    way: str, what: str, tmp_path: Path
) -> None:
    tokenizer = char_tokenizer(DIGITS)
    tokenizer.add_tokens(["<extra>"])
    tokenizer.save_pretrained(tmp_path)
    task = Long(tokenizer)
    sees = [Vocabulary(str(tmp_path), 12, "actor")]
    fine = build_fitted_task(task=task, way=way, vocabularies=sees, tokens=99)
    assert len(getattr(fine, way)("train", [0, 1])) == 2

    class Uses(Long):
        def example(self, split: str, index: int) -> Example:
            given = super().example(split, index)
            return Example(given.prompt, "<extra>" if way == "supervised" else given.answer, index)

        def rejected(self, split: str, index: int) -> str:
            return "7<extra>"

    used = build_fitted_task(task=Uses(tokenizer), way=way, vocabularies=sees, tokens=99)
    with pytest.raises(DataError, match=rf"row 4 of split 'train': its {what} has the token '<extra>' \(id 12\), but"):
        getattr(used, way)("train", [4])


def test_an_answer_of_a_task_s_own_rows_is_looked_at_too() -> None:
    task = OwnRows([2], [3])
    assert len(build_fitted_task(task=task).rows("train", [0, 1])) == 2
    task.grader = "last_number"
    assert len(build_fitted_task(task=task).rows("train", [0, 1])) == 2
    task.answers = ["1", "blue"]
    with pytest.raises(DataError, match=r"row 1 of split 'train': .*'blue', a number was expected"):
        build_fitted_task(task=task).rows("train", [0, 1])


def test_own_rows_are_as_many_as_were_asked_for_and_of_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    floats = Batch(prompt_ids=Ragged.of([[2.0], [3.0]], np.float32), answer=np.array(["1", "1"], dtype=object))
    monkeypatch.setattr(OwnRows, "rows", lambda *_: floats)
    task = build_fitted_task(task=OwnRows([2], [3], [4]))
    with pytest.raises(DataError, match=r"split 'train': OwnRows.rows gave 2 rows for 3 row numbers; one for each"):
        task.rows("train", [0, 1, 2])
    with pytest.raises(DataError, match=r"prompt_ids of OwnRows.rows are float32; integers were expected"):
        task.rows("train", [0, 1])


def test_an_empty_prompt_of_a_task_s_own_rows_is_named() -> None:
    with pytest.raises(DataError, match="row 1 of split 'train': its prompt has no tokens"):
        build_fitted_task(task=OwnRows([2], [])).rows("train", [0, 1])


def test_tokenizers_are_compared_by_what_they_mean(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("one", "same", "more", "moved", "none")}
    char_tokenizer(DIGITS).save_pretrained(folders["one"])
    char_tokenizer(DIGITS, max_tokens=5).save_pretrained(folders["same"])
    longer = char_tokenizer(DIGITS)
    longer.add_tokens(["<think>"])
    longer.save_pretrained(folders["more"])
    char_tokenizer("1023456789").save_pretrained(folders["moved"])
    folders["none"].mkdir()
    assert differences(folders["one"], folders["same"]) == (None, {})
    assert differences(folders["one"], folders["more"]) == (None, {})
    assert differences(folders["more"], folders["one"]) == (None, {12: "'<think>' (id 12; there nothing)"})
    assert differences(folders["one"], folders["none"]) is None
    told = differences(folders["one"], folders["moved"])
    assert told == (f"id 2 is '0' in {folders['one']}, but '1' in {folders['moved']}", {})


def test_reserved_tokens_of_other_names_are_told_and_ordinary_ones_refused(tmp_path: Path) -> None:
    """As those of Llama 3 and 3.1, which few rows ever have."""
    for name, token in {"a": "<reserved>", "b": "<pad_id>"}.items():
        tokenizer = char_tokenizer(DIGITS)
        tokenizer.add_tokens([token, "<|eot_id|>"])
        tokenizer.save_pretrained(tmp_path / name)
    told = differences(tmp_path / "a", tmp_path / "b")
    assert told == (None, {12: "'<reserved>' (id 12; there '<pad_id>')"})
    char_tokenizer(DIGITS + "x").save_pretrained(tmp_path / "c")
    told = differences(tmp_path / "a", tmp_path / "c")
    assert (
        told is not None and told.ordinary == f"id 12 is '<reserved>' in {tmp_path / 'a'}, but 'x' in {tmp_path / 'c'}"
    )


def test_an_end_that_the_model_does_not_have_is_named() -> None:
    """As readers of a Qwen2 folder add one where it is missing."""
    tokenizer = char_tokenizer(DIGITS)
    tokenizer.add_special_tokens({"eos_token": "<|end|>"})
    task = build_fitted_task(
        task=Long(tokenizer), way="supervised", vocabularies=[Vocabulary("models/actor", 12, "actor")]
    )
    with pytest.raises(
        DataError, match=r"row 4 of split 'train': its response has the token '<\|end\|>' \(id 12\), but"
    ):
        task.supervised("train", [4])


class Broken(Long):
    """`Long`, but that every seventh row has no usable answer, and every eleventh is refused by `example` itself."""

    def example(self, split: str, index: int) -> Example:
        if index % 11 == 10:
            raise DataError(f"file.jsonl:{index}: no JSON", reason="no JSON")
        example = super().example(split, index)
        return Example(example.prompt, None, index) if index % 7 == 6 else example  # type: ignore[arg-type]


def build_broken(too_long: str = "error", malformed: str = "skip", tokens: int = 99, rows: int = 100) -> FittedTask:
    return FittedTask(Broken(rows=rows), Limits(tokens, 4), TooLong(too_long), WAYS, Malformed(malformed))


def test_malformed_rows_are_skipped_and_counted_by_reason() -> None:
    task = build_broken()
    stays = [row for row in range(100) if row % 7 != 6 and row % 11 != 10]
    assert task.size("train") == len(stays)
    assert task.rows("train", np.arange(len(stays)))["sample_id"].tolist() == stays
    lines = [line for line in task.look() if " train " in line]
    assert lines == [
        "task.malformed: 13 of the 100 rows of train skipped: cannot be used as it is; the first: row 6 of split "
        "'train': the answer is None, of type NoneType; a text or a finite number was expected",
        "task.malformed: 9 of the 100 rows of train skipped: no JSON; the first: file.jsonl:10: no JSON",
    ]


def test_malformed_and_long_rows_are_left_out_together() -> None:
    task = build_broken("drop", tokens=12)
    stays = [row for row in range(100) if row % 7 != 6 and row % 11 != 10 and row % 10 + 1 <= 8]
    assert task.rows("train", np.arange(task.size("train")))["sample_id"].tolist() == stays
    assert [line.partition(":")[0] for line in task.look()] == [*["task.malformed"] * 2, "task.too_long"] * 2


def test_with_malformed_skipped_a_row_too_long_is_still_an_error_wherever_it_is() -> None:
    with pytest.raises(DataError, match="row 8 of split 'train': its prompt of 9 tokens is too long"):
        build_broken(tokens=12).look()


def test_a_malformed_row_is_an_error_unless_it_is_to_be_skipped() -> None:
    for too_long in TooLong:
        with pytest.raises(DataError, match=r"row 6 of split 'train'|file.jsonl:10"):
            build_broken(too_long, "error").look()


def test_a_split_of_malformed_rows_alone_says_why_it_is_empty() -> None:
    class Nothing(Long):
        def example(self, split: str, index: int) -> Example:
            raise DataError(f"line {index}: no JSON")

    task = FittedTask(Nothing(rows=3), Limits(99, 4), TooLong.error, WAYS, Malformed.skip)
    with pytest.raises(
        DataError, match=r"split .train. is empty.* 3 of 3 rows are malformed; the first: line 0: no JSON"
    ):
        task.look()


def test_a_row_that_a_task_suspects_is_looked_at_before_the_start() -> None:
    class Suspicious(Broken):
        def suspects(self, split: str) -> list[int]:
            return [4003]

        def example(self, split: str, index: int) -> Example:
            if index == 4003:
                raise DataError("line 4003: no JSON")
            return Long.example(self, split, index)

    with pytest.raises(DataError, match="line 4003"):
        FittedTask(Suspicious(rows=5000), Limits(99, 4), TooLong.error, WAYS).look()
