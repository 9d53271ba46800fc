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
MOST = 1e24  # of a number, and 1 / MOST the least: beyond any device, and what is made of them is finite
SHARES = ("matmul", "attention", "link", "reading", "updating")


def hardware_names() -> list[str]:
    """List the names of the hardware files that come with hybridflow."""
    return sorted(file.stem for file in SHEETS.glob("*.yaml"))


def read_hardware(name_or_path: str | Path) -> Hardware:
    """Read a hardware file: ours by its name, or any by its path.

    Raises ConfigError naming the file, the key and what was expected there.
    """
    text = str(name_or_path)
    given = Path(name_or_path).expanduser()
    ours = text in hardware_names()
    if given.suffix not in (".yaml", ".yml") and not ours:
        near = [name for name in hardware_names() if name.startswith(text)] or get_close_matches(text, hardware_names())
        hint = f"did you mean {' or '.join(near)}? " if near and text else ""
        raise ConfigError(
            f"hardware: nothing is named {text!r}; {hint}There is {', '.join(hardware_names())}; or give the path of a "
            "file that ends in .yaml, as `hybridflow profile` writes it"
        )
    file = SHEETS / f"{text}.yaml" if ours else given
    if not file.is_file():
        why = "is no file" if file.exists() else "does not exist"
        raise ConfigError(f"hardware: {file} {why}; there is {', '.join(hardware_names())}")
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
            return self._chosen((Device.cpu, Device.gpu), value, key)
        if hint is str:
            return self._text(value, key)
        if hint in (int, float):
            return self._number(value, key)
        if not isinstance(value, Mapping) or not value:  # flops
            self._refuse(key, value, f"numbers by format ({', '.join(DType)})")
        return {
            self._chosen(tuple(DType), name, key): self._number(number, f"{key}.{name}")
            for name, number in value.items()
        }

    def _chosen(self, choices: Sequence[Any], value: object, key: str) -> Any:
        if value not in [one.value for one in choices]:
            self._refuse(key, value, f"one of {', '.join(choices)}")
        return type(choices[0])(value)

    def _text(self, value: object, key: str) -> str:
        if not isinstance(value, str | int | float):  # 2024 is a source too
            self._refuse(key, value, "a text")
        return str(value)

    def _number(self, value: object, key: str) -> Any:
        name = key.rpartition(".")[2]
        try:
            number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else None
        except (ValueError, OverflowError):
            number = None
        if number is None or not number >= 0 or (number == 0 and name not in ZERO):
            self._refuse(key, value, "a number of 0 or more" if name in ZERO else "a number above 0")
        if number > MOST or (number < 1 / MOST and name not in ZERO):
            self._refuse(key, value, f"a number between {0 if name in ZERO else 1 / MOST:g} and {MOST:g}")
        if name in SHARES and number > 1:
            self._refuse(key, value, "a share, of 1 at most")
        if name in WHOLE:
            if number != int(number) or number > 2**16:
                self._refuse(key, value, f"a whole number of at most {2**16}")
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
