"""A chat template that would compute for ever, or take all memory, is told of before anybody waits for it."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hybridflow.bounded_code import at_most
from hybridflow.tasks import grading_guard, template_trial
from hybridflow.tasks.template_trial import refuse_endless


def tokenizer_of(render: Any) -> Any:
    """A tokenizer whose template is a function of Python's."""
    return cast(Any, SimpleNamespace(chat_template="{{ x }}", apply_chat_template=lambda *_, **__: render()))


def refuse() -> None:
    raise RuntimeError("it takes no such chat")


def leave() -> None:
    raise SystemExit(5)


@pytest.mark.parametrize("render", [lambda: "a word", refuse, leave])
def test_what_ends_is_left_to_whoever_renders_it(render: Any) -> None:
    refuse_endless(tokenizer_of(render), {})
    refuse_endless(cast(Any, SimpleNamespace(chat_template=None)), {})


def test_what_no_alarm_interrupts_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_trial, "TRIAL_S", 0.2)
    with pytest.raises(ValueError, match=r"more than 0.2 s for a chat of one word"):
        refuse_endless(tokenizer_of(lambda: 9**9**9), {})


def test_what_takes_all_memory_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"more than 1024 MiB for a chat of one word"):
        refuse_endless(tokenizer_of(lambda: "a".center(10**10)), {})


def test_where_a_signal_ends_the_wait_the_trial_ends_too() -> None:
    """It heeds no signal that Python would handle, and would go on for minutes."""
    before = grading_guard.descendants(os.getpid())
    with pytest.raises(TimeoutError), at_most(0.1):
        refuse_endless(tokenizer_of(lambda: 9**9**9), {})
    assert grading_guard.descendants(os.getpid()) == before


def test_where_memory_is_bounded_already_it_is_bounded_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by `ulimit -v`: no limit can be set above that."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    bound = pages * resource.getpagesize() + 2**28
    monkeypatch.setattr(resource, "getrlimit", lambda _: (bound, bound))
    with pytest.raises(ValueError, match="for a chat of one word"):
        refuse_endless(tokenizer_of(lambda: "a".center(10**9)), {})
