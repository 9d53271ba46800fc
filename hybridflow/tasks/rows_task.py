"""Task `rows`: prompts and answers from files of the user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from hybridflow.bounds import Bounds
from hybridflow.errors import DataError
from hybridflow.tasks import row_paths
from hybridflow.tasks.open_rows import open_rows
from hybridflow.tasks.preference_task import PreferenceTask
from hybridflow.tasks.question_index import index_questions, question_hash
from hybridflow.tasks.row_fields import check_template
from hybridflow.tasks.row_files import Rows
from hybridflow.tasks.row_formats import NAMES, OWN, Mapper, Question, detect
from hybridflow.tasks.strict_json import RowError
from hybridflow.tasks.task import Example, tasks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Held = Annotated[float | None, Bounds(more_than=0, less_than=1)]
HELD_OUT_FRACTION = 0.05  # of the questions, where nothing says what is held out


@tasks.register("rows")
class RowsTask(PreferenceTask):
    """Rows of files: JSON lines, Parquet, datasets saved on disk, hub ids; see docs/data.md.

    `train` has the rows in the order of the files, `warmup` the same. `held_out` has whole questions, in the order of
    their hashes, so that its first rows are a fair sample; what it asks is left out of `train`.

    Args:
        path: a file, a glob, a folder, or a list of them; or the id of a dataset on the hub.
        held_out_path: the same, of rows to measure on.
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

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        path: str | Sequence[str],
        held_out_path: str | Sequence[str] | None = None,
        held_out_fraction: Held = None,
        split: str | None = None,
        held_out_split: str | None = None,
        config: str | None = None,
        revision: str | None = None,
        format: str = "auto",
        columns: Mapping[str, str | None] | None = None,
        prompt_template: str | None = None,
    ) -> None:
        super().__init__(tokenizer)
        if sum(map(bool, (held_out_path, held_out_fraction, held_out_split))) > 1:
            raise ValueError("held_out_path, held_out_fraction, held_out_split: more than one is given; give one")
        splits = open_rows("path", path, config, revision)
        train = row_paths.train_split(splits, split or "")
        files = [splits[train]]
        if held_out_path:
            others = open_rows("held_out_path", held_out_path, config, revision)
            files.append(others[row_paths.train_split(others, "") if len(others) == 1 else _held_out(others)])
        elif not held_out_fraction and (name := row_paths.held_out_split(splits, held_out_split or "", train)):
            files.append(splits[name])
        self._rows = Rows([file for some in files for file in some])
        if not len(self._rows):
            raise ValueError(f"path: {path} has no rows")
        self.mapper = self._mapper(format, {k: v for k, v in (columns or {}).items() if v}, prompt_template or "")
        first = sum(map(len, files[0]))
        self.index = index_questions(
            self._rows, self.mapper, None if len(files) == 1 else first, held_out_fraction or HELD_OUT_FRACTION
        )
        self.carries = self.index.carries

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

    def suspects(self, split: str) -> Sequence[int]:
        return self.index.suspects[split]

    def raw_row(self, split: str, index: int) -> Mapping[str, Any]:
        number = int(self.index.numbers[split][index])
        try:
            return self._rows.row(number)
        except RowError as fault:
            raise DataError(f"{self._rows.place(number)}: {fault}", reason=fault.reason) from fault

    def origin(self) -> str:
        given = [f"{name}={path}" for name, path in self.mapper.columns.items()]
        read = [f"in the format {self.mapper.form}"] if self.mapper.form else []
        read += [f"by columns {', '.join(given)}"] if given else []
        read += ["by task.options.prompt_template"] if self.mapper.template else []
        shared = self.index.shared
        left_out = f"; {shared} rows are left out of train, as held_out asks the same" if shared else ""
        return f"rows {' and '.join(read)}{left_out}"

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
        if format == "auto" and (template or columns.get("prompt")):
            return Mapper(None, columns, template)
        return Mapper(detect(self._first_sound(), format), columns, template)

    def _first_sound(self) -> dict[str, Any]:
        """Return the first row that can be read. Raises ValueError naming the first row if none can."""
        first: DataError | None = None
        for number in range(len(self._rows)):
            try:
                return self._rows.row(number)
            except RowError as fault:
                first = first or DataError(f"{self._rows.place(number)}: {fault}", reason=fault.reason)
        raise first or ValueError("there are no rows")


def _held_out(splits: Mapping[str, object]) -> str:
    name = row_paths.held_out_split(splits, "", "")
    if not name:
        raise ValueError(f"held_out_path has the splits {', '.join(splits)}; give the files of one")
    return name
