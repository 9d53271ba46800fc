"""Reading and writing of hardware files: YAML with the fields of `Hardware`, each number in SI units.

What a file leaves out of `efficiency` and `overheads` is what `planning.hardware` takes as usual.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

import yaml
from omegaconf import OmegaConf

from hybridflow.config import yaml_file
from hybridflow.config.schema import Device, DType
from hybridflow.errors import ConfigError
from hybridflow.planning.hardware import Curve, Efficiency, Hardware, Link, Overheads

SHEETS = Path(__file__).with_name("sheets")
ZERO = ("cores", "latency_s", "crowded_latency_s", *[field.name for field in fields(Overheads)])
"""Numbers that may be 0; all others are above it."""
WHOLE = ("devices_per_node", "cores")
SHARES = ("matmul", "attention", "link", "reading", "updating")


def hardware_names() -> list[str]:
    """List the names of the hardware files that come with hybridflow."""
    return sorted(file.stem for file in SHEETS.glob("*.yaml"))


def read_hardware(name_or_path: str | Path) -> Hardware:
    """Read a hardware file: ours by its name, or any by its path.

    Raises ConfigError naming the file, the key and what was expected there.
    """
    given = Path(name_or_path).expanduser()
    ours = SHEETS / f"{name_or_path}.yaml"
    if given.suffix not in (".yaml", ".yml") and not ours.is_file():
        text = str(name_or_path)
        near = [name for name in hardware_names() if name.startswith(text)] or get_close_matches(text, hardware_names())
        hint = f"did you mean {' or '.join(near)}? " if near and text else ""
        raise ConfigError(
            f"hardware: nothing is named {text!r}; {hint}There is {', '.join(hardware_names())}; or give the path of a "
            "file that ends in .yaml, as `hybridflow profile` writes it"
        )
    file = ours if ours.is_file() and given.suffix not in (".yaml", ".yml") else given
    if not file.is_file():
        raise ConfigError(f"hardware: {file} does not exist; there is {', '.join(hardware_names())}")
    content = OmegaConf.to_container(yaml_file.load(file))
    assert isinstance(content, dict)
    return _Reader(file).hardware({str(key): value for key, value in content.items()})


def write_hardware(hardware: Hardware, file: Path) -> None:
    """Write a hardware file, which `read_hardware` reads as the same."""
    content = {key: value for key, value in _plain(asdict(hardware)).items() if key != "name"}
    file.write_text(yaml.safe_dump(content, sort_keys=False, width=120), "utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key.value if isinstance(key, Enum) else key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    return value.value if isinstance(value, Enum) else value


class _Reader:
    """Makes values of what a file has, or names what is wrong there."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def hardware(self, content: Mapping[str, Any]) -> Hardware:
        return self._made(Hardware, {"name": self._file.stem, **content}, "")

    def _made(self, kind: Any, content: object, key: str) -> Any:
        """Make a dataclass of a mapping, whose keys are its fields."""
        if not isinstance(content, Mapping):
            self._refuse(key, content, f"a mapping with {', '.join(entry.name for entry in fields(kind))}")
        known = {entry.name: entry for entry in fields(kind)}
        for name in content:
            if name not in known:
                near = get_close_matches(str(name), known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(known)}"
                raise ConfigError(f"{self._file}: {_joined(key, name)}: no such key; {hint}")
        for name, entry in known.items():
            if name not in content and entry.default is MISSING and entry.default_factory is MISSING:
                raise ConfigError(f"{self._file}: {_joined(key, name)} is missing")
        hints = get_type_hints(kind)
        return kind(**{name: self._value(hints[name], value, _joined(key, name)) for name, value in content.items()})

    def _value(self, hint: Any, value: object, key: str) -> Any:
        if hint in (Link, Efficiency, Overheads):
            return self._made(hint, value, key)
        if hint is Curve:
            return self._curve(value, key)
        if hint is Device:
            return self._chosen(Device, value, key)
        if hint is str:
            return str(value)
        if hint in (int, float):
            return self._number(value, key)
        if not isinstance(value, Mapping) or not value:  # flops
            self._refuse(key, value, f"numbers by format ({', '.join(DType)})")
        return {self._chosen(DType, name, key): self._number(number, f"{key}.{name}") for name, number in value.items()}

    def _chosen(self, kind: Any, value: object, key: str) -> Any:
        if value not in [one.value for one in kind]:
            self._refuse(key, value, f"one of {', '.join(kind)}")
        return kind(value)

    def _number(self, value: object, key: str) -> Any:
        name = key.rpartition(".")[2]
        try:
            number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else None
        except ValueError:
            number = None
        if number is None or not 0 <= number < float("inf") or (number == 0 and name not in ZERO):
            self._refuse(key, value, "a number of 0 or more" if name in ZERO else "a number above 0")
        if name in SHARES and number > 1:
            self._refuse(key, value, "a share, of 1 at most")
        if name in WHOLE:
            if number != int(number):
                self._refuse(key, value, "a whole number")
            return int(number)
        return number

    def _curve(self, value: object, key: str) -> Curve:
        """Make a curve of one number, or of a mapping from sizes to shares."""
        if isinstance(value, Mapping) and set(value) == {"sizes", "values"}:
            sizes, values = value["sizes"], value["values"]
            if not isinstance(sizes, Sequence) or not isinstance(values, Sequence):
                self._refuse(key, value, "two lists, sizes and values")
            try:
                return Curve(
                    tuple(self._number(size, f"{key}.sizes") for size in sizes),
                    tuple(self._number(share, key) for share in values),
                )
            except ValueError as error:
                raise ConfigError(f"{self._file}: {key}: {error}") from error
        if isinstance(value, Mapping):
            self._refuse(key, dict(value), "the lists sizes and values, or one share")
        return Curve((1.0,), (self._number(value, key),))

    def _refuse(self, key: str, value: object, expected: str) -> NoReturn:
        raise ConfigError(f"{self._file}: {key or 'the file'}: {value!r} given; {expected} was expected")


def _joined(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)
