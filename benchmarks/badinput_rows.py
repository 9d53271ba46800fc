"""Rows of `benchmarks.badinput`: what is wrong with one row, or with what settings want of a file."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.badinput_case import GOOD, GOOD_TEXT, GOODS, PACKED, Case, both, content, data, lines

Q = {"question": "1+1=", "answer": "2"}


def _row(name: str, said: str, row: Any, *settings: str, **more: Any) -> Case:
    """Return a file with one bad row, the seventh line, among good ones."""
    return data(name, said, lines("rows.jsonl", *GOOD[:6], row, *GOOD[6:]), *settings, **more)


def _chat(name: str, said: str, messages: Any, *settings: str) -> Case:
    good = [
        {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "1"}]} for n in range(9)
    ]
    write = lines("rows.jsonl", *good, {"messages": messages})
    return data(f"chat: {name}", said, write, "actor.model.path=models/chat", *settings)


ROWS = (
    _row("NUL bytes", r"rows\.jsonl:7: (not JSON|column)", '{"question": "a\0b", "answer": "1"}'),
    _row("an escaped NUL in a prompt", r"rows\.jsonl:7|no token|unknown", '{"question": "a\\u0000b", "answer": "1"}'),
    _row("not UTF-8", "byte 15 of the row is not UTF-8", '{"question": "\udcff", "answer": "1"}'),
    _row("half of a surrogate pair", "(rows.jsonl:7|row 6).*", '{"question": "\\ud800", "answer": "1"}'),
    _row("a BOM in the middle", r"rows\.jsonl:7: not JSON", "\ufeff" + json.dumps(Q)),
    _row("cut short in the middle", r"rows\.jsonl:7: not JSON at character", '{"question": "1", "ans'),
    _row("an array", r"rows\.jsonl:7: .*no JSON object", [1, 2]),
    _row("a number", r"rows\.jsonl:7: .*no JSON object", "7"),
    _row("null", r"rows\.jsonl:7: .*no JSON object", "null"),
    _row("a text", r"rows\.jsonl:7: .*no JSON object", '"text"'),
    _row("two objects in a line", r"rows\.jsonl:7: not JSON at character", json.dumps(Q) + json.dumps(Q)),
    _row("single quotes", r"rows\.jsonl:7: not JSON", str(Q)),
    _row("a comma at the end", r"rows\.jsonl:7: not JSON", '{"question": "1", "answer": "1",}'),
    _row(
        "deep brackets", r"rows\.jsonl:7: not readable as JSON", '{"question": ' + "[" * 100_000 + "]" * 100_000 + "}"
    ),
    _row(
        "deep enough to be read, too deep to be written",
        r"rows\.jsonl:7|deep|nested|brackets",
        '{"question": "1", "answer": "1", "x": ' + "[" * 900 + "]" * 900 + "}",
        status=2,
    ),
    _row("NaN", r"rows\.jsonl:7: column 'x' is NaN", '{"question": "1", "answer": "1", "x": NaN}'),
    _row("1e999", r"rows\.jsonl:7: column 'x' is NaN, infinite", '{"question": "1", "answer": "1", "x": 1e999}'),
    _row(
        "an int of 5,000 digits",
        r"rows\.jsonl:7: not readable as JSON",
        '{"question": "1", "answer": ' + "9" * 5000 + "}",
    ),
    _row(
        "a key twice",
        r"rows\.jsonl:7: column 'answer' is there 2 times",
        '{"question": "1", "answer": "1", "answer": "2"}',
    ),
    _row(
        "a key twice inside",
        r"rows\.jsonl:7: column 'a' is there 2 times",
        '{"question": "1", "answer": "1", "x": {"a": 1, "a": 2}}',
    ),
    _row("no answer", r"rows\.jsonl:7: column 'answer' is missing", {"question": "1"}),
    _row("a null answer", r"rows\.jsonl:7: column 'answer' is (None, )?null", {"question": "1", "answer": None}),
    _row("a null question", r"rows\.jsonl:7: column 'question' is (None, )?null", {"question": None, "answer": "1"}),
    _row("an answer that is a list", r"rows\.jsonl:7: column 'answer'", {"question": "1", "answer": ["1", "2"]}),
    _row("an answer that is a bool", r"rows\.jsonl:7: column 'answer'", {"question": "1", "answer": True}),
    _row("an answer that is a mapping", r"rows\.jsonl:7: column 'answer'", {"question": "1", "answer": {"a": 1}}),
    _row("a question that is a number", r"rows\.jsonl:7: column 'question'", {"question": 1, "answer": "1"}),
    _row(
        "a question that is now and then a list", r"rows\.jsonl:7: column 'question'", {"question": [], "answer": "1"}
    ),
    _row(
        "a question that is a list of texts",
        r"rows\.jsonl:7: column 'question'",
        {"question": ["a", "b"], "answer": "1"},
    ),
    _row("an empty question", r"rows\.jsonl:7|no tokens", {"question": "", "answer": "1"}),
    _row(
        "emoji that the model has no token for",
        "(row|rows).*(\N{GRINNING FACE}|U\\+|\\\\U|token)",
        {"question": "\N{GRINNING FACE}", "answer": "1"},
    ),
    _row("escape sequences in a prompt", r"\\x1b", {"question": "\x1b[2J\x1b]0;x\x07", "answer": "1"}),
    _row("right-to-left marks in a prompt", r"\\u202e", {"question": "\u202e123", "answer": "1"}),
    _row("escape sequences in a column's name", r"\\x1b", {"\x1b[2J": "1", "answer": "1"}),
    _row("escape sequences in an answer", r"\\x1b|.", {"question": "1", "answer": ["\x1b[2J"]}),
    _row("a prompt that is too long", "(too long|longer|tokens)", {"question": "9" * 500, "answer": "1"}),
    data(
        "an object over several lines",
        "no row can be read|not JSON",
        content("rows.json", json.dumps(Q, indent=1)),
        path="rows.json",
    ),
    data("an array that is cut short", "cut short", content("rows.json", json.dumps(GOOD)[:-9]), path="rows.json"),
    data(
        "an array with more behind it",
        "more after its array",
        content("rows.json", json.dumps(GOOD) + "1"),
        path="rows.json",
    ),
    data("an array without a comma", "element 2|comma", content("rows.json", "[{} {}]"), path="rows.json"),
    data("an empty array", "no rows|empty", content("rows.json", "[]"), path="rows.json"),
    data("an array of arrays", "no JSON object", content("rows.json", "[[1], [2]]"), path="rows.json"),
    data(
        "an array of deep brackets",
        "too many brackets|not readable",
        content("rows.json", "[" * 100_000),
        path="rows.json",
    ),
    data("an array that is not UTF-8", "not UTF-8", content("rows.json", b'[{"question": "\xff"}]'), path="rows.json"),
    data("all rows are bad", "no row can be read", content("rows.jsonl", "x\n" * 50)),
    data("all rows are bad, skipped", "no row can be read", content("rows.jsonl", "x\n" * 50), "task.malformed=skip"),
    data(
        "every row skipped",
        "malformed|no row",
        lines("rows.jsonl", *[{"question": "1", "answer": None}] * 20),
        "task.malformed=skip",
    ),
    data(
        "cut short at the end, skip or not", "cut short", content("rows.jsonl", GOOD_TEXT[:-5]), "task.malformed=error"
    ),
    data("one row alone", "no row of rows.jsonl is left to learn from", lines("rows.jsonl", Q)),
    data("the same row a hundred times", "no row of rows.jsonl is left", lines("rows.jsonl", *[Q] * 100)),
    data(
        "everything is too long",
        "every row is too long",
        lines("rows.jsonl", *[{"question": "9" * 300 + str(n), "answer": "1"} for n in range(20)]),
        "task.too_long=drop",
    ),
    data("columns that fit no format", "fit no format", lines("rows.jsonl", {"a": 1, "b": 2})),
    data(
        "columns that fit two formats",
        "fit .* and .*name one",
        lines("rows.jsonl", {"question": "1", "answer": "1", "input": "1", "output": "2"}),
    ),
    data("no columns", "fit no format", lines("rows.jsonl", {})),
    data(
        "a prompt, and an answer of another name",
        "columns.answer=solution",
        lines("rows.jsonl", *[{"prompt": str(n), "solution": "1"} for n in range(9)]),
    ),
    data("a format that does not fit", "fit not alpaca", lines("rows.jsonl", *GOOD), "task.options.format=alpaca"),
    data(
        "GSM8K without a mark",
        "####",
        lines("rows.jsonl", *[{"question": str(n), "answer": f"#### {n}"} for n in range(9)], Q),
    ),
    data(
        "verl without a truth",
        "ground_truth",
        lines("rows.jsonl", *[{"prompt": [{"role": "user", "content": "1"}], "reward_model": {}}] * 9),
        "actor.model.path=models/chat",
    ),
    data(
        "verl whose reward_model is a text",
        "reward_model",
        lines(
            "rows.jsonl", *[{"prompt": [{"role": "user", "content": str(n)}], "reward_model": "x"} for n in range(9)]
        ),
        "actor.model.path=models/chat",
    ),
)

CHATS = (
    _chat("no messages", "rows.jsonl:10: column 'messages'", []),
    _chat("null", "rows.jsonl:10: column 'messages' is (None, )?null", None),
    _chat("a text", "rows.jsonl:10: column 'messages'", "hello"),
    _chat("a mapping", "rows.jsonl:10: column 'messages'", {"role": "user"}),
    _chat("texts in the list", "rows.jsonl:10: column 'messages", ["a", "b"]),
    _chat("no role", "rows.jsonl:10: column 'messages", [{"content": "a"}]),
    _chat("no content", "rows.jsonl:10: column 'messages", [{"role": "user"}]),
    _chat("a null content", "rows.jsonl:10: column 'messages", [{"role": "user", "content": None}]),
    _chat("a content that is a number", "rows.jsonl:10: column 'messages", [{"role": "user", "content": 7}]),
    _chat(
        "a speaker that nobody knows",
        "rows.jsonl:10: column 'messages': turn 0 is from",
        [{"from": "emperor", "value": "a"}],
    ),
    _chat("a role that is a list", "rows.jsonl:10: column 'messages", [{"role": ["user"], "content": "a"}]),
    _chat(
        "images", "rows.jsonl:10: column 'messages", [{"role": "user", "content": [{"type": "image", "image": "x"}]}]
    ),
    _chat("only the assistant", "rows.jsonl:10: column 'messages'", [{"role": "assistant", "content": "a"}]),
    _chat("no chat template", "chat template", [{"role": "user", "content": "a"}], "actor.model.path=models/plain"),
)

WANTED = (
    data("a format that nobody has", "format: 'gsm9k' is not known", GOODS, "task.options.format=gsm9k"),
    data("a column that no row has", "column 'missing' is missing", GOODS, "task.options.columns.answer=missing"),
    data("a column of nothing", "columns", GOODS, "task.options.columns.answer=''", "task.options.columns.promt=x"),
    data("a column that is a number", "columns", GOODS, "task.options.columns.answer=3"),
    data("a template without its brace", "prompt_template", GOODS, "task.options.prompt_template='{question'"),
    data("a template of a column that no row has", "missing", GOODS, "task.options.prompt_template='{x}'"),
    data(
        "a template with attributes",
        "question.__class__|missing",
        GOODS,
        "task.options.prompt_template='{question.__class__}'",
    ),
    data("a template without columns", "prompt_template|no row", GOODS, "task.options.prompt_template='same'"),
    data("a split that there is not", "split: there is no split 'best'", GOODS, "task.options.split=best"),
    data(
        "a held-out split that there is not",
        "held_out_split: there is no other split",
        GOODS,
        "task.options.held_out_split=best",
    ),
    data(
        "two ways of holding out",
        "more than one is given",
        GOODS,
        "task.options.held_out_path=rows.jsonl",
        "task.options.held_out_fraction=0.1",
    ),
    data("a fraction of 0", "held_out_fraction", GOODS, "task.options.held_out_fraction=0"),
    data("a fraction of 1", "held_out_fraction", GOODS, "task.options.held_out_fraction=1"),
    data("a fraction that is not a number", "held_out_fraction", GOODS, "task.options.held_out_fraction=nan"),
    data("a fraction that is a text", "held_out_fraction", GOODS, "task.options.held_out_fraction=much"),
    data(
        "all but nothing held out",
        "no row of rows.jsonl is left",
        lines("rows.jsonl", *GOOD[:3]),
        "task.options.held_out_fraction=0.999999",
    ),
    data(
        "held out is what is learned from",
        "no row of rows.jsonl is left",
        GOODS,
        "task.options.held_out_path=rows.jsonl",
    ),
    data(
        "held-out rows that are not there",
        "held_out_path: there is no file",
        GOODS,
        "task.options.held_out_path=gone.jsonl",
    ),
    data(
        "held-out rows without an answer",
        "t.jsonl:1: column 'answer' is missing",
        both(GOODS, lines("t.jsonl", {"question": "1"})),
        "task.options.held_out_path=t.jsonl",
    ),
    data(
        "held-out rows of another format",
        "t.parquet|t.jsonl",
        both(GOODS, lines("t.jsonl", {"instruction": "a", "output": "b"})),
        "task.options.held_out_path=t.jsonl",
    ),
    data("a curriculum by what no row has", "it has no 'level'.*task.curriculum.by", GOODS, "task.curriculum.by=level"),
    data(
        "a curriculum by a text",
        "task.curriculum.by",
        lines("rows.jsonl", *[{**row, "level": "easy"} for row in GOOD]),
        "task.curriculum.by=level",
    ),
    data(
        "a curriculum by a bool",
        "task.curriculum.by",
        lines("rows.jsonl", *[{**row, "level": True} for row in GOOD]),
        "task.curriculum.by=level",
    ),
    data(
        "a curriculum by a huge number",
        "task.curriculum.by",
        lines("rows.jsonl", *[{**row, "level": 10**400} for row in GOOD]),
        "task.curriculum.by=level",
    ),
    data(
        "preferences that are none",
        "preferences|rejected|pairs",
        GOODS,
        "algorithm=dpo",
        "algorithm.samples_per_prompt=1",
    ),
    data("too_long that there is not", "too_long", GOODS, "task.too_long=shorten"),
    data("malformed that there is not", "malformed", GOODS, "task.malformed=ignore"),
    data("options of another task", "max_operand", GOODS, "+task.options.max_operand=3"),
    data(
        "rows that cannot be cached",
        "XDG_CACHE_HOME|cache",
        PACKED,
        path="rows.jsonl.gz",
        environment={"XDG_CACHE_HOME": "/proc/none"},
    ),
    data("a cache that is a file", "XDG_CACHE_HOME|cache", both(PACKED, content("cache", b"")), path="rows.jsonl.gz"),
)

CASES = ROWS + CHATS + WANTED
