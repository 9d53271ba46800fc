"""The way of text to a terminal. What comes from elsewhere (models, files, names) moves no cursor and hides nothing.

Everything that the driver prints goes through here: `say` and `complain` for text, `draw` for what rich draws of
`cell`s, `tamed` around code that prints by itself. Files are not written this way: JSON has escapes of its own.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import TYPE_CHECKING, TextIO

from hybridflow.observe.secret_values import redacted

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

# C0 and C1 but for tab and newline, what reorders or hides text (bidi, zero width, tags), other ends of lines, and
# surrogates, which no encoding takes. The two joiners stay: scripts are written with them.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_BREAKS = re.compile(r"[\t\n]")
WIDEST = 1000  # characters of a line that is not drawn on a terminal
_unread: set[int] = set()  # descriptors whose reader went away


def visible(text: str) -> str:
    """Escape what a terminal would obey instead of showing, as Python does; lines stay lines."""
    return _UNSEEN.sub(_escape, text)


def one_line(text: str) -> str:
    """Escape as `visible` does, and newlines and tabs too: for names and values inside a line."""
    return _BREAKS.sub(_escape, visible(text))


def cell(text: str, style: str = "") -> Text:
    """Make one line that rich draws as it is: brackets are no markup, `:names:` no emoji."""
    from rich.text import Text

    return Text(one_line(text), style=style)


def say(text: str) -> None:
    """Print on standard output."""
    _write(visible(text), sys.stdout)


def complain(text: str) -> None:
    """Print on standard error."""
    _write(visible(text), sys.stderr)


def complainer() -> Callable[[str], None]:
    """Return what prints on the standard error of now, also from inside of `tamed`."""
    stream = sys.stderr
    return lambda text: _write(visible(text), stream)


def draw(console: Console, thing: RenderableType, *, has_edge: bool = False) -> None:
    """Print what rich draws; names and values in it are `cell`s.

    Args:
        has_edge: it is drawn for the width of the console, also in a file; else nothing of it is cut there.
    """
    if not has_edge and not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDEST  # a file has no edge at which a path would be cut
    with console.capture() as drawn:
        console.print(thing)
    _write(drawn.get(), sys.stdout, end="")


@contextmanager
def tamed() -> Iterator[None]:
    """Hold back what others print in the block; it is shown escaped when the block is left, however that is."""
    out = io.StringIO()
    err = io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            yield
    finally:
        for kept, stream in ((out, sys.stdout), (err, sys.stderr)):
            if kept.getvalue():
                _write(visible(kept.getvalue()), stream, end="")


def _write(text: str, stream: TextIO, end: str = "\n") -> None:
    text = redacted(text)
    encoding = stream.encoding or "utf-8"
    text = text.encode(encoding, "backslashreplace").decode(encoding)  # a terminal may not be one of UTF-8
    try:
        print(text, file=stream, end=end, flush=True)
    except BrokenPipeError:  # the reader went away (`| head`): what is run goes on, and nobody hears of it
        with suppress(OSError, ValueError):
            turn_to_nowhere(stream.fileno())


def turn_to_nowhere(descriptor: int) -> None:
    """Let what is written to a descriptor from now on be dropped."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
    _unread.add(descriptor)


def is_read(stream: TextIO) -> bool:
    """Tell whether a stream may still have a reader: it has none once something was written after that went away."""
    try:
        return stream.fileno() not in _unread
    except (OSError, ValueError):  # no file behind it
        return True


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape", "surrogatepass").decode("ascii")
