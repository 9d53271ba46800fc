r"""Texts on the command line as a user means them: \n, \t and \r; in quotes \\n is a backslash and an n.

Hydra's grammar knows none of them, and shells hand them through, so that `rollout.stop=["\n"]` would wait for a
backslash and an n. YAML has escapes of its own. Nor does it take `~/models` or `modèle` without quotes of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

ESCAPE = re.compile(r"(\\+)([ntr])")
PLAIN = re.compile(r"([+~]*\w[\w./@-]*)=([^'\"\\\[\]{}(),$\n]*)")  # no structure: a text, a number, a name
CONTROL = {"n": "\n", "t": "\t", "r": "\r"}


def meant(lines: Sequence[str]) -> list[str]:
    """Carry out escapes in the values of overrides. What is no override stays as it is."""
    return [_rewritten(line) if ESCAPE.search(line) else line for line in lines]


def quoted(lines: Sequence[str]) -> list[str]:
    """Quote each value without structure that Hydra's grammar does not take."""
    return [_quoted(line) for line in lines]


def _quoted(line: str) -> str:
    match = PLAIN.fullmatch(line)
    if match is None:
        return line
    text = f"{match[1]}='{match[2]}'"
    return text if not _understood(line) and _understood(text) else line


def _understood(line: str) -> bool:
    """Tell whether Hydra's grammar takes a line; what else is wrong with it is reported when it is composed."""
    try:
        OverridesParser.create().parse_override(line)
    except HydraException:
        return False
    except Exception:  # a number of too many digits
        return True
    return True


def _rewritten(line: str) -> str:
    try:
        override = OverridesParser.create().parse_override(line)
    except (HydraException, OmegaConfBaseException):
        return line  # a flag's value, or what will be told when it is composed
    value: Any = override._value
    if override.key_or_group.startswith("hydra.") or not isinstance(
        value, str | QuotedString | list | dict | ChoiceSweep
    ):
        return line
    elements = value.list if isinstance(value, ChoiceSweep) else [value]
    return f"{line.partition('=')[0]}={','.join(_text(_carried_out(element)) for element in elements)}"


def _carried_out(value: Any) -> Any:
    if isinstance(value, list):
        return [_carried_out(entry) for entry in value]
    if isinstance(value, dict):
        return {key: _carried_out(entry) for key, entry in value.items()}
    text = value.text if isinstance(value, QuotedString) else value
    if not isinstance(text, str) or not ESCAPE.search(text):
        return value
    quote = value.quote if isinstance(value, QuotedString) else Quote.single
    return QuotedString(ESCAPE.sub(_replaced, text), quote)


def _replaced(match: re.Match[str]) -> str:
    slashes, letter = match.groups()
    half = "\\" * (len(slashes) // 2)
    return half + (CONTROL[letter] if len(slashes) % 2 else letter)


def _text(value: Any) -> str:
    return Override._get_value_element_as_str(value)
