"""Names → components. Every extensible kind of component has one `Registry`; the config only ever holds names."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Collection, Iterator
from difflib import get_close_matches
from importlib import import_module
from typing import Any, Generic, TypeVar

from hybridflow import former_names
from hybridflow.bounded_code import kept_alive
from hybridflow.errors import HybridFlowError, NameTakenError

T = TypeVar("T")


class Registry(Generic[T]):
    """Registry of the components of one kind, by name.

    Example:
        graders: Registry[Grader] = Registry("grader", "hybridflow.tasks.builtin_graders")

        @graders.register("exact")
        class Exact(Grader): ...

    Args:
        kind: what the components are, for error messages.
        builtin: modules whose import registers our own components; imported when a look-up needs them, the one that has
            the name of the component first.
        of: the class that components derive from, or `collections.abc.Callable`; None: they may be anything.
        own: the names of ours, if their modules are too heavy to be imported to see whether a name is taken.
    """

    def __init__(self, kind: str, *builtin: str, of: Any = None, own: Collection[str] = ()) -> None:
        self.kind = kind
        self._builtin = builtin
        self._of = of
        self._own = own
        self._components: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that gives a component its name.

        Raises NameTakenError if another has it, TypeError if the name or the component is not what it should be.
        """
        if not isinstance(name, str) or not name:
            raise TypeError(f"a {self.kind} was registered under {name!r}: its name was expected, as register('mine')")

        def add(component: T) -> T:
            self._check_kind(name, component)
            if is_users(component):
                self._load_ours(name)
            known = self._components.get(name)
            if known is not None and _place(known) != _place(component):
                places = f"{_place(known)} and {_place(component)}"
                raise NameTakenError(f"{self.kind} {name!r} is registered twice: {places}; give one another name")
            if unwritten := sorted(getattr(component, "__abstractmethods__", ())):
                lacking = ", ".join(unwritten)
                raise TypeError(f"{self.kind} {name!r}: {_place(component)} does not write what it must: {lacking}")
            self._components[name] = component
            return component

        return add

    def _check_kind(self, name: str, component: object) -> None:
        """Raise TypeError if a component is none of this kind."""
        if isinstance(self._of, type) and self._of.__module__ != "collections.abc":
            right = isinstance(component, type) and issubclass(component, self._of)
            wanted = f"a class that derives from {_place(self._of)}"
        else:
            right = self._of is None or callable(component)
            wanted = "a function, or what can be called like one,"
        if not right:
            raise TypeError(f"{self.kind} {name!r}: {wanted} was expected, not {component!r}")

    def _load_ours(self, name: str) -> None:
        """Register our own component of that name, if there is one, so that a user's does not take its place."""
        if not self._own:
            _ = name in self
        elif name in self._own:
            raise NameTakenError(f"{self.kind} {name!r} is one of hybridflow's own; give yours another name")

    def get(self, name: str) -> T:
        """Return the component of a name. Raises KeyError with the nearest name and all names."""
        if name in self:
            return self._components[name]
        raise KeyError(self.unknown(name))

    def unknown(self, name: str) -> str:
        """Say that nothing has this name, with the nearest name and all names."""
        near = get_close_matches(name, self, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        return f"no {self.kind} is named {name!r}{hint} Known: {', '.join(self) or 'none'}"

    @property
    def registered(self) -> dict[str, T]:
        """Parts that are registered by now; nothing is imported to find more."""
        return dict(self._components)

    def __contains__(self, name: str) -> bool:
        if name not in self._components:
            for module in sorted(self._builtin, key=lambda module: module.rpartition(".")[2] != name):
                import_module(module)
                if name in self._components:
                    break
        return name in self._components

    def __iter__(self) -> Iterator[str]:
        for module in self._builtin:
            import_module(module)
        return iter(sorted(self._components))


def _place(component: object) -> str:
    return f"{getattr(component, '__module__', '?')}.{getattr(component, '__qualname__', component)}"


def is_users(component: object) -> bool:
    """Tell whether a component is a function or a class from elsewhere than hybridflow."""
    return getattr(component, "__module__", "builtins").partition(".")[0] not in ("hybridflow", "builtins")


def import_plugins(modules: list[str]) -> None:
    """Import a user's modules so that their components register.

    Raises ImportError naming the module and, if it was found, the file and line that failed.
    """
    here = os.getcwd()
    for module in modules:
        try:
            with kept_alive():
                import_module(module)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may raise anything, such as SystemExit
            cause = " ".join(_cause(error).split("\n"))
            if isinstance(error, ModuleNotFoundError | TypeError) and module.endswith(".py"):
                cause = f"a module is named, not its file: {module.removesuffix('.py').strip('./').replace('/', '.')}"
            elif isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
                cause += f"; looked for in {here} and among installed packages"
            raise ImportError(f"plugins: cannot import {module!r}: {cause}") from error
        finally:
            os.chdir(here)  # where paths of the settings are told from, wherever a module went


def _cause(error: BaseException) -> str:
    """Describe what went wrong, and on which line of the modules that were being imported (none if none is known)."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} ({error.filename}:{error.lineno})"
    message = traceback.format_exception_only(error)[-1].strip()  # also of one whose own text fails
    text = str(error) if isinstance(error, ImportError | HybridFlowError) else message
    text += former_names.hint(error)
    # The last line at the level of a module: where it names a component twice, not where our registry finds that out.
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name == "<module>"]
    return f"{text} ({lines[-1].filename}:{lines[-1].lineno})" if lines else text
