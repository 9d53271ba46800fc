"""`hybridflow settings`: every key of the settings, with what it means, what it may be, and its default."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import groupby

from omegaconf import MISSING

from hybridflow.cli.names import names_for
from hybridflow.config import key_suggestions, plugins, sections, setting_keys
from hybridflow.config.setting_keys import ROLE, Setting
from hybridflow.errors import ConfigError
from hybridflow.observe import terminal
from hybridflow.observe.terminal import one_line

HEAD = f"""# Settings

Every key of a run's settings: its default, what it may be, and what it means. It is made of the schema by
`hybridflow settings --markdown`, and `hybridflow train --help` shows the same. [configure.md](configure.md) says how
settings are given and which win; options of tasks, graders and components stand in [tasks.md](tasks.md) and
[algorithms.md](algorithms.md).

`{ROLE}` is `actor`, `critic` or another role with a model. A key without a default must be given where it is used; an
experiment may give it. A number that is not finite (`nan`, `inf`) is refused everywhere. Where a key names a registered
component, yours are allowed too.
"""


def run(argv: Sequence[str]) -> int:
    """Carry out `hybridflow settings ARGV` and return the exit status. Raises ConfigError for an unknown key."""
    parser = argparse.ArgumentParser(prog="hybridflow settings", description=__doc__)
    parser.add_argument("keys", nargs="*", metavar="KEY", help="those whose keys begin so: trainer, actor.optimizer")
    parser.add_argument("--plugins", nargs="+", default=[], metavar="MODULE", help="modules of yours that add some")
    parser.add_argument("--markdown", action="store_true", help="as docs/settings.md")
    options = parser.parse_args(argv)
    plugins.load(options.plugins)
    if options.markdown:
        terminal.say(page())
        return 0
    known = list(setting_keys.declared())
    strange = [key for key in options.keys if not any(_begins(setting.key, [key]) for setting in known)]
    if strange:
        raise ConfigError("\n".join(key_suggestions.unknown(key) or f"{key}: no such key" for key in strange))
    wanted = [setting for setting in known if _begins(setting.key, options.keys)]
    terminal.say("\n".join(map(one_line, _lines(wanted))))
    return 0


def settings_text() -> str:
    """Return all settings as lines of text, for the help of commands that train."""
    return "\n".join(_lines(list(setting_keys.declared())))


def page() -> str:
    """Return docs/settings.md."""
    text = [HEAD]
    for section, settings in groupby(setting_keys.declared(), key=_section):
        text += [
            f"## {section}",
            "",
            *_said(section),
            "| key | default | what it may be | meaning |",
            "|---|---|---|---|",
        ]
        for setting in settings:
            given = f"`{setting.given}`" if setting.given else ""
            text.append(f"| `{setting.key}` | {given} | {_may_be(setting, '`')} | {setting.meaning} |")
        text.append("")
    return "\n".join(text).rstrip()


def _section(setting: Setting) -> str:
    return setting.key.partition(".")[0]


def _said(section: str) -> list[str]:
    """Return the first line that the schema says of a section, as a paragraph."""
    if section == ROLE:
        return ["Of every role with a model in a training engine.", ""]
    kind = type(getattr(sections.whole()(), section))
    return [kind.__doc__.split("\n")[0], ""] if kind.__module__ != "builtins" and kind.__doc__ else []


def _begins(key: str, starts: Sequence[str]) -> bool:
    """Tell whether a key is, or is in, one of `starts`; `actor.optimizer` stands for every role's."""
    of_roles = [
        (start, role) for start in starts for role in setting_keys.roles() if f"{start}.".startswith(f"{role}.")
    ]
    named = [f"{ROLE}{start[len(role) :]}" for start, role in of_roles]
    return not starts or any(f"{key}.".startswith(f"{start.rstrip('.')}.") for start in (*starts, *named))


def _may_be(setting: Setting, mark: str = "") -> str:
    """Return what a setting may be: of a name those that are registered, a user's too."""
    known = names_for(setting.key)
    return ", ".join(f"{mark}{name}{mark}" for name in known()) if known else setting.kind


def _lines(settings: Sequence[Setting]) -> Iterator[str]:
    rows = [(setting.key, setting.given or _absent(setting), _may_be(setting), setting.meaning) for setting in settings]
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:2]]
    for key, given, may_be, meaning in rows:
        yield f"  {key:<{widths[0]}}  {given:<{widths[1]}}  {may_be}{f'  # {meaning}' if meaning else ''}"


def _absent(setting: Setting) -> str:
    return "???" if setting.default == MISSING else ""
