"""Trial of a chat template in a process of its own: a template is a program, and may come from anywhere.

What Python computes in one go, `9 ** 9 ** 9` or a text of 10 GB, no alarm interrupts, and the memory is this process'.
"""

from __future__ import annotations

import os
import resource
import select
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

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
    ends = os.pidfd_open(child)
    in_time = bool(select.select([ends], [], [], TRIAL_S)[0])
    os.close(ends)
    if not in_time:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not in_time:
        raise ValueError(f"its chat template takes more than {TRIAL_S:g} s for a chat of one word")
    if status:
        raise ValueError(f"its chat template takes more than {MEMORY_BYTES >> 20} MiB for a chat of one word")


def _render(tokenizer: PreTrainedTokenizerBase, options: Mapping[str, Any]) -> NoReturn:
    """Be the process that renders a chat; its exit status says whether it had the memory for it."""
    status = 0
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))
        tokenizer.apply_chat_template(
            [{"role": "user", "content": "word"}], tokenize=False, add_generation_prompt=True, **options
        )
    except MemoryError:
        status = NO_MEMORY
    except BaseException:  # no trouble of memory or time: whoever renders it next is told of it
        status = 0
    finally:
        os._exit(status)
