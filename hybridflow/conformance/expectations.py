"""Expectations that a part meets or violates: the violation in one line; and those that every tensor has to meet."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import hybridflow
from hybridflow import former_names
from hybridflow.bounded_code import at_most

Results = Iterator[tuple[str, list[str]]]
"""Names of what was tried, each with the expectations that it violates, a line each."""
TRIAL_S = 120.0  # of what takes milliseconds, and of the worst that a sandbox or a deadline of a part's own takes
OURS = str(Path(hybridflow.__file__).parent)


class ExpectationError(Exception):
    """Expectation that a part does not meet; the message says which."""


def violations(check: Callable[[], None]) -> list[str]:
    """Return what a check finds violated, if anything; an exception of the user's code counts, with its place."""
    try:
        with at_most(TRIAL_S):
            check()
    except ExpectationError as error:
        return [str(error)]
    except (Exception, SystemExit) as error:
        return [describe_error(error)]
    return []


def describe_error(error: BaseException) -> str:
    """Describe an exception on one line, with the last line of the user's own that it came from."""
    text = " ".join(traceback.format_exception_only(error)[-1].split()) + former_names.hint(error)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(OURS)]
    own = [frame for frame in frames if "site-packages" not in frame.filename and frame.filename[:1] != "<"]
    return f"{text} ({own[-1].filename}:{own[-1].lineno})" if own else text


def expect(met: bool, message: str) -> None:
    """Raise ExpectationError with the message unless the expectation is met."""
    if not met:
        raise ExpectationError(message)


def expect_floats(on: str, name: str, value: object, size: int, what: str) -> None:
    """Expect [size] finite floats, one for each `what` (token, row); `on` says of which rows."""
    expect(isinstance(value, Tensor), f"{on}wrong type: {name} is a {type(value).__name__}; a tensor was expected")
    assert isinstance(value, Tensor)
    shape = tuple(value.shape)
    expect(shape == (size,), f"{on}wrong shape: {name} is {shape}; ({size},) was expected, one for each {what}")
    expect(value.is_floating_point(), f"{on}wrong dtype: {name} is {value.dtype}; floats were expected")
    for at in torch.nonzero(~torch.isfinite(value.detach())).flatten().tolist()[:1]:
        raise ExpectationError(f"{on}not finite: {name} has {float(value.detach()[at])} at {what} {at}")


def expect_defaults(part: Callable[..., Any]) -> None:
    """Expect a default of every option of a part: it is tried without any."""
    options = list(inspect.signature(part).parameters.values())[1:]
    variadic = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    bare = [option.name for option in options if option.default is option.empty and option.kind not in variadic]
    expect(not bare, f"its option {', '.join(bare)} has no default, without which it cannot be tried; give it one")


def expect_again(on: str, first: object, second: object) -> None:
    """Expect a part to give the same when it is called once more with the same."""
    expect(
        _alike(first, second),
        f"{on}it gives something else when it is called again with the same: is there a random number in it, a clock, "
        "or something that it keeps from call to call? Ranks and resumed runs would differ",
    )


def _alike(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.equal(first, second)
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return np.array_equal(first, second)
    if isinstance(first, (tuple, list)) and isinstance(second, (tuple, list)):
        return len(first) == len(second) and all(map(_alike, first, second))
    return bool(first == second)
