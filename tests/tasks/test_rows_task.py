"""Task `rows`: files of the user's own as examples, held out by question; and what is told of what is not right."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridflow.config.schema import Malformed, TooLong
from hybridflow.conformance.task_checks import any_text_tokenizer
from hybridflow.errors import ConfigError, DataError
from hybridflow.tasks import build, reasoning_gym_task
from hybridflow.tasks.chat_hint import HINT
from hybridflow.tasks.code_grader import row_tests
from hybridflow.tasks.fitted_task import FittedTask, Limits
from hybridflow.tasks.rows_task import RowsTask
from hybridflow.tasks.text_graders import JsonSchemaGrader
from hybridflow.trainer.task_rows import rows_changed
from tests.tasks.written_rows import WRITERS, lines, write_jsonl, write_parquet, write_saved

TOKENIZER = any_text_tokenizer()
GSM8K = [
    {"question": f"What is {n}+{n}?", "answer": f"It is twice {n}.\n#### {2 * n}", "level": n % 3} for n in range(40)
]
QA = [{"question": f"{n}?", "answer": str(n)} for n in range(20)]
CHECKS: dict[str, Callable[[Mapping[str, Any]], object]] = {  # of graders that are made without their sandboxes
    "json_schema": JsonSchemaGrader().check_metadata,
    "reasoning_gym": reasoning_gym_task._asked,
    "code_tests": lambda metadata: row_tests(metadata, "tests"),
}
GRADED = {"train": "rows", "held_out": "rows"}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def build_rows(path: Path | str | Sequence[str], **options: Any) -> RowsTask:
    task = build("rows", TOKENIZER, {"path": str(path) if isinstance(path, Path) else path, **options})
    assert isinstance(task, RowsTask)
    return task


def asked(task: RowsTask, split: str) -> list[Any]:
    return [task.example(split, index).prompt for index in range(task.size(split))]


def fitted(task: RowsTask, malformed: str = "error", ways: Mapping[str, str] = GRADED) -> FittedTask:
    """The task as a run has it."""
    return FittedTask(task, Limits(999, 4), TooLong.error, ways, Malformed(malformed))


def test_gsm8k_rows_are_graded_by_their_answer_and_taught_their_solution(tmp_path: Path) -> None:
    task = build_rows(write_jsonl(tmp_path, GSM8K), held_out_fraction=0.1)
    example = task.example("train", 0)
    number = next(n for n in range(40) if f"What is {n}+{n}?" == example.prompt)
    assert example.answer == str(2 * number) and example.metadata == {"level": number % 3}
    [response] = task.supervised("warmup", [0]).ragged("response_ids")
    assert TOKENIZER.decode(response[:-1]) == GSM8K[number]["answer"]


def test_pairs_have_both_sides(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}?", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(9)]
    task = build_rows(write_jsonl(tmp_path, rows), held_out_fraction=0.2)
    batch = task.preferences("train", [0])
    [chosen, rejected] = [TOKENIZER.decode(batch.ragged(side)[0][:-1]) for side in ("response_ids", "rejected_ids")]
    assert chosen.removeprefix("yes ") == rejected.removeprefix("no ") == str(task.example("train", 0).prompt)[:-1]


def test_rows_without_a_rejected_response_are_no_pairs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows.jsonl:\d+: the row has no rejected response; pairs were expected"):
        fitted(build_rows(write_jsonl(tmp_path, QA)), ways={"train": "preferences", "held_out": "rows"}).look()


def test_prompts_alone_can_be_answered_but_not_taught(tmp_path: Path) -> None:
    task = build_rows(write_jsonl(tmp_path, [{"prompt": f"{n}?"} for n in range(9)]))
    assert task.rows("train", [0])["answer"].tolist() == [""]
    with pytest.raises(DataError, match="the row has no answer to teach; name its column"):
        task.supervised("warmup", [0])


def test_examples_are_the_same_whatever_the_rows_are_written_in(tmp_path: Path) -> None:
    tasks = {way: build_rows(write(tmp_path, GSM8K), held_out_fraction=0.2) for way, write in WRITERS.items()}
    examples = {
        way: [task.example(split, i) for split in ("train", "held_out") for i in range(task.size(split))]
        for way, task in tasks.items()
    }
    assert all(found == examples["jsonl"] for found in examples.values())
    assert len(examples["jsonl"]) == 40 and len({task.fingerprint for task in tasks.values()}) == 1


@given(order=st.permutations(range(30)), copies=st.integers(1, 3), fraction=st.floats(0.05, 0.9))
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_questions_are_held_out_whatever_their_order_and_all_copies_together(
    order: list[int], copies: int, fraction: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = [{"question": f"{n}?", "answer": str(copy)} for copy in range(copies) for n in order]
    task = build_rows(write_jsonl(tmp_path_factory.mktemp("rows"), rows), held_out_fraction=fraction)
    held_out = asked(task, "held_out")
    assert not set(held_out) & set(asked(task, "train")) and task.size("train") + len(held_out) == len(rows)
    plain = write_jsonl(tmp_path_factory.mktemp("rows"), [{"question": f"{n}?", "answer": "0"} for n in range(30)])
    other = build_rows(plain, held_out_fraction=fraction)
    assert list(dict.fromkeys(held_out)) == asked(other, "held_out")


def test_the_share_that_is_held_out_is_the_one_asked_for(tmp_path: Path) -> None:
    rows = [{"question": f"{n}?", "answer": "0"} for n in range(4000)]
    assert 0.22 < build_rows(write_jsonl(tmp_path, rows), held_out_fraction=0.25).size("held_out") / 4000 < 0.28


def test_a_file_of_its_own_is_held_out_and_what_it_asks_is_not_trained_on(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(lines(QA))
    (tmp_path / "test.jsonl").write_bytes(lines([*QA[:3], {"question": "new?", "answer": "1"}]))
    task = build_rows(tmp_path / "train.jsonl", held_out_path=str(tmp_path / "test.jsonl"))
    assert sorted(asked(task, "held_out")) == ["0?", "1?", "2?", "new?"]
    assert asked(task, "train") == asked(task, "warmup") == [f"{n}?" for n in range(3, 20)]
    assert "task rows: 3 rows are left out of train: held_out asks the same" in task.notes()


def test_what_is_only_measured_on_needs_no_other_rows(tmp_path: Path) -> None:
    task = build_rows(None, held_out_path=str(write_jsonl(tmp_path, QA)))  # type: ignore[arg-type]
    assert len(asked(task, "held_out")) == 20 and task.size("train") == 0
    assert len(FittedTask(task, Limits(999, 4), TooLong.error, {"held_out": "rows"}).look()) == 3
    with pytest.raises(DataError, match="split 'train' is empty, and there is nothing to learn from"):
        fitted(task).look()


def test_rows_that_are_all_held_out_leave_nothing_to_learn_from(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path, QA)
    with pytest.raises(ConfigError, match=r"rows.jsonl is left to learn from: 20 are held out, and 20 ask the same"):
        build_rows(file, held_out_path=str(file))
    with pytest.raises(ConfigError, match=r"is left to learn from: 1 are held out, and 0 ask the same"):
        build_rows(write_jsonl(tmp_path, QA[:1]))


def test_splits_of_a_saved_dataset_and_of_a_folder_s_files(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    parts = {"train": QA[:12], "validation": QA[12:15], "test": QA[15:]}
    DatasetDict({name: Dataset.from_list(rows) for name, rows in parts.items()}).save_to_disk(tmp_path / "saved")
    (tmp_path / "files" / "main").mkdir(parents=True)
    for name, rows in parts.items():
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "files" / "main" / f"{name}-00000-of-00001.parquet")
    for folder in ("saved", "files"):
        task = build_rows(tmp_path / folder)
        assert asked(task, "train") == [row["question"] for row in parts["train"]]
        assert sorted(asked(task, "held_out")) == ["12?", "13?", "14?"]
        assert sorted(asked(build_rows(tmp_path / folder, held_out_split="test"), "held_out"))[0] == "15?"
        tested = build_rows(tmp_path / folder, split="test", held_out_fraction=0.4)
        assert sorted(asked(tested, "train") + asked(tested, "held_out")) == [f"{n}?" for n in range(15, 20)]
        with pytest.raises(ConfigError, match=r"no split 'dev'; there are .*train"):
            build_rows(tmp_path / folder, split="dev")


def test_what_is_read_is_told(tmp_path: Path) -> None:
    rows = [{**row, "image": b"\x00"} for row in [*QA, QA[5]]]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    task = build_rows(tmp_path / "rows.parquet", held_out_fraction=0.1)
    first, second, *others, hint = fitted(task).look()
    assert hint == HINT
    held_out = task.size("held_out")
    assert first == (
        f"task rows: {tmp_path}/rows.parquet: {21 - held_out} rows to learn from, {held_out} held out: "
        f"{held_out / 21:.1%} of its rows, those of 0.1 of its questions, chosen by their hashes"
    )
    assert second == "task.options.format: qa (question, answer)"
    assert others[-1] == "task rows: the columns image are bytes, which rows do not carry along"
    few = f"an accuracy on {held_out} of them says little; task.options.held_out_fraction holds out more"
    assert others[0] == f"task rows: {few}"
    assert others[1] == "task rows: 1 rows of train ask what a row before them asks" or len(others) == 2


def test_rows_carry_their_columns_from_the_first_batch_on(tmp_path: Path) -> None:
    rows = [*QA, {"question": "20?", "answer": "20", "note": "late"}]
    task = build_rows(write_jsonl(tmp_path, rows), held_out_fraction=0.1)
    assert task.rows("train", [0])["metadata"].tolist() == ["{}"] and task.rows("train", []).columns[-1] == "metadata"


def test_the_fingerprint_sees_what_rows_say_and_nothing_else(tmp_path: Path) -> None:
    before = build_rows(write_jsonl(tmp_path, QA))
    os.utime(tmp_path / "rows.jsonl", (1, 1))
    assert not rows_changed(before.fingerprint, fitted(build_rows(tmp_path / "rows.jsonl")))
    (tmp_path / "rows.jsonl").write_bytes(lines([*QA[:7], {**QA[7], "answer": "other"}, *QA[8:]]))
    assert rows_changed(before.fingerprint, fitted(build_rows(tmp_path / "rows.jsonl")))
    assert not rows_changed("", before)


def test_a_template_alone_leaves_the_rest_to_the_format(tmp_path: Path) -> None:
    task = build_rows(write_jsonl(tmp_path, GSM8K), prompt_template="Q: {question} A:")
    example = task.example("train", 3)
    assert str(example.prompt).startswith("Q: What is") and example.answer.isdigit() and example.response
    own = write_parquet(tmp_path, [{"problem": f"{n}?", "level": n} for n in range(9)])
    task = build_rows(own, prompt_template="{problem}!")
    assert task.example("train", 0).prompt.endswith("?!") and not task.example("train", 0).answer
    assert "task rows: 9 rows have no answer: a grader that compares finds nothing right" in task.notes()


@pytest.mark.parametrize("row", [{"prompt": "1?", "solution": "1"}, {"problem": "1?", "Target": "1"}])
def test_an_answer_that_nobody_takes_is_no_prompt_alone(row: dict[str, str], tmp_path: Path) -> None:
    [prompt, answer] = row
    file = write_jsonl(tmp_path, [{**row, prompt: f"{n}?"} for n in range(9)])
    own = {"prompt": prompt} if prompt == "problem" else {}
    said = f"reads no answer, but there is a column '{answer}'; take it .*columns.answer={answer}"
    with pytest.raises(ConfigError, match=said):
        build_rows(file, columns=own)
    assert build_rows(file, columns={"prompt": prompt, "answer": answer}).example("train", 0).answer == "1"
    if prompt == "prompt":
        assert build_rows(file, format="trl").example("train", 0).answer == ""


DEEP = b'{"question": "1?", "answer": "1", "x": %b0%b}' % (b"[" * 101, b"]" * 101)
BAD_LINES = {
    b'{"question": "\xff", "answer": "1"}': ("byte 15 of the row is not UTF-8", "not UTF-8"),
    b'{"question": "1?", "answer": NaN}': ("column 'answer' is NaN, infinite or too large", "NaN or Infinity"),
    b'{"question": "1?", "answer": "1", "x": {"a": [0, -Infinity]}}': ("column 'x.a.1' is NaN", "NaN or Infinity"),
    b'{"question": "1?", "answer": 1e999}': ("column 'answer' is NaN, infinite", "NaN or Infinity"),
    b'{"question": "1?"}': ("column 'answer' is missing; the row has question", "column 'answer' is missing"),
    b'{"question": "1?", "answer": {"a": 1}}': ("column 'answer' is {'a': 1}, an object", "column 'answer' is no text"),
    b'{"question": "1?", "answer": "1", "answer": "2"}': ("column 'answer' is there 2 times", "duplicate keys"),
    b'{"question": "1?" "answer": "1"}': ("not JSON at character 19: Expecting ',' delimiter", "not JSON"),
    b'["1?", "1"]': (r"\['1\?', '1'\] is no JSON object", "no JSON object"),
    b"[" * 100_000: ("not readable as JSON", "not JSON"),
    DEEP: ("column 'x' is nested deeper than 100 levels", "nested too deep"),
}  # fmt: skip


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: line[:60].decode(errors="replace"))
def test_a_malformed_row_names_file_line_and_column_or_is_skipped(line: bytes, tmp_path: Path) -> None:
    said, reason = BAD_LINES[line]
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + lines(QA[:7], "\r\n") + line + b"\r\n" + lines(QA[7:], "\r\n"))
    task = build_rows(file, held_out_fraction=0.3)
    with pytest.raises(DataError, match=f"rows.jsonl:8: .*{said}"):
        fitted(task).look()
    skipping = fitted(task, "skip")
    told = [note for note in skipping.look() if note.startswith("task.malformed")]
    assert len(told) == 1 and told[0].startswith("task.malformed: 1 of the ") and f"skipped: {reason}" in told[0]
    assert skipping.size("train") + skipping.size("held_out") == 20
    assert {skipping.rows("train", [i])["answer"][0] for i in range(skipping.size("train"))} <= set(map(str, range(20)))


def test_a_malformed_row_far_behind_the_first_is_told_before_the_start(tmp_path: Path) -> None:
    rows = [{"question": f"{n}?", "answer": "0"} for n in range(3000)]
    (tmp_path / "rows.jsonl").write_bytes(lines(rows) + b'{"question": "?", "answer": "cut sh')
    with pytest.raises(DataError, match=r"rows.jsonl:3001: not JSON .*: Unterminated string .*it was cut short"):
        fitted(build_rows(tmp_path / "rows.jsonl", held_out_path=str(write_parquet(tmp_path, QA)))).look()


def test_a_malformed_row_of_a_table_names_its_number(tmp_path: Path) -> None:
    pq.write_table(pa.table({"question": ["0?", None, "2?"], "answer": ["0", "1", "2"]}), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"rows.parquet: row 1: column 'question' is null; a text or a list of chat"):
        fitted(build_rows(tmp_path / "rows.parquet")).look()


def test_a_value_that_python_cannot_have_names_its_row_and_column(tmp_path: Path) -> None:
    text = pa.array([b"\xed\xa0\x80"], pa.binary()).view(pa.string())
    when = pa.array([2**52], pa.timestamp("s"))
    for name, column, said in (("note", text, "is not UTF-8"), ("when", when, r"timestamp\[ms\], cannot be read")):
        pq.write_table(pa.table({"question": ["0?"], "answer": ["0"], name: column}), tmp_path / f"{name}.parquet")
        with pytest.raises(
            ConfigError, match=rf"no row can be read: .*{name}.parquet: row 0: column '{name}'.* {said}"
        ):
            build_rows(tmp_path / f"{name}.parquet")


def test_what_is_found_when_a_row_is_encoded_names_its_line_too(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path, [*QA, {"question": "", "answer": "1"}])
    with pytest.raises(DataError, match=r"rows.jsonl:21 \(row 18 of split 'train'\): .* has no tokens"):
        fitted(build_rows(file, held_out_path=str(write_parquet(tmp_path, QA[:2])))).look()


def _empty_folder(folder: Path) -> Path:
    (folder / "empty").mkdir()
    (folder / "empty" / "README.md").write_text("nothing")
    return folder / "empty"


def _mixed(folder: Path) -> Path:
    write_parquet(folder, QA)
    return write_jsonl(folder, QA).parent


def _named_and_not(folder: Path) -> Path:
    (folder / "train.jsonl").write_bytes(lines(QA))
    (folder / "more.jsonl").write_bytes(lines(QA))
    return folder


def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "rows.jsonl")
    return folder / "rows.jsonl"


def _splits(folder: Path) -> Path:
    (folder / "dataset_dict.json").write_text("[1]")
    return folder


def _twice(folder: Path) -> Path:
    columns = [pa.array(["1"])] * 3
    pq.write_table(pa.Table.from_arrays(columns, ["question", "question", "answer"]), folder / "rows.parquet")
    return folder / "rows.parquet"


def _file(name: str, data: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return write


PACKED = lines(GSM8K * 50)
BAD_FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "absent": (lambda folder: folder / "absent.jsonl", r"there is no file or folder .*absent.jsonl"),
    "glob": (lambda folder: folder / "part-*.jsonl", r"part-\*.jsonl matches no file"),
    "folder": (_empty_folder, r"empty has no files of rows; their names end in .jsonl"),
    "mixed": (_mixed, r"files of several formats: JSON \(rows.jsonl\) and parquet \(rows.parquet\)"),
    "half named": (_named_and_not, r"train.jsonl is named after a split and more.jsonl is not"),
    "empty": (_file("rows.jsonl", b""), r"rows.jsonl is empty \(0 bytes\)"),
    "blank": (_file("rows.jsonl", b"\n \n"), "rows.jsonl has no rows"),
    "table": (_file("rows.csv", b"a"), r"pandas.read_csv\('rows.csv'\).to_json\('rows.jsonl', orient='records'"),
    "ending": (_file("rows.txt", b"{}"), r"rows.txt: its name ends in '.txt'; a file of rows ends in .jsonl"),
    "utf-16": (_file("rows.jsonl", '{"a": 1}'.encode("utf-16")), "is UTF-16; UTF-8 was expected"),
    "pointer": (_file("a.jsonl", b"version https://git-lfs.github.com/spec/v1\n"), "is a pointer of Git LFS"),
    "gzip cut": (_file("a.jsonl.gz", gzip.compress(PACKED)[:-100]), "a.jsonl.gz ends too early: it was cut short"),
    "gzip none": (_file("a.jsonl.gz", PACKED), "a.jsonl.gz is no gzip file"),
    "zstd cut": (_file("a.jsonl.zst", zstandard.compress(PACKED)[:-9]), "a.jsonl.zst ends too early: it was cut short"),
    "zstd none": (_file("a.jsonl.zst", PACKED), "a.jsonl.zst is no zstd file"),
    "array cut": (
        _file("a.json", json.dumps(QA).encode()[:-9]),
        "a.json: element 20 of its array: .* it was cut short",
    ),
    "array cut after": (_file("a.json", json.dumps(QA).encode()[:-1]), "a.json ends within its array"),
    "array broken": (_file("a.json", b'[{"a": }]'), "element 1 of its array: not JSON: Expecting value$"),
    "pipe": (_pipe, "rows.jsonl is no file: a file was expected"),
    "splits": (_splits, "dataset_dict.json: an object was expected"),
    "column twice": (_twice, "rows.parquet: column 'question' is there 2 times; once was expected"),
    "array twice": (_file("a.json", b'[{"a": 1}][{"a": 2}]'), "a.json has more after its array"),
    "array comma": (_file("a.json", b'[{"a": 1} {"a": 2}]'), "element 1 of its array: not JSON: a comma or the end"),
    "parquet": (_file("a.parquet", PACKED), "a.parquet is not readable as Parquet"),
    "parquet empty": (_file("a.parquet", b""), r"a.parquet is empty \(0 bytes\)"),
    "arrow": (_file("a.arrow", PACKED), "a.arrow: not readable as Arrow"),
    "format": (_file("a.jsonl", b'{"text": "x"}'), r"format: the columns text fit no format; .*a.jsonl:1\)"),
    "all broken": (
        _file("a.jsonl", b"{\n{"),
        "no row can be read: .*a.jsonl:1: not JSON .*; a file has an object a line",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_files_that_are_not_right_are_one_error_that_names_them(name: str, tmp_path: Path) -> None:
    write, said = BAD_FILES[name]
    with pytest.raises(ConfigError, match=f"^task.options: .*{said}"):
        build_rows(write(tmp_path))


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_jsonl(tmp_path, QA)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    with pytest.raises(ConfigError, match=r"rows.jsonl: Permission denied"):
        build_rows(file)


@pytest.mark.parametrize("way", ["gzip", "zstd", "parquet", "array"])
def test_a_file_that_may_not_be_unpacked_is_named_and_not_the_folder_of_what_is(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = WRITERS[way](tmp_path, QA)
    opened = Path.open

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
        if path == file:
            raise PermissionError(13, "Permission denied", str(file))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ConfigError, match=f"{file.name}: Permission denied$"):
        build_rows(file)


def test_a_folder_that_cannot_be_unpacked_into_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "taken"))
    with pytest.raises(
        ConfigError, match=r"rows.parquet is unpacked into .*taken/hybridflow/rows, which failed: Not a dir"
    ):
        build_rows(write_parquet(tmp_path, QA))


def test_a_dataset_with_a_missing_file_is_named(tmp_path: Path) -> None:
    folder = write_saved(tmp_path, QA)
    next(folder.glob("*.arrow")).unlink()
    with pytest.raises(ConfigError, match=r"data-00000-of-00002.arrow is not there, but .*state.json names it"):
        build_rows(folder)


def test_a_hub_id_without_a_network_says_which_folder_to_make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=r"hf download nobody/nothing --revision v1 .*--local-dir data/nothing`"):
        build_rows("nobody/nothing", revision="v1")


OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"path": None}, "path: must be given"),
    ({"path": 3}, "path: 3 given; a path was expected, or a list of them"),
    ({"path": []}, "path: .* given; a path was expected"),
    ({"format": "csv"}, "format: 'csv' is not known; one of auto, verl, trl"),
    ({"columns": {"question": "q"}}, "columns: there is no 'question'; a row has prompt, answer"),
    ({"columns": {"prompt": 3}}, "columns.prompt: 3 given; a text was expected"),
    ({"prompt_template": "{question"}, r"prompt_template: '\{question' has a \{ alone at character 1"),
    ({"held_out_fraction": 1.0}, "held_out_fraction: 1.0 given, more than 0 and less than 1, or null expected"),
    ({"held_out_fraction": 0.1, "held_out_path": "x"}, "more than one is given; give one"),
    ({"held_out_split": "test"}, "held_out_split: there is no other split 'test'; there are none"),
]


@pytest.mark.parametrize(("options", "said"), OPTIONS)
def test_options_that_cannot_be_are_named(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        build_rows(**{"path": str(write_jsonl(tmp_path, QA)), **options})


@pytest.mark.parametrize(
    ("grader", "row", "said"),
    [
        ("json_schema", {}, "metadata has no 'schema'"),
        ("json_schema", {"schema": {"$ref": "#"}}, "refers to itself without end"),
        ("reasoning_gym", {}, "needs rows of task=reasoning_gym"),
        ("code_tests", {}, "'tests' of the row's metadata is None; a list of tests was expected"),
        ("code_tests", {"tests": ["assert add("]}, "test 0 in 'tests' of the row's metadata is no Python"),
    ],
)
def test_a_row_that_its_grader_could_not_grade_is_told_before_the_start(
    grader: str, row: dict[str, Any], said: str, tmp_path: Path
) -> None:
    right = {"schema": {"type": "object"}, "tests": ["assert True"], "reasoning_gym": {"index": 1}}
    file = write_jsonl(tmp_path, [*({**one, **right} for one in QA), {"question": "!", "answer": "1", **row}])
    options = {"path": str(file), "held_out_path": str(write_parquet(tmp_path, [{**QA[0], **right}]))}
    task = build("rows", TOKENIZER, options, metadata_checks=lambda source: [CHECKS[grader]])
    with pytest.raises(DataError, match=rf"rows.jsonl:21 \(row .*\): .*{said}"):
        fitted(task).look()  # type: ignore[arg-type]
    assert any("skipped" in line for line in fitted(task, "skip").look())  # type: ignore[arg-type]
