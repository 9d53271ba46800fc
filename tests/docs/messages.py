"""The messages in the source, as templates: `…` stands for what is filled in."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

from tests.docs.blocks import ROOT

FILLED_LATER = re.compile(r"%(?:\.\d)?[sdrgf]|\{[a-z_]+\}")  # by logging, or by str.format


def template(node: ast.AST | None) -> str:
    """The text of a string or an f-string; "" of anything else."""
    match node:
        case ast.Constant(value=str(text)):
            return FILLED_LATER.sub("…", text)
        case ast.JoinedStr(values=parts):
            text = "".join(template(part) if isinstance(part, ast.Constant) else "…" for part in parts)
            return re.sub("……+", "…", text)
    return ""


@cache
def trees() -> dict[str, ast.Module]:
    """Each module of the package, parsed, by its path."""
    files = sorted((ROOT / "hybridflow").rglob("*.py"))
    return {str(file.relative_to(ROOT)): ast.parse(file.read_text(encoding="utf-8")) for file in files}


@cache
def texts() -> frozenset[str]:
    """Every text in the package."""
    return frozenset(
        " ".join(text.split()) for tree in trees().values() for node in ast.walk(tree) if (text := template(node))
    )


def raised(classes: set[str]) -> Iterator[tuple[str, str]]:
    """The place and the text of each error of these classes that is raised with words of its own."""
    for path, tree in trees().items():
        for node in ast.walk(tree):
            match node:
                case ast.Raise(exc=ast.Call(func=ast.Name(id=name), args=[text, *_])) if name in classes:
                    words = " ".join(template(text).split())
                    if re.search(r"\w{2}", words):
                        yield f"{path}:{node.lineno}", words
