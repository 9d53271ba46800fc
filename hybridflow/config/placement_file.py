"""Placement in a file of its own, wherever it is: `placement=found.yaml`, as `hybridflow map` writes one.

It sets the parallel sizes of roles too, which experiments do, so it comes after all other files. So does an option of
the group that says `# @package _global_`; only the command line wins over them.
"""

from __future__ import annotations

from pathlib import Path

from hybridflow.errors import ConfigError

GROUP = "placement"
ENDINGS = (".yaml", ".yml")
ANYWHERE = "_global_"  # Hydra's name of the package of a file whose keys are those of the whole configuration


def file_of(config_path: str) -> Path | None:
    """Return the file that a choice in the group names by its path; None if it names an option, or is of another group.

    Args:
        config_path: as Hydra has it, the group and what was chosen.
    """
    group, _, chosen = config_path.partition("/")
    return Path(chosen).expanduser() if group == GROUP and chosen.endswith(ENDINGS) else None


def check_package(file: Path, package: str | None) -> None:
    """Refuse a file, chosen by its path, that says its keys are those of a section: they would be taken for others."""
    if package not in (None, "", ANYWHERE):
        raise ConfigError(
            f"{file}: its first line says `# @package {package}`, but a placement that is chosen by its path sets keys "
            f"of the whole configuration; write `# @package {ANYWHERE}`"
        )


def comes_last(config_path: str | None, package: str | None) -> bool:
    """Tell whether a file is a placement that sets keys of all sections; its package, once found, is then the top."""
    return package in ("", ANYWHERE) and (config_path or "").startswith(f"{GROUP}/")
