"""Messages for errors of Hydra and OmegaConf: one line that names the key, what is wrong, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from hydra.core.override_parser.types import Override
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    ConfigTypeError,
    OmegaConfBaseException,
    ValidationError,
)

from hybridflow.config import key_suggestions, placement_file, secret_settings, wrong_types, yaml_file
from hybridflow.config.provenance import Origins

WHOLE = ("algorithm", "task")  # groups whose options say what the whole section is
LEXER = "LexerNoViableAltException"  # a character that no word of the grammar has: its message is the override again


def bad_overrides(overrides: Iterable[Override], groups: list[str]) -> list[str]:
    """List overrides of keys that the schema lacks, whatever their prefix (`+` would else add them unchecked)."""
    problems = []
    for override in overrides:
        key = override.key_or_group
        is_group = key.partition("/")[0] in {*groups, "hydra"} and ("/" in key or key in groups)
        plain = not override.is_sweep_override() and not override.is_delete()
        if is_group and plain and not _names_options(override.value()):
            problems.append(f"{override.input_line}: {key} is a group: name one of its options, or leave it out")
        if is_group or key.startswith("hydra.") or override.package is not None:
            continue
        problem = key_suggestions.unknown(key, groups)
        if problem:
            problems.append(problem)
    return problems


def _names_options(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(name, str) for name in value))


def mixed(overrides: Iterable[Override], ours: Path) -> list[str]:
    """List overrides that put two of our recipes, or two of our tasks, on top of each other.

    Args:
        ours: the folder of our own options, each of which is a whole one; one of the user's may change another.
    """
    problems = []
    for override in overrides:
        group = override.key_or_group
        value = None if override.is_sweep_override() or override.is_delete() else override.value()
        chosen = value if group in WHOLE and isinstance(value, list) else []
        whole = [name for name in chosen if isinstance(name, str) and (ours / group / f"{name}.yaml").is_file()]
        if len(whole) > 1:
            problems.append(
                f"{override.input_line}: each of {', '.join(whole)} is a whole {group}, and a later one would change "
                f"some settings of the first; name one and change its keys, as {group}.KEY=VALUE, or run one after the "
                f"other with -m {group}={','.join(whole)}"
            )
    return problems


def sweeps(overrides: Iterable[Override], groups: Iterable[str] = ()) -> list[str]:
    """List overrides with several values, which only a sweep can take."""
    known = {*groups}
    return [
        f"{secret_settings.without_secret(str(override.input_line))}: several values need -m (a sweep)"
        + ("" if override.key_or_group in known else _written_otherwise(override.key_or_group))
        for override in overrides
        if override.is_sweep_override()
    ]


def _written_otherwise(key: str) -> str:
    return f"; a list is written {key}=[a,b], and a comma inside a text is quoted: \"{key}='a,b'\""


def composition(error: Exception, origins: Origins) -> str:
    """Return the message for what composing raised.

    Args:
        error: from Hydra or OmegaConf.
        origins: the files and overrides that were composed, as far as known.
    """
    if isinstance(error, OverrideParseException):
        if re.fullmatch(r"[\w-]+", error.override):
            return f"{error.override}: not understood; write key=value, as experiment={error.override}"
        written = secret_settings.without_secret(error.override)
        detail = "" if LEXER in _first_line(error) or written != error.override else f": {_first_line(error)}"
        return (
            f"{written}: not understood; write key=value, and quote it for the shell (a text with brackets, "
            f"commas or quotes twice, as \"key='a, b'\"){detail}"
        )
    if isinstance(error, MissingConfigException):
        return _missing_option(error)
    if isinstance(error, RecursionError):
        return "composing does not end: a file's `defaults` come back to the file, or a value is nested very deeply"
    if there := re.search(r"An item is already at '(.+)'", _first_line(error)):
        return _placed(f"{there[1]}: has a value already; write {there[1]}=VALUE, without the +", there[1], origins)
    cause = error if isinstance(error, OmegaConfBaseException) else _omegaconf_cause(error)
    key = getattr(cause, "full_key", None)
    if cause is not None and not key and (unnamed := _in_a_file(origins)) is not None:
        return unnamed
    if cause is None or not key or key.startswith("hydra."):
        return _first_line(error)
    if isinstance(cause, ConfigAttributeError | ConfigKeyError):
        if (stray := _without_package(key, origins)) is not None:
            return stray
        problem = key_suggestions.unknown(key) or f"{key}: {_first_line(cause)}"
        return _placed(problem, key, origins)
    told = wrong_types.described(key, cause) if isinstance(cause, ValidationError | ConfigTypeError) else None
    return _placed(told or f"{key}: {_first_line(cause)}", key, origins)


def _in_a_file(origins: Origins) -> str | None:
    """Find the setting of a file that has another form than the schema, of which OmegaConf does not say which it is."""
    for layer in origins.layers:
        tree = OmegaConf.to_container(yaml_file.load(layer.file), resolve=False)
        for key, told in wrong_types.in_tree(tree, layer.package):
            return _placed(told, key, origins)
    return None


def _without_package(key: str, origins: Origins) -> str | None:
    """Explain a file of a group that is no section, as `experiment`, that does not say where its keys belong."""
    group = key.partition(".")[0]
    for layer in origins.layers:
        if layer.package == group and key_suggestions.unknown(group):
            return (
                f"{layer.file}: its first line must be `# @package _global_`; without it, its settings are taken for "
                f"those of a section {group!r}, and there is none"
            )
    return None


def _placed(problem: str, key: str, origins: Origins) -> str:
    place = origins.find(key.partition("[")[0])  # an entry of a list is set with the list
    return f"{problem} ({place})" if place else problem


def _missing_option(error: MissingConfigException) -> str:
    if (file := placement_file.file_of(error.missing_cfg_file or "")) is not None:
        return f"{placement_file.GROUP}={file}: there is no such file, and no option of that name"
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    options = sorted(error.options or [])
    if not group:
        return f"no primary configuration is named {option!r}: {_first_line(error)}"
    near = get_close_matches(option, options, n=1)
    hint = f"; did you mean {near[0]}?" if near else "."
    there = ", ".join(options) or "none"
    yours = "those of a folder of yours with -cd FOLDER"
    by_name = next((key for key in (f"{group}.name", f"{group}.grader") if key_suggestions.kind_of(key)), None)
    registered = f"; what is registered and has no option: {by_name}={option}" if by_name and not near else ""
    return f"{group}={option}: {group} has no such option{hint} Options: {there}; {yours}{registered}"


def missing(absent: Mapping[str, Sequence[str]], experiments: Iterable[str]) -> list[str]:
    """Name each mandatory key that nothing has set in a line, and the experiments to choose from, if any.

    Args:
        absent: by key, the options of its group that would set it.
    """
    lines = []
    for key, options in absent.items():
        by_option = f"; or choose {key.partition('.')[0]}=NAME, one of {', '.join(options)}" if options else ""
        lines.append(f"{key}: must be given, as {key}=VALUE{by_option}")
    names = ", ".join(experiments)
    return [*lines, f"An experiment sets them too: experiment=NAME, one of {names}"] if names else lines


def _omegaconf_cause(error: BaseException) -> OmegaConfBaseException | None:
    """Return the OmegaConf error behind Hydra's, which raises with and without `from`."""
    behind = error.__cause__ or error.__context__
    while behind is not None and not isinstance(behind, OmegaConfBaseException):
        behind = behind.__cause__ or behind.__context__
    return behind


def one_line(error: Exception) -> str:
    """Return an error as a line: its own words if it is of a value, else with its class before them."""
    return _first_line(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    """Return the first line of an error, and the second if the first only announces it."""
    text = str(error) or (str(error.__cause__) if error.__cause__ else type(error).__name__)
    return re.sub(r":\n\s*", ": ", text, count=1).split("\n")[0]
