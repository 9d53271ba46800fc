"""What a context manager takes away or sets up is put right however its block is left."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [file for room in ("hybridflow", "tests", "benchmarks") for file in sorted((ROOT / room).rglob("*.py"))]


def unguarded(source: str) -> Iterator[str]:
    """Generators that become context managers and do something after their `yield` that an exception would skip.

    A `yield` is guarded by a `try` around it, with a `finally` or an `except`; or nothing follows it but the end of
    `with` blocks, which guard themselves.
    """
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if any(map(_makes_context, function.decorator_list)) and _skips_something(function.body):
            yield f"{function.name} (line {function.lineno})"


def _makes_context(decorator: ast.expr) -> bool:
    name = ast.unparse(decorator).rpartition(".")[2]
    return name in ("contextmanager", "asynccontextmanager")


def _skips_something(body: list[ast.stmt]) -> bool:
    for number, statement in enumerate(body):
        if isinstance(statement, ast.Try) and (statement.finalbody or statement.handlers):
            continue
        if isinstance(statement, ast.FunctionDef):  # what it yields is its own
            continue
        if not any(isinstance(node, ast.Yield) for node in ast.walk(statement)):
            continue
        inner: list[ast.stmt] = getattr(statement, "body", [])
        follows = body[number + 1 :]
        if inner and isinstance(inner[-1], ast.Return):  # what follows is the other way through the function
            inner, follows = inner[:-1], []
        if follows or _skips_something(inner) or _skips_something(getattr(statement, "orelse", [])):
            return True
    return False


def test_what_follows_the_block_happens_also_after_an_exception() -> None:
    found = {str(file.relative_to(ROOT)): [*unguarded(file.read_text(encoding="utf-8"))] for file in FILES}
    assert {file: names for file, names in found.items() if names} == {}


PLAIN = "@contextmanager\ndef turn():\n    start()\n    {}\n"


@pytest.mark.parametrize(
    ("block", "found"),
    [
        ("yield\n    stop()", True),
        ("with lock():\n        yield\n        stop()", True),
        ("with lock():\n        yield\n    stop()", True),
        ("if quick:\n        yield\n        stop()\n    else:\n        yield", True),
        ("try:\n        yield\n    finally:\n        stop()", False),
        ("with lock():\n        yield", False),
        ("yield", False),
        ("def own():\n        yield\n        stop()\n    with lock(own):\n        yield", False),
        ("if quick:\n        yield\n        return\n    try:\n        yield\n    finally:\n        stop()", False),
    ],
)
def test_it_is_found(block: str, found: bool) -> None:
    assert bool(list(unguarded(PLAIN.format(block)))) == found
