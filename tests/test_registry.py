"""Names → parts."""

from __future__ import annotations

import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hybridflow.registry import Registry, import_plugins


@pytest.fixture
def graders() -> Registry[Callable[[], int]]:
    registry: Registry[Callable[[], int]] = Registry("grader")

    @registry.register("exact")
    def exact() -> int:
        return 1

    return registry


def test_a_part_by_its_name(graders: Registry[Callable[[], int]]) -> None:
    assert graders.get("exact")() == 1
    assert "exact" in graders and "other" not in graders
    assert list(graders) == ["exact"]


def test_names_come_sorted(graders: Registry[Callable[[], int]]) -> None:
    graders.register("at_least")(lambda: 2)
    assert list(graders) == ["at_least", "exact"]


def test_a_near_miss_names_the_nearest(graders: Registry[Callable[[], int]]) -> None:
    with pytest.raises(KeyError, match=r"no grader is named 'exakt'; did you mean 'exact'\? Known: exact"):
        graders.get("exakt")


def test_a_far_miss_names_all(graders: Registry[Callable[[], int]]) -> None:
    with pytest.raises(KeyError, match=r"no grader is named 'zzz'\. Known: exact"):
        graders.get("zzz")
    with pytest.raises(KeyError, match=r"no task is named 'zzz'\. Known: none"):
        Registry("task").get("zzz")


def test_a_name_is_given_once(graders: Registry[Callable[[], int]]) -> None:
    with pytest.raises(ValueError, match=r"grader 'exact' is registered twice: .*graders.*exact and .*lambda"):
        graders.register("exact")(lambda: 2)
    assert graders.get("exact")() == 1


def test_the_same_part_again_is_no_clash(graders: Registry[Callable[[], int]]) -> None:
    graders.register("exact")(graders.get("exact"))
    assert list(graders) == ["exact"]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], str]]:
    """Write an importable module; forget it after the test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    written: list[str] = []

    def write(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        written.append(name)
        return name

    yield write
    for name in written:
        sys.modules.pop(name, None)


def test_built_in_parts_load_when_a_look_up_needs_them(module: Callable[[str, str], str]) -> None:
    module("things_of_a_test", "from hybridflow.registry import Registry\nthings = Registry('thing', 'light', 'heavy')")
    text = "from things_of_a_test import things\nthings.register({!r})(object())"
    light, heavy = module("light", text.format("light")), module("heavy", text.format("heavy"))
    from things_of_a_test import things  # type: ignore[import-not-found]

    things.register("mine")(object())
    assert "mine" in things
    assert light not in sys.modules and heavy not in sys.modules
    assert "heavy" in things
    assert light not in sys.modules and heavy in sys.modules  # the module of that name comes first
    assert list(things) == ["heavy", "light", "mine"]
    assert light in sys.modules


def test_plugins_are_imported(module: Callable[[str, str], str]) -> None:
    name = module("plugin_of_a_test", "LOADED = True")
    import_plugins([name])
    assert sys.modules[name].LOADED


def test_a_plugin_that_is_missing_is_named() -> None:
    with pytest.raises(ImportError, match=r"plugins: cannot import 'no_such_plugin': .*; looked for in /.* and among"):
        import_plugins(["no_such_plugin"])


@pytest.mark.parametrize("file", ["sums.py", "./sums.py", "my_pkg/sums.py"])
def test_a_plugin_given_as_a_file_is_told_its_module(file: str) -> None:
    expected = file.removeprefix("./").removesuffix(".py").replace("/", ".")
    with pytest.raises(ImportError, match=rf"a module is named, not its file: {re.escape(expected)}$"):
        import_plugins([file])


BROKEN = {
    "import": ("x = 1\nimport no_such_dependency", "No module named 'no_such_dependency'", 2),
    "syntax": ("x = 1\n\ny = (", "SyntaxError: '(' was never closed", 3),
    "call": ("def f():\n    return 1 / 0\n\nf()", "ZeroDivisionError: division by zero", 4),
    "twice": (
        "from hybridflow.losses.kl_estimators import kl_estimators\n\nkl_estimators.register('k1')(print)",
        "KL estimator 'k1' is registered twice: hybridflow.losses.kl_estimators.",
        3,
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_plugin_that_fails_is_named_with_its_file_and_line(module: Callable[[str, str], str], kind: str) -> None:
    text, cause, line = BROKEN[kind]
    name = module(f"broken_{kind}_of_a_test", text)
    with pytest.raises(ImportError) as found:
        import_plugins([name])
    told = str(found.value)
    assert told.startswith(f"plugins: cannot import {name!r}: {cause}") and told.endswith(f"{name}.py:{line})")


@pytest.mark.parametrize(
    ("text", "now"),
    [
        ("from hybridflow.losses.policy import policy_losses", "hybridflow.losses.policy_losses"),
        ("from hybridflow.losses.ratios import held_exp", "clamped_exp"),
        ("from hybridflow import BatchRef\nBatchRef.here", "from_local"),
    ],
)
def test_a_plugin_of_an_earlier_version_is_told_what_its_import_is_called_now(
    module: Callable[[str, str], str], text: str, now: str
) -> None:
    with pytest.raises(ImportError, match=rf"; it is called {now} now \(.*older.py:\d\)"):
        import_plugins([module("older", text)])


@pytest.mark.parametrize(
    "text", ["import hybridflow.nothing", "from hybridflow.losses.ratios import here_not", "''.here"]
)
def test_other_names_that_are_not_there_get_no_hint(module: Callable[[str, str], str], text: str) -> None:
    with pytest.raises(ImportError, match="cannot import 'wrong'") as told:
        import_plugins([module("wrong", text)])
    assert "is called" not in str(told.value)


def test_what_is_registered_by_now_imports_nothing() -> None:
    registry: Registry[int] = Registry("number", "tests.no_such_module")
    registry.register("one")(1)
    assert registry.registered == {"one": 1}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("raise SystemExit(0)", r"cannot import 'mine': SystemExit: 0 \(.*mine.py:1\)"),
        ("class Stop(BaseException): ...\nraise Stop('no')", r"mine.Stop: no \(.*mine.py:2\)"),
        ("raise GeneratorExit", r"GeneratorExit \(.*mine.py:1\)"),
        ("x = 1\ndef f(:", r"SyntaxError: .* \(.*mine.py:2\)"),
        (
            "class E(Exception):\n def __str__(self): raise ValueError\nraise E",
            r"<exception str\(\) failed> \(.*mine.py:3",
        ),
        ("raise ValueError('a\\nb')", r"ValueError: a b \(.*mine.py:1\)"),
        ("def f(): f()\nf()", r"RecursionError: .* \(.*mine.py:2\)"),
    ],
)
def test_whatever_a_plugin_raises_names_its_file_and_line(
    module: Callable[[str, str], str], text: str, told: str
) -> None:
    with pytest.raises(ImportError, match=told) as error:
        import_plugins([module("mine", text)])
    assert "\n" not in str(error.value)


REGISTRIES = "from hybridflow.tasks import graders, tasks, Task\nfrom hybridflow.workers import workers, Worker\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "graders.register('exact')(lambda r, a: 1.0)",
            "grader 'exact' is registered twice: hybridflow.tasks.builtin_g",
        ),
        (
            "@tasks.register('addition')\nclass A(Task): ...",
            "task 'addition' is registered twice: hybridflow.tasks.add",
        ),
        ("@workers.register('actor')\nclass A(Worker): ...", "worker 'actor' is one of hybridflow's own"),
        ("@workers.register('cost_model')\nclass A(Worker): ...", "worker 'cost_model' is one of hybridflow's own"),
        (
            "@tasks.register('mine')\nclass A: ...",
            "task 'mine': a class that derives from hybridflow.tasks.task.Task was",
        ),
        ("tasks.register('mine')(object())", "task 'mine': a class that derives from"),
        (
            "graders.register('mine')(5)",
            "grader 'mine': a function, or what can be called like one, was expected, not 5",
        ),
        ("graders.register(lambda r, a: 1.0)", "its name was expected, as register('mine')"),
        ("graders.register('')", "a grader was registered under '': its name was expected"),
    ],
)
def test_a_taken_name_and_a_part_of_another_kind_are_told_where_they_are_registered(
    module: Callable[[str, str], str], text: str, told: str
) -> None:
    with pytest.raises(ImportError, match=r"mine\.py:3") as error:
        import_plugins([module("mine", REGISTRIES + text)])
    assert told in str(error.value)


def test_a_class_that_leaves_something_unwritten_is_refused() -> None:
    class Base(ABC):
        @classmethod
        @abstractmethod
        def build(cls) -> int: ...

        @abstractmethod
        def act(self) -> None: ...

    registry: Registry[type[Base]] = Registry("engine", of=Base)
    with pytest.raises(TypeError, match=r"engine 'half': .*Half does not write what it must: act$"):

        @registry.register("half")
        class Half(Base):
            @classmethod
            def build(cls) -> int:
                return 1
