"""Trial of a chat template in a process of its own: a template is a program, and may come from anywhere.

What Python computes in one go, `9 ** 9 ** 9` or a text of 10 GB, no alarm interrupts, and the memory is this process'.
"""

from __future__ import annotations

import os
import resource
import select
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hybridflow import interrupt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TRIAL_S = 5.0  # for what takes milliseconds
MEMORY_BYTES = 2**30
NO_MEMORY = 3  # exit code


def refuse_endless(tokenizer: PreTrainedTokenizerBase, options: Mapping[str, Any]) -> None:
    """Raise ValueError if the tokenizer's template takes far more time or memory for a chat of one word than it should.

    Args:
        options: variables of the template. What it says of them, and of the chat, is told elsewhere.
    """
    if not tokenizer.chat_template:
        return
    child = os.fork()
    if not child:
        _render(tokenizer, options)
    status = 0
    try:
        in_time = _ends_within(child, TRIAL_S)
    finally:  # also where a signal ends the wait: what it computes in one go, no signal but this one interrupts
        with interrupt.shielded(), suppress(ProcessLookupError, ChildProcessError):  # SIGCHLD may be ignored here
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
    if not in_time:
        raise ValueError(f"its chat template takes more than {TRIAL_S:g} s for a chat of one word")
    if status:
        raise ValueError(f"its chat template takes more than {MEMORY_BYTES >> 20} MiB for a chat of one word")


def _ends_within(child: int, seconds: float) -> bool:
    """Tell whether a process ends within these seconds; it is not reaped."""
    ends = os.pidfd_open(child)
    try:
        return bool(select.select([ends], [], [], seconds)[0])
    finally:
        os.close(ends)


def _render(tokenizer: PreTrainedTokenizerBase, options: Mapping[str, Any]) -> NoReturn:
    """Be the process that renders a chat; its exit status says whether it had the memory for it."""
    status = 0
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _, bound = resource.getrlimit(resource.RLIMIT_AS)
        most = most if bound == resource.RLIM_INFINITY else min(most, bound)
        resource.setrlimit(resource.RLIMIT_AS, (most, bound))
        tokenizer.apply_chat_template(
            [{"role": "user", "content": "word"}], tokenize=False, add_generation_prompt=True, **options
        )
    except MemoryError:
        status = NO_MEMORY
    except BaseException:  # no trouble of memory or time: whoever renders it next is told of it
        pass
    finally:
        os._exit(status)
