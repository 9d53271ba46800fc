"""Graders that look at a response's text alone: a pattern, a letter, tags, JSON, a length. Nothing is executed."""

from __future__ import annotations

import json
import math
import re
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from hybridflow.bounds import Bounds, Count
from hybridflow.errors import shown
from hybridflow.tasks.builtin_graders import exact
from hybridflow.tasks.fenced_block import last_fenced_block
from hybridflow.tasks.graded_row import GradedRow
from hybridflow.tasks.grader_registry import graders
from hybridflow.tasks.written_numbers import as_text

LETTERS = "ABCDEFGHIJ"
# A letter as people write a choice: `B`, `(B)`, `**B**`, `\text{B}`. "A" and "I" before a word are a word themselves.
LETTER = r"(?![AI][ \t]+[a-z])([A-J])(?![\w'\u2019+-])"
BOXED = re.compile(r"\\boxed\{\s*(?:\\(?:text|textbf|mathrm|mathbf)\{)?\s*\(?\s*([A-Ja-j])\s*[).:]?\s*[^\w\s]*\}")
STATED = re.compile(
    r"(?i:\b(?:answer|choice|option)\b(?:\s+is)?)\s*[:=]?[\s*_$]*"
    rf"(?:\(([A-Ja-j])\)|(?:\\(?:text|mathrm)\{{\s*)?{LETTER})"
)
LONE = re.compile(rf"(?<![\w'\u2019\\+-]){LETTER}")


@graders.register("regex")
class RegexGrader:
    """Give 1.0 if what the pattern finds in the response is the answer, as `exact` compares; else 0.0.

    Args:
        pattern: a regular expression of Python's; of several matches the last counts.
        group: the group that is compared; 0 is the whole match. Without it, the first group if there is one.

    Raises ValueError for what is no regular expression, or has no such group.
    """

    def __init__(self, *, pattern: str, group: Annotated[int, Bounds(at_least=0)] | None = None) -> None:
        try:
            self._pattern = re.compile(pattern)
        except (re.error, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"pattern: {shown(pattern)} is no regular expression: {error}") from error
        groups = self._pattern.groups
        self._group = min(groups, 1) if group is None else group
        if self._group > groups:
            raise ValueError(f"group: {group} given, and {shown(pattern)} has {groups}; 0 is the whole match")

    def __call__(self, response: str, answer: str) -> float:
        chosen = self._chosen(response)
        return 0.0 if chosen is None else exact(chosen, answer)

    def answer_key(self, response: str) -> str:
        """Return what the pattern finds; of responses in which it finds nothing all are one answer."""
        return (self._chosen(response) or "").strip()

    def _chosen(self, response: str) -> str | None:
        last = deque(self._pattern.finditer(response), maxlen=1)
        return last[0].group(self._group) if last else None

    @staticmethod
    def check_answer(answer: str) -> str:
        """Accept any text or number."""
        return as_text(answer)


def chosen_letter(response: str) -> str | None:
    r"""Return the letter that a response chooses, from A to J; None if it chooses none.

    It is that of the last `\boxed{B}`; else of the last `Answer: B`, `the answer is (B)`, `option B`; else the last
    capital that stands alone. An A or I before a word in small letters is no choice but a word: `A cat`.
    """
    for pattern in (BOXED, STATED, LONE):
        found = pattern.findall(response)
        if found:
            last = found[-1]
            return (last if isinstance(last, str) else "".join(last)).upper()
    return None


def letter_of(answer: str) -> str:
    """Return the letter of an answer, as `B`, `b`, `(B)` or `B.` has it. Raises ValueError if it is none."""
    letter = as_text(answer).strip().strip("().: ").upper()
    if len(letter) != 1 or letter not in LETTERS:
        raise ValueError(f"grader multiple_choice: the answer is {shown(answer)}; a letter from A to J was expected")
    return letter


@graders.register("multiple_choice")
def multiple_choice(response: str, answer: str) -> float:
    """Return 1.0 if the letter that the response chooses (`chosen_letter`) is the answer's, else 0.0."""
    expected = letter_of(answer)
    return float(chosen_letter(response) == expected)


multiple_choice.check_answer = letter_of  # type: ignore[attr-defined]
multiple_choice.answer_key = lambda response: chosen_letter(response) or ""  # type: ignore[attr-defined]


@graders.register("brevity")
class BrevityGrader:
    """Give 1.0 for a response of at most `budget` tokens, 0.0 from `over` tokens on (twice the budget), else between.

    Raises ValueError if `over` is not more than `budget`.
    """

    def __init__(self, *, budget: Count = 256, over: Count | None = None) -> None:
        self._budget = budget
        self._over = 2 * budget if over is None else over
        if self._over <= budget:
            raise ValueError(f"over: {over} given, more than budget ({budget}) was expected")

    def __call__(self, row: GradedRow) -> float:
        share = (self._over - row.response_tokens) / (self._over - self._budget)
        return min(max(share, 0.0), 1.0)


@graders.register("tags")
class TagsGrader:
    """Give 1.0 if a response is made of these tags, each once, in order, with white space between them.

    Args:
        tags: their names: `<think>…</think><answer>…</answer>`.
        first_is_open: the prompt ends with the first tag already, so the response begins inside of it.

    Raises ValueError for what is no list of names.
    """

    def __init__(self, *, tags: Sequence[str] = ("think", "answer"), first_is_open: bool = False) -> None:
        names = [tags] if isinstance(tags, str) else list(tags)
        if not names or not all(isinstance(name, str) and re.fullmatch(r"[\w-]+", name) for name in names):
            raise ValueError(f"tags: {shown(tags)} given; a list of names was expected, as [think, answer]")
        self._marks = [mark for name in names for mark in (f"<{name}>", f"</{name}>")][first_is_open:]
        self._first_is_open = first_is_open

    def __call__(self, row: GradedRow) -> float:
        rest = row.response
        inside = self._first_is_open
        for mark in self._marks:
            before, found, rest = rest.partition(mark)
            if not found or mark in rest or (not inside and before.strip()):
                return 0.0
            inside = not inside
        return float(not rest.strip())


@graders.register("json_schema")
class JsonSchemaGrader:
    """Give 1.0 if the response, or its last fenced block if it has one, is JSON that a schema allows; else 0.0.

    Args:
        schema: a JSON Schema, the same for all rows.
        field: without `schema`, the field of a row's metadata that has its schema, as a mapping or as JSON text.

    Raises ValueError for a schema that is none. A reference out of the schema is not followed.
    """

    def __init__(self, *, schema: Mapping[str, Any] | None = None, field: str = "schema") -> None:
        self._field = field
        self._validator = None if schema is None else validator_of(schema)

    def __call__(self, row: GradedRow) -> float:
        validator = self._validator or self._of_row(row.metadata)
        block = last_fenced_block(row.response)
        try:
            value = json.loads(
                row.response if block is None else block, parse_constant=_no_constant, parse_float=_finite
            )
            return float(validator.is_valid(value))
        except (ValueError, RecursionError, OverflowError):  # no JSON; too many brackets, digits or powers of ten
            return 0.0

    def check_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Raise ValueError for a row without a schema, if rows are to have one."""
        if self._validator is None:
            self._of_row(metadata)

    def _of_row(self, metadata: Mapping[str, Any]) -> Any:
        schema = metadata.get(self._field)
        if schema is None:
            raise ValueError(
                f"the row's metadata has no {self._field!r}, and the grader no option schema; one of them is needed"
            )
        return validator_of(json.loads(schema) if isinstance(schema, str) else schema)


def validator_of(schema: Any) -> Any:
    """Return what checks values against a schema. Raises ValueError if it is none."""
    import jsonschema
    import referencing

    if not isinstance(schema, Mapping | bool):
        raise ValueError(f"schema: {shown(schema)} is no JSON Schema: a mapping was expected, as {{type: object}}")
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ValueError(f"schema: {shown(schema)} is no JSON Schema: {error.message}") from error
    validator = kind(schema, registry=referencing.Registry())  # an empty one: nothing is fetched from anywhere
    _check_references(schema)
    try:
        values: tuple[Any, ...] = (None, True, 0, "", [], {})
        for value in values:
            validator.is_valid(value)
    except RecursionError as error:
        raise ValueError(f"schema: {shown(schema)} refers to itself without end") from error
    return validator


def _check_references(schema: Any) -> None:
    """Raise ValueError for a reference that leads out of a schema, or nowhere in it."""
    from referencing import Registry, Resource
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    root = Resource.from_contents(schema, default_specification=DRAFT202012)
    left = [(root, Registry().with_resource(root.id() or "", root).resolver(root.id() or ""))]
    while left:
        resource, resolver = left.pop()
        for name in ("$ref", "$dynamicRef"):
            reference = resource.contents.get(name) if isinstance(resource.contents, Mapping) else None
            try:
                if isinstance(reference, str):
                    resolver.lookup(reference)
            except (Unresolvable, ValueError) as error:
                raise ValueError(
                    f"schema: {name} {shown(reference)} is not in the schema itself; one such as '#/$defs/name' was "
                    "expected, as nothing else is read"
                ) from error
        left += [(inner, resolver.in_subresource(inner)) for inner in resource.subresources()]


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is too large for a number")
    return value
