"""Tools: functions that a policy may call, by registered names.

A tool is a class whose constructor takes its options; `spec` is what the chat template tells the policy of it.

    @tools.register("length")
    class Length(Tool):
        description = "Count the characters of a text."
        parameters = {"text": {"type": "string", "description": "The text."}}

        def __call__(self, text: str) -> str:
            return str(len(text))
"""

from __future__ import annotations

import ast
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import cache
from typing import Any, ClassVar

from hybridflow.registry import Registry
from hybridflow.tasks.sandbox import Limits, Sandbox

LARGEST = 10**60  # of what is computed
MOST_DIGITS = 12
OPERATORS: Mapping[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


class ToolError(ValueError):
    """What a policy asked of a tool cannot be done; it is told so."""


class Tool(ABC):
    """Function that a policy may call.

    Attributes:
        description: what it does, for the policy.
        parameters: JSON schemas of its arguments, by name; all are required.
    """

    description: ClassVar[str] = ""
    parameters: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @abstractmethod
    def __call__(self, **arguments: Any) -> str:
        """Do what the policy asks, and return what it is told. Raises ToolError for what cannot be done."""

    @classmethod
    def spec(cls, name: str) -> dict[str, Any]:
        """Return the tool as OpenAI has it."""
        schema = {"type": "object", "properties": dict(cls.parameters), "required": list(cls.parameters)}
        function = {"name": name, "description": cls.description, "parameters": schema}
        return {"type": "function", "function": function}


tools: Registry[type[Tool]] = Registry("tool", __name__, of=Tool)


@tools.register("calculator")
class Calculator(Tool):
    """Exact arithmetic. Nothing is executed: numbers and operators are all that an expression may have."""

    description = "Compute an arithmetic expression with numbers, + - * / // % and parentheses."
    parameters: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "expression": {"type": "string", "description": "The expression, as 17*(3+4)."}
    }

    def __call__(self, expression: str) -> str:  # type: ignore[override]
        try:
            value = _computed(ast.parse(expression.strip(), mode="eval").body)
        except (SyntaxError, RecursionError, MemoryError, ValueError) as error:
            raise ToolError(str(error) if isinstance(error, ToolError) else f"no expression: {expression}") from None
        except ZeroDivisionError:
            raise ToolError("division by zero") from None
        return str(value.numerator) if value.denominator == 1 else f"{float(value):.{MOST_DIGITS}g}"


@tools.register("python")
class Python(Tool):
    """Python programs, each in a sandbox of its own; docs/graders.md says what they have.

    Args:
        test_s: seconds that a program may take.

    Raises HybridFlowError where there is no sandbox.
    """

    description = "Run a Python program and return what it prints."
    parameters: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "program": {"type": "string", "description": "The whole program; only what it prints is seen."}
    }

    def __init__(self, test_s: float = 5.0) -> None:
        self._test_s = test_s
        self._sandbox = _sandbox()

    def __call__(self, program: str) -> str:  # type: ignore[override]
        ended = self._sandbox.run(program, "", self._test_s)
        if ended.status is None:
            return f"{ended.output}\n(ended after {self._test_s:g} s)"
        return ended.output if not ended.status else f"{ended.output}\n(exit status {ended.status})"


@cache
def _sandbox() -> Sandbox:
    """Try once whether there is one."""
    return Sandbox(Limits())


def _computed(node: ast.AST) -> Fraction:
    """Compute an expression. Raises ToolError for what is no arithmetic, or too large."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        value = Fraction(str(node.value))
    elif isinstance(node, ast.UnaryOp) and type(node.op) in OPERATORS:
        value = Fraction(OPERATORS[type(node.op)](_computed(node.operand)))
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        value = Fraction(OPERATORS[type(node.op)](_computed(node.left), _computed(node.right)))
    else:
        raise ToolError("only numbers, + - * / // % and parentheses are known")
    if abs(value) > LARGEST or value.denominator > LARGEST:
        raise ToolError("the numbers become too large")
    return value
