"""Names → parts. Every extensible kind of part has one `Registry`; the config only ever holds names."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from importlib import import_module
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """The parts of one kind, by name.

    Example:
        graders: Registry[Grader] = Registry("grader", "hybridflow.tasks.builtin_graders")

        @graders.register("exact")
        class Exact(Grader): ...

    Args:
        kind: what the parts are, for error messages.
        builtin: modules whose import registers our own parts; imported when a look-up needs them, the one that has
            the name of the part first.
    """

    def __init__(self, kind: str, *builtin: str) -> None:
        self.kind = kind
        self._builtin = builtin
        self._parts: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """A decorator that gives a part its name. Raises ValueError if another part has it."""

        def add(part: T) -> T:
            known = self._parts.get(name)
            if known is not None and _place(known) != _place(part):
                raise ValueError(f"{self.kind} {name!r} is registered twice: {_place(known)} and {_place(part)}")
            self._parts[name] = part
            return part

        return add

    def get(self, name: str) -> T:
        """The part of that name. Raises KeyError with the nearest name and all names."""
        if name in self:
            return self._parts[name]
        near = get_close_matches(name, self._parts, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise KeyError(f"no {self.kind} is named {name!r}{hint} Known: {', '.join(sorted(self._parts)) or 'none'}")

    @property
    def registered(self) -> dict[str, T]:
        """Those that are registered by now; nothing is imported to find more."""
        return dict(self._parts)

    def __contains__(self, name: str) -> bool:
        if name not in self._parts:
            for module in sorted(self._builtin, key=lambda module: module.rpartition(".")[2] != name):
                import_module(module)
                if name in self._parts:
                    break
        return name in self._parts

    def __iter__(self) -> Iterator[str]:
        for module in self._builtin:
            import_module(module)
        return iter(sorted(self._parts))


def _place(part: object) -> str:
    return f"{getattr(part, '__module__', '?')}.{getattr(part, '__qualname__', part)}"


def import_plugins(modules: list[str]) -> None:
    """Import a user's modules so that their parts register.

    Raises ImportError naming the module and, if it was found, the file and line that failed.
    """
    for module in modules:
        try:
            import_module(module)
        except Exception as error:
            raise ImportError(f"plugins: cannot import {module!r}: {_cause(error)}") from error


def _cause(error: Exception) -> str:
    """What went wrong, and on which line of the modules that were being imported (none if none was found)."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}:{error.lineno})"
    text = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
    # The last line at the level of a module: where it names a part twice, not where our registry finds that out.
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name == "<module>"]
    return f"{text} ({lines[-1].filename}:{lines[-1].lineno})" if lines else text
