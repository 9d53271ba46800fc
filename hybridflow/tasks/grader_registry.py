"""Registry of graders: each with how it is to be called, which is read off its signature once.

A grader is one of

    def grade(response, answer) -> float                 # two texts
    def grade(row: GradedRow) -> float | Grade           # a row
    async def grade(row) -> float | Grade                # rows at the same time; of two texts as well
    @graders.register("mine", batched=True)
    def grade(rows: list[GradedRow]) -> list[float]      # many rows at once; may be async

with its options as keyword arguments after these, or a class whose constructor takes the options and whose instances
are called so.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from inspect import Parameter, Signature
from typing import Any, cast

from hybridflow.errors import HybridFlowError
from hybridflow.options import effective_options, faults
from hybridflow.registry import Registry
from hybridflow.tasks.graded_row import GradedRow

Grader = Callable[..., Any]
"""Whatever is registered as a grader. It is pure, and imports no torch.

If it has an attribute `check_answer`, that is called with the answer of every row before the row is used; it raises
ValueError for what cannot be an answer. `check_metadata` is the same of the row's metadata, where a grader reads any.
An attribute `answer_key` gives what a response comes to, a text.
"""

Answers = Callable[[str], Any]
Metadata = Callable[[Mapping[str, Any]], Any]
POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
EXPECTED = "expected is `def grade(response, answer)` or `def grade(row)`, with options as keyword arguments"


class GraderRegistry(Registry[Grader]):
    """Graders by name; of each, what cannot be read off its signature."""

    def __init__(self, *builtin: str) -> None:
        super().__init__("grader", *builtin, of=Callable)
        self._batched: set[str] = set()
        self._token_rewards: set[str] = set()

    def register(self, name: str, *, batched: bool = False, token_rewards: bool = False) -> Callable[[Grader], Grader]:
        """Return a decorator that gives a grader its name.

        Args:
            batched: it is called with a list of rows and gives a list of grades, one a row.
            token_rewards: its grades have values of tokens or steps (`Grade.token_rewards`, `Grade.step_rewards`).

        Raises as `Registry.register`; TypeError if it cannot be called in any way that a grader is.
        """
        add = super().register(name)

        def add_grader(grader: Grader) -> Grader:
            if callable(grader):  # what is not is told by `Registry.register`
                takes_rows(grader, batched=batched)
            added = add(grader)
            for marked, names in ((batched, self._batched), (token_rewards, self._token_rewards)):
                (names.add if marked else names.discard)(name)
            return added

        return add_grader

    def is_batched(self, name: str) -> bool:
        """Tell whether a grader takes many rows at once."""
        return name in self and name in self._batched

    def gives_token_rewards(self, name: str) -> bool:
        """Tell whether the grades of a grader have values of tokens or steps."""
        return name in self and name in self._token_rewards


graders = GraderRegistry(
    "hybridflow.tasks.builtin_graders", "hybridflow.tasks.text_graders", "hybridflow.tasks.math_grader",
    "hybridflow.tasks.code_grader",
    "hybridflow.tasks.endpoint_graders",
    "hybridflow.tasks.environment_graders",
    "hybridflow.tasks.reasoning_gym_task",
)  # fmt: skip


@dataclass(frozen=True)
class BoundGrader:
    """Grader with its options, in the one form in which all are called.

    Attributes:
        grade_rows: gives the grades of rows, one each, or an awaitable of them. One that is not batched is given one
            row at a time.
        reads_rows: whether it looks at more than response and answer.
        check_answer: raises ValueError for what cannot be an answer, if there is anything to say on that.
        check_metadata: raises ValueError for metadata that rows cannot be graded with, if it reads any.
        answer_key: gives what a response comes to: equal ones are the same answer where a majority is asked for.
    """

    name: str
    grade_rows: Callable[[list[GradedRow]], list[Any] | Awaitable[list[Any]]]
    batched: bool = False
    concurrent: bool = False
    reads_rows: bool = True
    token_rewards: bool = False
    check_answer: Answers | None = None
    check_metadata: Metadata | None = None
    answer_key: Answers = str.strip


def bind(name: str, options: Mapping[str, Any] | None = None) -> BoundGrader:
    """Bring a registered grader and its options into the inner form.

    Raises KeyError for an unknown name, HybridFlowError for options that it does not take or cannot be made with.
    """
    return bound(
        name,
        graders.get(name),
        options,
        batched=graders.is_batched(name),
        token_rewards=graders.gives_token_rewards(name),
    )


def bound(
    name: str,
    grader: Grader,
    options: Mapping[str, Any] | None = None,
    *,
    batched: bool = False,
    token_rewards: bool = False,
) -> BoundGrader:
    """Bring a grader, registered or not, into the inner form. Raises as `bind`."""
    given = options or {}
    shell = options_shell(grader)
    wrong = [f"{option}: {trouble}" for option, trouble in faults(shell, given).items()]
    if wrong:
        raise HybridFlowError(f"options of grader {name!r}: {'; '.join(wrong)}")
    known = effective_options(shell, given)
    reads_rows = takes_rows(grader, batched=batched)
    try:
        call = _made(grader, known)
    except (ValueError, TypeError) as error:
        raise HybridFlowError(f"grader {name!r} cannot be made with these options: {error}") from error
    concurrent = is_async(call)
    return BoundGrader(
        name,
        call if batched else _one_by_one(call, reads_rows, concurrent),
        batched=batched,
        concurrent=concurrent,
        reads_rows=reads_rows,
        token_rewards=token_rewards,
        check_answer=_attribute(call, grader, "check_answer"),
        check_metadata=_attribute(call, grader, "check_metadata"),
        answer_key=_attribute(call, grader, "answer_key") or str.strip,
    )


def _attribute(call: Grader, grader: Grader, name: str) -> Callable[[Any], Any] | None:
    """Return what a grader says on rows; where its options have made an object, they may say it."""
    return getattr(call, name, None) or getattr(grader, name, None)


def _made(grader: Grader, options: Mapping[str, Any]) -> Grader:
    """Return what is called to grade: an instance of a class, a function with its options."""
    if inspect.isclass(grader):
        return cast(Grader, grader(**options))
    return partial(grader, **options) if options else grader


def _one_by_one(call: Grader, reads_rows: bool, concurrent: bool) -> Callable[[list[GradedRow]], Any]:
    """Make a function of one row, in a list, of a function of a row or of two texts."""

    def arguments(rows: list[GradedRow]) -> tuple[Any, ...]:
        (row,) = rows
        return (row,) if reads_rows else (row.response, row.answer)

    if not concurrent:
        return lambda rows: [call(*arguments(rows))]

    async def grade(rows: list[GradedRow]) -> list[Any]:
        return [await call(*arguments(rows))]

    return grade


def is_async(call: Grader) -> bool:
    """Tell whether a grader is an `async` function, or an object that is called as one."""
    inner = call.func if isinstance(call, partial) else call
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(getattr(inner, "__call__", None))  # noqa: B004


def takes_rows(grader: Grader, *, batched: bool = False) -> bool:
    """Tell whether a grader is called with rows, and not with two texts.

    A function of one argument takes a row, and so does one whose first argument is annotated so; a function of two
    takes two texts. Raises TypeError if it can be called with neither.
    """
    parameters = _call_parameters(grader)
    if parameters is None:  # of a function in C nothing may be known
        return batched
    positional = [parameter for parameter in parameters if parameter.kind in POSITIONAL]
    needed = sum(parameter.default is Parameter.empty for parameter in positional)
    variadic = any(parameter.kind is Parameter.VAR_POSITIONAL for parameter in parameters)
    bare = [p.name for p in parameters if p.kind is Parameter.KEYWORD_ONLY and p.default is Parameter.empty]
    if batched and needed == 1:
        return True
    if not batched and (needed == 1 or (positional and _is_row(positional[0]))):
        return not (len(positional) > 1 and _is_text(positional[0]) and not _is_row(positional[0]))
    if not batched and (needed == 2 or (needed == 0 and (len(positional) >= 2 or variadic))):
        return False
    given = ", ".join([p.name for p in positional] + [f"*, {', '.join(bare)}"] * bool(bare)) or "nothing"
    wanted = "expected of a batched one is `def grade(rows)`" if batched else EXPECTED
    raise TypeError(f"grader {getattr(grader, '__qualname__', grader)!r} is called with ({given}); {wanted}")


def _is_row(parameter: Parameter) -> bool:
    return parameter.annotation is GradedRow or str(parameter.annotation).strip("'\"").endswith("GradedRow")


def _is_text(parameter: Parameter) -> bool:
    """Tell whether one argument is a response whose answer need not be given, and not a row with an option."""
    return parameter.annotation in (str, "str") or parameter.name == "response"


def _call_parameters(grader: Grader) -> list[Parameter] | None:
    """Return the parameters of the call that grades; None if they cannot be known."""
    try:
        if not inspect.isclass(grader):
            return list(inspect.signature(grader).parameters.values())
        if "__call__" not in {name for cls in grader.__mro__ for name in vars(cls)}:
            raise TypeError(f"grader class {grader.__qualname__} has no __call__; {EXPECTED}, as its method __call__")
        return list(inspect.signature(grader.__call__).parameters.values())[1:]  # without self
    except ValueError:
        return None


def options_shell(grader: Grader) -> Callable[..., Any]:
    """Return a function whose arguments after the first are the grader's options, as `hybridflow.options` wants them.

    They are the arguments of a class's constructor; of a function those that are not given in the call.
    """

    def shell(row: Any, /) -> None:
        raise AssertionError("it is looked at, never called")

    try:
        own = list(inspect.signature(grader).parameters.values())
    except ValueError:
        own = []
    if not inspect.isclass(grader):
        taken = 1 if _is_one(grader) else 2
        positional = [parameter for parameter in own if parameter.kind in POSITIONAL]
        own = [parameter for parameter in own if parameter not in positional[:taken]]
    kept = [p.replace(kind=Parameter.KEYWORD_ONLY) for p in own if p.kind in (*POSITIONAL, Parameter.KEYWORD_ONLY)]
    free = [p for p in own if p.kind is Parameter.VAR_KEYWORD]
    first = Parameter("row", Parameter.POSITIONAL_ONLY)
    shell.__signature__ = Signature([first, *kept, *free])  # type: ignore[attr-defined]
    shell.__wrapped__ = grader.__init__ if inspect.isclass(grader) else grader  # type: ignore[attr-defined]
    return shell


def _is_one(grader: Grader) -> bool:
    """Tell whether the call takes one argument before its options, a row or a list of them."""
    try:
        return takes_rows(grader)
    except TypeError:  # of a batched one
        return True
