"""The HTML file of a report: one page with its data, its styles and its script, which asks for nothing else.

What models, graders and people wrote stands in it as JSON alone, in which no character can end the element around it;
the script puts it into the page as text. The content-security policy lets nothing run but that script, by its hash, and
nothing be asked for.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from typing import Any

from hybridflow.observe.plain_json import as_json
from hybridflow.observe.report.document import document
from hybridflow.observe.run_records import RunRecords
from hybridflow.observe.secret_values import redacted, secrets
from hybridflow.observe.terminal import visible

MAX_BYTES = 2_000_000
SHARES = (1.0, 0.5, 0.25, 0.1, 0.03)  # of what is shown if there were room, tried in turn
SCRIPTS = (
    "elements.js", "charts.js", "overview.js", "curves.js", "times.js", "timeline.js", "rollouts.js", "records.js",
    "page.js",
)  # fmt: skip
ESCAPED = {ord(character): f"\\u{ord(character):04x}" for character in "<>&"}  # with them tags and entities begin


def page_of(runs: Sequence[RunRecords]) -> str:
    """Return the HTML file that shows runs, of `MAX_BYTES` at most where less can be shown."""
    for share in SHARES:
        html = page(document(runs, share))
        if len(html.encode()) <= MAX_BYTES:
            break
    return html


def page(shown: dict[str, Any]) -> str:
    """Return the HTML file that shows a document."""
    folder = files(__package__).joinpath("assets")
    style = folder.joinpath("page.css").read_text(encoding="utf-8")
    sources = [folder.joinpath(name).read_text(encoding="utf-8") for name in SCRIPTS]
    script = "\n".join(['"use strict";', "{", *sources, "}", ""])
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; base-uri 'none'; "
        "form-action 'none'"
    )
    html = folder.joinpath("page.html").read_text(encoding="utf-8")
    parts = {"POLICY": policy, "STYLE": style, "DATA": embedded(shown), "SCRIPT": script}
    pieces = html.split("@@")  # text and names in turn
    return "".join(parts[piece] if place % 2 else piece for place, piece in enumerate(pieces))


def embedded(shown: object) -> str:
    """Write a document as JSON that can stand in an HTML element; what would be obeyed, not shown, is escaped in it."""
    return as_json(_visible(shown, secrets()), ensure_ascii=False, separators=(",", ":")).translate(ESCAPED)


def _visible(value: object, known: Mapping[str, str]) -> object:
    """Escape texts, and leave secrets out of them: not of the JSON, in which digits may be a number's."""
    if isinstance(value, str):
        return visible(redacted(value, known))
    if isinstance(value, dict):
        return {visible(str(name)): _visible(entry, known) for name, entry in value.items()}
    return [_visible(entry, known) for entry in value] if isinstance(value, list | tuple) else value


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
