"""Task `openenv`: episodes of a server of OpenEnv, by their seeds, for the environment of that name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hybridflow.bounds import Count, NotNegativeInt, Positive
from hybridflow.errors import shown
from hybridflow.tasks.openenv_session import Session, said
from hybridflow.tasks.task import Example, Task, tasks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KNOWN = "openenv"  # the field of a row's metadata that begins its episode


@tasks.register("openenv")
class OpenEnvRows(Task):
    """Episodes by their seeds, which no two splits share. A prompt is the observation that the server begins one with.

    Args:
        url: the address of the server, as http://127.0.0.1:8000.
        prompt: stands before the observation.
        observation: the field of an observation that is told; "": all of it, as JSON.
        reset: what an episode begins with beside its seed, as the environment has it.
        first_seed: those of `held_out` begin here.
        train_rows, held_out_rows: rows in those splits; `warmup` has those of `train`.
        timeout_s: seconds that an answer may take.
        token_env: the name of an environment variable with a bearer token; "": none is sent.

    Raises as `Session`.
    """

    grader = "environment"
    source_names = frozenset({KNOWN})

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        url: str,
        prompt: str = "",
        observation: str = "",
        reset: Mapping[str, Any] | None = None,
        first_seed: NotNegativeInt = 0,
        train_rows: Count = 10_000,
        held_out_rows: Count = 100,
        timeout_s: Positive = 30.0,
        token_env: str = "",
    ) -> None:
        super().__init__(tokenizer)
        self._session = Session(url, timeout_s, token_env)
        self._prompt = prompt
        self._observation = observation
        self._reset = dict(reset or {})
        self._first_seed = first_seed
        self._sizes = {"train": train_rows, "warmup": train_rows, "held_out": held_out_rows}

    def size(self, split: str) -> int:
        return self._sizes[split]

    def example(self, split: str, index: int) -> Example:
        number = index if split == "held_out" else self._sizes["held_out"] + index
        fields = {**self._reset, "seed": self._first_seed + number}
        told = said(self._session.reset(fields).observation, self._observation)
        prompt = "\n\n".join(part for part in (self._prompt, told) if part)
        known = {KNOWN: {"reset": fields, "said": told}}
        return Example([{"role": "user", "content": prompt}], "", number, known, KNOWN)


def beginning(metadata: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Return what a row says that its episode begins with, and what the prompt tells of it, if the row knows that.

    Raises ValueError for what is none.
    """
    known = metadata.get(KNOWN, {})
    fields = known.get("reset", {}) if isinstance(known, Mapping) else None
    if not isinstance(fields, Mapping):
        raise ValueError(f'the metadata {KNOWN!r} is {shown(known)}; {{"reset": {{…}}}} was expected')
    return dict(fields), known.get("said")
