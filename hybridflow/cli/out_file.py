"""Files that commands write for people, as `--out FILE`: refused before they begin to work for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hybridflow.errors import ConfigError

YAML = (".yaml", ".yml")
SVG = (".svg",)
HTML = (".html", ".htm")


def check(option: str, file: Path, what: str, endings: Sequence[str], *, force: bool) -> None:
    """Raise ConfigError for a file that cannot be written, would not be found by its name, or is there already.

    Args:
        option: that names it, as `--out`.
        what: it is, as `a hardware file`.
        endings: that its name may have, the first of which is told.
        force: replace one that is there.
    """
    if file.suffix not in endings:
        raise ConfigError(f"{option} {file}: {what}'s name ends in {endings[0]}")
    if file.exists() and not file.is_file():
        raise ConfigError(f"{option} {file} is there, and is no file; give another name")
    if file.exists() and not force:
        raise ConfigError(f"{option} {file} is there already; give another name, or --force to replace it")
    if not file.absolute().parent.is_dir():
        raise ConfigError(f"{option} {file}: the folder {file.absolute().parent} does not exist")
