"""Task `rows`: prompts and answers from files of the user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

from hybridflow.bounds import Bounds
from hybridflow.errors import DataError, shown
from hybridflow.tasks import row_paths
from hybridflow.tasks.open_rows import open_rows
from hybridflow.tasks.preference_task import PreferenceTask
from hybridflow.tasks.question_index import index_questions, question_hash
from hybridflow.tasks.row_fields import check_template
from hybridflow.tasks.row_files import RowFile, Rows
from hybridflow.tasks.row_formats import NAMES, OWN, Format, Mapper, Question, check_answered, detect
from hybridflow.tasks.strict_json import RowError
from hybridflow.tasks.task import Example, tasks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HeldOut = Annotated[float | None, Bounds(more_than=0, less_than=1)]
FEW = 20  # questions on which an accuracy is hardly a number
HELD_OUT_FRACTION = 0.05  # of the questions, where nothing says what is held out


@tasks.register("rows")
class RowsTask(PreferenceTask):
    """Rows of files: JSON lines, Parquet, datasets saved on disk, hub ids; see docs/data.md.

    `train` has the rows in the order of the files, `warmup` the same. `held_out` has whole questions, in the order of
    their hashes, so that its first rows are a fair sample; what it asks is left out of `train`.

    Args:
        path: a file, a glob, a folder, or a list of them; or the id of a dataset on the hub.
        held_out_path: the same, of rows to measure on. Alone it is enough where nothing is learned.
        held_out_fraction: of the questions in `path`, those to measure on, chosen by the hash of the prompt.
        split, held_out_split: splits of a dataset that has several.
        config: the configuration of a dataset that has several.
        revision: of a dataset on the hub.
        format: the format of the rows, or `auto`: found by the columns of the first.
        columns: a column's name, or its path inside of others, by what it is.
        prompt_template: a text with `{column}`s that makes the prompt.

    Raises ValueError for what is not there, or rows whose format is not clear.
    """

    grader = "exact"
    is_local = True

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        path: str | Sequence[str] | None = None,
        held_out_path: str | Sequence[str] | None = None,
        held_out_fraction: HeldOut = None,
        split: str | None = None,
        held_out_split: str | None = None,
        config: str | None = None,
        revision: str | None = None,
        format: str = "auto",
        columns: Mapping[str, str | None] | None = None,
        prompt_template: str | None = None,
    ) -> None:
        super().__init__(tokenizer)
        _check_paths(path=path, held_out_path=held_out_path)
        _check_texts(split=split, held_out_split=held_out_split, config=config, revision=revision, format=format)
        _check_texts(prompt_template=prompt_template, **{f"columns.{name}": v for name, v in (columns or {}).items()})
        if sum(map(bool, (held_out_path, held_out_fraction, held_out_split))) > 1:
            raise ValueError("held_out_path, held_out_fraction, held_out_split: more than one is given; give one")
        self._path = path
        self._fraction = held_out_fraction or HELD_OUT_FRACTION
        splits = open_rows("path", path, config, revision) if path else {"train": ()}
        train = row_paths.train_split(splits, split or "")
        if held_out_path:
            self._measured = f"the rows of {held_out_path}"
            measured = _measured_on(held_out_path)
        else:
            name = "" if held_out_fraction else row_paths.held_out_split(splits, held_out_split or "", train)
            measured = splits[name] if name else ()
            self._measured = f"its split {name}" if measured else ""
        self._rows = Rows([*splits[train], *measured])
        if not len(self._rows):
            raise ValueError(f"path: {path or held_out_path} has no rows")
        given = {name: column for name, column in (columns or {}).items() if column}
        self.mapper = self._mapper(format, given, prompt_template or "")
        first_measured = sum(map(len, splits[train])) if measured else None
        self.index = index_questions(self._rows, self.mapper, first_measured, self._fraction)
        if path and not self.size("train"):
            raise ValueError(
                f"path: no row of {path} is left to learn from: {self.size('held_out')} are held out, and "
                f"{self.index.shared} ask the same"
            )
        self.carries = self.index.carries
        self.source_names = self.index.source_names
        self.question_hashes = self.index.hashes
        self.fingerprint = self.index.fingerprint

    def size(self, split: str) -> int:
        return len(self.index.numbers[split])

    def example(self, split: str, index: int) -> Example:
        number = int(self.index.numbers[split][index])
        question, metadata, source, id = self._read(number)
        if split == "warmup" and question.answer is None and question.response is None:
            raise DataError(
                f"{self._rows.place(number)}: the row has no answer to teach; name its column: "
                "task.options.columns.answer",
                reason="no answer to teach",
            )
        answer = "" if question.answer is None else question.answer
        sample_id = id if id is not None else f"{question_hash(question):016x}"
        return Example(question.prompt, answer, sample_id, metadata, source, question.response)

    def rejected(self, split: str, index: int) -> str:
        number = int(self.index.numbers[split][index])
        question = self._read(number)[0]
        if question.rejected is None:
            raise DataError(
                f"{self._rows.place(number)}: the row has no rejected response; pairs were expected, such as columns "
                "prompt, chosen, rejected",
                reason="no rejected response",
            )
        return question.rejected

    def notes(self) -> Sequence[str]:
        rows = {split: len(numbers) for split, numbers in self.index.numbers.items()}
        learned = f"{self._path}: {rows['train']} rows to learn from, " if self._path else ""
        lines = [
            f"task rows: {learned}{rows['held_out']} held out: {self._measured or self._chosen_by_hash()}",
            f"task.options.format: {self.mapper}",
        ]
        if not self._measured and rows["held_out"] < FEW:
            lines.append(
                f"task rows: an accuracy on {rows['held_out']} of them says little; task.options.held_out_fraction "
                "holds out more"
            )
        if self.index.shared:
            lines.append(f"task rows: {self.index.shared} rows are left out of train: held_out asks the same")
        if self.index.repeated:
            lines.append(f"task rows: {self.index.repeated} rows of train ask what a row before them asks")
        if self.index.unanswered:
            lines.append(
                f"task rows: {self.index.unanswered} rows have no answer: a grader that compares finds nothing right"
            )
        left_out = sorted({name for file in self._rows.files for name in file.left_out})
        if left_out:
            lines.append(f"task rows: the columns {', '.join(left_out)} are bytes, which rows do not carry along")
        return lines

    def row_place(self, split: str, index: int) -> str:
        place = self._rows.place(int(self.index.numbers[split][index]))
        return f"{place} ({super().row_place(split, index)})"

    def _chosen_by_hash(self) -> str:
        """Say what share of the rows a share of the questions has come to."""
        share = self.size("held_out") / (self.size("train") + self.size("held_out"))
        return f"{share:.1%} of its rows, those of {self._fraction:.3g} of its questions, chosen by their hashes"

    def suspects(self, split: str) -> Sequence[int]:
        return self.index.suspects[split]

    def raw_row(self, split: str, index: int) -> Mapping[str, Any]:
        number = int(self.index.numbers[split][index])
        try:
            return self._rows.row(number)
        except RowError as fault:
            raise DataError(f"{self._rows.place(number)}: {fault}", reason=fault.reason) from fault

    def rows_origin(self) -> str:
        shared = self.index.shared
        left_out = f"; {shared} rows are left out of train, as held_out asks the same" if shared else ""
        return f"rows {'in the format' if self.mapper.form else 'with'} {self.mapper}{left_out}"

    def _read(self, number: int) -> tuple[Question, dict[str, Any], str, Any]:
        try:
            return self.mapper.read(self._rows.row(number))
        except RowError as fault:
            raise DataError(f"{self._rows.place(number)}: {fault}", reason=fault.reason) from fault

    def _mapper(self, format: str, columns: Mapping[str, str], template: str) -> Mapper:
        unknown = [name for name in columns if name not in OWN]
        if unknown:
            raise ValueError(f"columns: there is no {unknown[0]!r}; a row has {', '.join(OWN)}")
        check_template(template)
        if format not in ("auto", *NAMES):
            raise ValueError(f"format: {format!r} is not known; one of auto, {', '.join(NAMES)} was expected")
        asks = bool(template or columns.get("prompt"))
        if format == "auto" and asks and (columns.get("answer") or columns.get("chosen")):
            return Mapper(None, columns, template)  # which say all
        number, row = self._first_sound()
        try:
            mapper = Mapper(_format(row, format, optional=asks), columns, template)
            if format == "auto":
                with suppress(RowError):  # this row is not right, which says nothing of the others
                    check_answered(mapper, row)
        except ValueError as error:
            raise ValueError(f"{error} ({self._rows.place(number)})") from error
        return mapper

    def _first_sound(self) -> tuple[int, dict[str, Any]]:
        """Return the first row that can be read, and its number. Raises ValueError naming the first row if none can."""
        first: DataError | None = None
        for number in range(len(self._rows)):
            try:
                return number, self._rows.row(number)
            except RowError as fault:
                first = first or DataError(f"{self._rows.place(number)}: {fault}", reason=fault.reason)
        raise ValueError(f"no row can be read: {first}; a file has an object a line, or is one array of objects")


def _format(row: Mapping[str, Any], name: str, *, optional: bool) -> Format | None:
    """Return the format of a row; `optional`: None if none is found and none is named."""
    try:
        return detect(row, name)
    except ValueError:
        if optional and name == "auto":
            return None
        raise


def _measured_on(path: str | Sequence[str]) -> Sequence[RowFile]:
    """Return the files of `held_out_path`; of one with splits those to measure on."""
    splits = open_rows("held_out_path", path, None, None)
    name = "" if len(splits) == 1 else row_paths.held_out_split(splits, "", "")
    return splits[name or row_paths.train_split(splits, "")]


def _check_paths(**options: object) -> None:
    """Raise ValueError for what is neither a path nor a list of some."""
    for name, value in options.items():
        paths = value if isinstance(value, list | tuple) else [value]
        if value is not None and not (paths and all(isinstance(path, str) and path for path in paths)):
            raise ValueError(f"{name}: {shown(value)} given; a path was expected, or a list of them")
    if not any(options.values()):
        raise ValueError("path: must be given: task.options.path=FILE, FOLDER, '*.parquet' or OWNER/DATASET")


def _check_texts(**options: object) -> None:
    for name, value in options.items():
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{name}: {shown(value)} given; a text was expected")
