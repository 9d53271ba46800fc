"""What `hybridflow data` says, in lines. Texts of rows are escaped: they come from anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hybridflow.config.schema import TaskConfig
from hybridflow.errors import OTHER_REASON, DataError
from hybridflow.observe.terminal import one_line
from hybridflow.tasks.chat_hint import hints
from hybridflow.tasks.data_facts import Facts, histogram, taught
from hybridflow.tasks.preference_task import PreferenceTask
from hybridflow.tasks.task import Task, named_row
from hybridflow.tasks.written_numbers import as_text

SAMPLES = 3
LINES = 24  # of a sample's text
PIECES = 24  # tokens of a sample that are shown, half of them from its end
BAR = 40  # characters of the longest bar


class Report:
    """Lines about the rows of a task.

    Args:
        folder: of the model whose tokens are counted; "": characters are.
        facts: of each split that has rows, train's first.
    """

    def __init__(self, task: Task, settings: TaskConfig, folder: str, facts: Sequence[Facts]) -> None:
        self.task = task
        self.settings = settings
        self.folder = folder
        self.facts = facts
        self.unit = "tokens" if folder else "characters"

    def head(self) -> Iterator[str]:
        """Yield what was read."""
        origin = self.task.rows_origin()
        yield f"task: {one_line(self.settings.name)}{f', {one_line(origin)}' if origin else ''}"
        for facts in self.facts:
            partly = (
                f", of which the first {facts.read} are read (--rows 0 reads all)" if facts.read < facts.size else ""
            )
            yield f"{facts.split}: {facts.size} rows{partly}"
            for source, rows in facts.sources.most_common():
                yield f"  {rows} from {one_line(source)}"
        if self.folder:
            yield f"lengths are in tokens of {one_line(self.folder)}"
            yield from hints(self.task, self.facts[0].split)
        else:
            yield "lengths are in characters of the texts alone: name a model folder too, and they are in its tokens"

    def columns(self) -> Iterator[str]:
        """Yield a table of the columns of the first split."""
        facts = self.facts[0]
        yield f"\ncolumns of {facts.split}"
        width = max((len(one_line(name)) for name in facts.columns), default=0)
        for name, column in facts.columns.items():
            kinds = ", ".join(kind for kind, _ in column.types.most_common()) or "nothing"
            missing = 1 - column.rows / facts.read
            yield f"  {one_line(name):<{width}}  {kinds}{f', missing in {missing:.1%}' if missing else ''}"

    def samples(self) -> Iterator[str]:
        """Yield the first rows that can be used, as a model gets them."""
        facts = self.facts[0]
        given = 0
        for number in range(facts.read):
            try:
                with named_row(self.task, facts.split, number):
                    lines = list(self._sample(number))
            except DataError:  # it is told among the rows that cannot be used
                continue
            yield f"\n{facts.split}, row {number}"
            yield from lines
            given += 1
            if given == SAMPLES:
                return

    def _sample(self, number: int) -> Iterator[str]:
        example = self.task.example(self.facts[0].split, number)
        said = {"answer": taught(example)}
        if self.facts[0].rejected:
            assert isinstance(self.task, PreferenceTask)
            said["rejected answer"] = as_text(self.task.rejected(self.facts[0].split, number))
        if self.folder:
            yield from self._tokens("prompt", self.task.encode(example.prompt))
            for what, text in said.items():
                yield from self._tokens(what, self.task.encoder.answer(example.prompt, text))
            return
        prompt = self.task.chat_form.apply(example.prompt)
        turns = (
            [("", prompt)] if isinstance(prompt, str) else [(f"{m['role']}: ", m.get("content") or "") for m in prompt]
        )
        yield "  prompt"
        for role, text in turns:
            yield from _quoted(role + text)
        for what, text in said.items():
            yield f"  {what}"
            yield from _quoted(text)

    def _tokens(self, what: str, ids: Sequence[int]) -> Iterator[str]:
        tokenizer = self.task.tokenizer
        yield f"  {what}, {len(ids)} tokens"
        yield from _quoted(str(tokenizer.decode(ids)))
        pieces = [one_line(repr(tokenizer.decode([id]))) for id in ids]
        if len(pieces) > PIECES:
            left_out = len(pieces) - PIECES
            pieces = [*pieces[: PIECES // 2], f"… {left_out} more …", *pieces[-PIECES // 2 :]]
        yield f"    = {' '.join(pieces)}"

    def lengths(self) -> Iterator[str]:
        """Yield histograms of the lengths."""
        for facts in self.facts:
            for what, lengths in (
                ("prompts", facts.prompts),
                ("answers", facts.answers),
                ("rejected answers", facts.rejected),
            ):
                if not lengths:
                    continue
                ordered = sorted(lengths)
                middle, late = (ordered[-(-len(ordered) * percent // 100) - 1] for percent in (50, 95))
                yield (
                    f"\n{facts.split}: {what} in {self.unit}: {ordered[0]} to {ordered[-1]}, half of them up to "
                    f"{middle}, 95 % up to {late}"
                )
                yield from _bars(lengths)

    def doubts(self) -> Iterator[str]:
        """Yield which rows cannot be used, and which questions come twice."""
        yield ""
        for facts in self.facts:
            if not facts.malformed:
                yield f"{facts.split}: every row that was read can be used"
            for reason, fault in sorted(facts.malformed.items(), key=lambda item: -item[1].rows):
                why = f": {one_line(reason)}" if reason != OTHER_REASON else ""
                yield (
                    f"{facts.split}: {fault.rows} of {facts.read} rows cannot be used (task.malformed = "
                    f"{self.settings.malformed}){why}; the first: {one_line(fault.first)}"
                )
        for facts in self.facts:
            yield f"{facts.split}: {facts.repeated or 'no'} rows repeat the question of an earlier row"
        if len(self.facts) > 1:
            both = len(self.facts[0].questions & self.facts[1].questions)
            yield f"{both or 'no'} questions of {self.facts[1].split} are in {self.facts[0].split} too"

    def fit(self, tokens: int, response: int, said: str, origin: str) -> Iterator[str]:
        """Yield which rows are too long, `said` being what sets `tokens`, and `origin` where the settings were made."""
        if not self.folder:
            yield "which rows are too long is not known without a model"
            return
        room = tokens - response
        policy = f"task.too_long = {self.settings.too_long}"
        yield f"\ntoo long for {said}, rollout.max_response_tokens = {response} ({policy})"
        yield f"  {one_line(origin)}"
        for facts in self.facts:
            prompts, whole = facts.too_long(tokens, response)
            rows = len(facts.prompts)
            yield f"  {facts.split}: {prompts} of {rows} prompts that are to be answered, longer than {room}"
            yield f"  {facts.split}: {whole} of {rows} prompts with their answers, longer than {tokens}"


def _quoted(text: str) -> Iterator[str]:
    lines = text.split("\n")
    for line in lines[:LINES]:
        yield f"    | {one_line(line)}"
    if len(lines) > LINES:
        yield f"    … {len(lines) - LINES} more lines"


def _bars(lengths: Sequence[int]) -> Iterator[str]:
    bars = histogram(lengths)
    longest = max(bar.rows for bar in bars)
    places = [f"{bar.first}-{bar.last}" if bar.last > bar.first else str(bar.first) for bar in bars]
    width = max(map(len, places))
    for place, bar in zip(places, bars, strict=True):
        drawn = "#" * (-(-bar.rows * BAR // longest))
        yield f"  {place:>{width}}  {drawn:<{BAR}}  {bar.rows}"
