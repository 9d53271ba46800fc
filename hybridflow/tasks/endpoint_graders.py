"""Graders that ask a server: `http`, an endpoint of the user's, and `judge`, a served model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from hybridflow.bounds import Bounds, Count, NotNegativeInt, Positive
from hybridflow.errors import shown
from hybridflow.tasks.endpoint import Endpoint
from hybridflow.tasks.graded_row import Grade, GradedRow
from hybridflow.tasks.grader_registry import graders
from hybridflow.tasks.grades import number

FIELD = re.compile(r"\{(prompt|response|answer)\}")
TEMPLATE = """Judge how good a response is.

Question:
{prompt}

Right answer:
{answer}

Response:
{response}

Say in a sentence why, and end with a line "Score: N", N from 0 (wrong) to 10 (right)."""
SENT = (
    "response", "answer", "prompt", "messages", "metadata", "source", "finish_reason", "response_tokens", "sample_id",
)  # fmt: skip


@graders.register("http")
class HttpGrader:
    """Ask an endpoint: it is told the row in JSON and answers `{"grade": 0.5}`, and `"parts": {…}` if it likes.

    Args:
        url: the address of the endpoint.
        timeout_s: seconds that a try may take.
        retries: tries after the first, for a connection that fails and a server that is busy.
        token_env: the name of an environment variable with a bearer token; "": none is sent.

    Raises as `Endpoint`.
    """

    def __init__(
        self, *, url: str, timeout_s: Positive = 15.0, retries: NotNegativeInt = 2, token_env: str = ""
    ) -> None:
        self._endpoint = Endpoint(url, timeout_s, retries, token_env)

    async def __call__(self, row: GradedRow) -> Grade:
        reply = await self._endpoint.ask({name: _text(getattr(row, name)) for name in SENT})
        if not isinstance(reply, Mapping) or "grade" not in reply:
            raise ValueError(f'the endpoint answered {shown(reply)}; {{"grade": a number}} was expected')
        return Grade(reply["grade"], reply.get("parts") or {})


@graders.register("judge")
class JudgeGrader:
    """Ask a served model, over the chat completions of OpenAI's interface, and read its score.

    Args:
        url: the address of the interface, as http://127.0.0.1:8000/v1.
        model: the name by which the server knows the model.
        template: what it is asked, with {prompt}, {response} and {answer} in it.
        pattern: a regular expression whose last match in what it says has the score as its first group.
        best: the score of the best response; grades are scores over it.
        max_tokens: tokens that it may say.
        timeout_s, retries, token_env: as of `http`.

    Raises ValueError for what cannot be used, and as `Endpoint`.
    """

    def __init__(
        self,
        *,
        url: str,
        model: str,
        template: str = TEMPLATE,
        pattern: str = r"(?i)score:[\s*_]*(-?\d+(?:\.\d+)?)",
        best: Annotated[float, Bounds(more_than=0)] = 10.0,
        max_tokens: Count = 512,
        timeout_s: Positive = 25.0,
        retries: NotNegativeInt = 1,
        token_env: str = "",
    ) -> None:
        if "{response}" not in template:
            raise ValueError(
                f"template: {shown(template)} has no {{response}}, so every response would be judged alike"
            )
        try:
            self._pattern = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"pattern: {shown(pattern)} is no regular expression: {error}") from error
        if not self._pattern.groups:
            raise ValueError(f"pattern: {shown(pattern)} has no group; its first one has the score")
        self._endpoint = Endpoint(f"{str(url).rstrip('/')}/chat/completions", timeout_s, retries, token_env)
        self._model = model
        self._template = template
        self._best = best
        self._max_tokens = max_tokens

    async def __call__(self, row: GradedRow) -> float:
        # In one pass, so that nothing in a response is taken for a field.
        asked = FIELD.sub(lambda field: _text(str(getattr(row, field[1]))), self._template)
        reply = await self._endpoint.ask(
            {
                "model": self._model,
                "messages": [{"role": "user", "content": asked}],
                "temperature": 0,
                "max_tokens": self._max_tokens,
            }
        )
        try:
            said = reply["choices"][0]["message"]["content"]
            scores = list(self._pattern.finditer(said))
        except (LookupError, TypeError):
            raise ValueError(f"the judge's server answered {shown(reply)}; a chat completion was expected") from None
        try:
            return number(float(scores[-1][1])) / self._best
        except (IndexError, TypeError, ValueError):
            raise ValueError(
                f"the judge said {shown(said)}, in which {self._pattern.pattern!r} finds no score"
            ) from None


def _text(value: Any) -> Any:
    """Return a text as UTF-8 can have it: half of a surrogate pair is no character."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
