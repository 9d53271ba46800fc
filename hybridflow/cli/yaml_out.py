"""The `--out FILE` of commands that write settings: refused before they begin to work for it."""

from __future__ import annotations

from pathlib import Path

from hybridflow.errors import ConfigError


def check(out: Path, what: str, *, force: bool) -> None:
    """Raise ConfigError for a file that cannot be written, would not be found by its name, or is there already.

    Args:
        what: it is, as `a hardware file`.
        force: replace one that is there.
    """
    if out.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"--out {out}: {what}'s name ends in .yaml")
    if out.exists() and not out.is_file():
        raise ConfigError(f"--out {out} is there, and is no file; give another name")
    if out.exists() and not force:
        raise ConfigError(f"--out {out} is there already; give another name, or --force to replace it")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"--out {out}: the folder {out.absolute().parent} does not exist")
