"""Rows of `benchmarks.badinput`: model folders and plugins."""
# ruff: noqa: E501  (a table: a row a line)

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.badinput_case import RUN, Case, both, content, lines, on_rows, train


def _model(name: str, said: str, change: Callable[[Path], object], **more: Any) -> Case:
    """Return a run on a copy of a model folder that has been changed."""

    def write(folder: Path) -> None:
        shutil.copytree(folder / "models" / "chat", folder / "mine")
        change(folder / "mine")

    chat = lines("chat.jsonl", *[{"prompt": [{"role": "user", "content": f"{n}?"}], "answer": "1"} for n in range(30)])
    argv = on_rows("chat.jsonl", "actor.model.path=mine", "rollout=chat")
    return Case(f"model: {name}", "model", argv, said, both(chat, write), **more)


def _file(name: str, data: bytes | str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)


def _gone(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def _changed(name: str, **entries: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        known = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**known, **entries}))

    return change


def _template(text: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / "chat_template.jinja").unlink(missing_ok=True)
        _changed("tokenizer_config.json", chat_template=text)(folder)

    return change


def _cut(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:100])


def _pipe(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


def _plugin(name: str, said: str, code: str, *settings: str, module: str = "mine", **more: Any) -> Case:
    argv = train(f"plugins=[{module}]", *settings)
    return Case(f"plugin: {name}", "plugin", argv, said, content(f"{module}.py", code), **more)


def _grader(name: str, said: str, code: str, **more: Any) -> Case:
    head = "from hybridflow.tasks import Grade, GradedRow, graders\n"
    return _plugin(f"a grader {name}", said, head + code, "reward.grader=mine", **more)


def _task(name: str, said: str, body: str, **more: Any) -> Case:
    head = "from hybridflow.tasks import Example, Task, tasks\n\n@tasks.register('mine')\nclass Mine(Task):\n"
    plain = {
        "size": "    def size(self, split): return 20\n",
        "example": "    def example(self, split, index): return Example(f'{index}+1=', '1', index)\n",
    }
    rest = "".join(text for method, text in plain.items() if f"def {method}" not in body)
    argv = ("train", *RUN, "plugins=[mine]", "task.name=mine")
    return Case(f"plugin: a task {name}", "plugin", argv, said, content("mine.py", head + body + rest), **more)


MODELS = (
    _model("no config.json", "config.json", _gone("config.json")),
    _model("an empty config.json", "config.json", _file("config.json", b"")),
    _model("a config.json that is a list", "config.json", _file("config.json", "[]")),
    _model("a config.json that is cut short", "config.json", _cut("config.json")),
    _model("a config.json of zeros", "config.json", _file("config.json", bytes(100))),
    _model("a config.json that is a pipe", "config.json", _pipe("config.json")),
    _model("a config.json of deep brackets", "config.json", _file("config.json", "[" * 100_000)),
    _model("a pointer of Git LFS", "LFS", _file("config.json", "version https://git-lfs.github.com/spec/v1\n")),
    _model("an architecture that we do not know", "gpt9|architecture|model_type", _changed("config.json", model_type="gpt9", architectures=["Gpt9"])),
    _model("code of its own", "auto_map|trust_remote_code|code", _changed("config.json", auto_map={"AutoConfig": "x.X"})),
    _model("heads that do not divide", "heads", _changed("config.json", num_attention_heads=3)),
    _model("no heads", "heads", _changed("config.json", num_attention_heads=0)),
    _model("a negative vocabulary", "vocab", _changed("config.json", vocab_size=-5)),
    _model("a vocabulary of text", "vocab", _changed("config.json", vocab_size="many")),
    _model("layers beyond all", "layers|num_hidden_layers", _changed("config.json", num_hidden_layers=10**30)),
    _model("a vocabulary smaller than the tokenizer's", "embed_tokens.*shape|vocab", _changed("config.json", vocab_size=5)),
    _model("another number of layers than the weights", "layer|weight", _changed("config.json", num_hidden_layers=2)),
    _model("no weights", "safetensors|weights", _gone("model.safetensors")),
    _model("weights that are cut short", "model.safetensors", _cut("model.safetensors")),
    _model("weights that are empty", "model.safetensors", _file("model.safetensors", b"")),
    _model("weights that are text", "model.safetensors", _file("model.safetensors", "hello" * 100)),
    _model("weights with a header beyond the file", "model.safetensors", _file("model.safetensors", b"\xff" * 64)),
    _model("weights that are a pipe", "model.safetensors", _pipe("model.safetensors")),
    _model("weights that are a pickle", "pickle|safetensors", lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin")),
    _model("weights of whole numbers", "model.safetensors: .* is of I32", lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes().replace(b'"F32"', b'"I32"'))),
    _model("no tokenizer.json", "tokenizer.json", _gone("tokenizer.json")),
    _model("a tokenizer.json that is cut short", "tokenizer", _cut("tokenizer.json")),
    _model("a tokenizer.json that is empty", "tokenizer", _file("tokenizer.json", b"")),
    _model("a tokenizer.json that is a pipe", "tokenizer", _pipe("tokenizer.json")),
    _model("a tokenizer_config.json that is a list", "tokenizer_config", _file("tokenizer_config.json", "[]")),
    _model("an end that is a text", "eos_token_id", _changed("generation_config.json", eos_token_id="end")),
    _model("a template that does not parse", "template", _template("{% for m in messages %}")),
    _model("a template that raises", "template", _template("{{ raise_exception('no') }}")),
    _model("a template that raises with an escape sequence", r"\\x1b", _template("{{ raise_exception('\x1b[2J') }}")),
    _model("a template that divides by 0", "template", _template("{{ 1 / 0 }}")),
    _model("a template that leaves the sandbox", "template", _template("{{ ''.__class__.__mro__[1].__subclasses__() }}")),
    _model("a template that writes nothing", "template|token", _template("{% if false %}x{% endif %}")),
    _model("a template that loops", "template", _template("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}")),
    _model("a template that writes gigabytes", "template", _template("{{ 'a' * 100000000 }}")),
    _model("a template of a number that takes minutes", "template takes more than 5 s", _template("{{ 9 ** (9 ** 9) }}")),
    _model("a template of a text beyond all memory", "template takes more than 1024 MiB", _template("{{ 'a'.center(10 ** 10) }}")),
    _model("a template that calls itself", "template", _template("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}")),
    _model("a template that includes a file", "template", _template("{% include '/etc/passwd' %}")),
    _model("a template that is a number", "template", lambda f: (_gone("chat_template.jinja")(f) if (f / "chat_template.jinja").exists() else None, _changed("tokenizer_config.json", chat_template=5)(f))),
)  # fmt: skip

PLUGINS = (
    _plugin("not there", "gone", "", "plugins=[gone]"),
    _plugin("a syntax error", r"mine\.py:2", "x = 1\ndef f(:\n"),
    _plugin("raises", r"mine\.py:1", "raise RuntimeError('no')\n"),
    _plugin("raises with an escape sequence", r"\\x1b", "raise RuntimeError('\\x1b[2J')\n"),
    _plugin("raises what has no words", "mine", "class E(Exception):\n    def __str__(self): raise ValueError\nraise E\n"),
    _plugin("exits with 0", "mine", "import sys\nsys.exit(0)\n"),
    _plugin("is interrupted", "mine", "raise BaseException('no')\n"),
    _plugin("imports what is not there", "no_such_thing", "import no_such_thing\n"),
    _plugin("never ends", r"mine\.py:1\); HYBRIDFLOW_IMPORT_S", "while True: pass\n", environment={"HYBRIDFLOW_IMPORT_S": "2"}),
    _plugin("waits for ever", r"mine\.py:2\); HYBRIDFLOW_IMPORT_S", "import threading\nthreading.Event().wait()\n", environment={"HYBRIDFLOW_IMPORT_S": "2"}),
    _plugin("ends the process", r"os\._exit\(0\) would have", "import os\nos._exit(0)\n"),
    _plugin("raises a megabyte", r"characters\) … ", "raise ValueError('x' * 2**20)\n"),
    _plugin("imports itself", "mine", "from mine import missing\n"),
    _plugin("recursion", r"mine", "def f(): f()\nf()\n"),
    _plugin("is binary", "mine", "\x00\x01"),
    _plugin("by a path", "mine", "", "plugins=[./mine.py]"),
    _plugin("by a number", "plugins", "", "plugins=[3]"),
    _plugin("by a text", "plugins", "", "plugins=mine"),
    _plugin("registers a name twice", "mine", "from hybridflow.tasks import graders\ndef one(response, answer): return 0.0\ndef two(response, answer): return 1.0\ngraders.register('mine')(one)\ngraders.register('mine')(two)\n"),
    _plugin("registers a name of ours", "exact", "from hybridflow.tasks import graders\n@graders.register('exact')\ndef f(response, answer): return 0.0\n"),
    _plugin("registers a number", "mine", "from hybridflow.tasks import graders\ngraders.register('x')(3)\n"),
    _plugin("registers a name that is a number", "mine", "from hybridflow.tasks import graders\ngraders.register(3)(print)\n"),
    _plugin("prints an error and registers nothing", "reward.grader", "print('hello')\n", "reward.grader=mine"),
    _grader("with one parameter too many", "mine", "@graders.register('mine')\ndef f(a, b, c): return 0.0\n"),
    _grader("with no parameters", "mine", "@graders.register('mine')\ndef f(): return 0.0\n"),
    _grader("that is a class that cannot be made", "mine", "@graders.register('mine')\nclass A:\n    def __init__(self): raise ValueError('no')\n    def __call__(self, response, answer): return 0.0\n"),
    _grader("whose constructor ends the process", r"os\._exit\(0\) would have", "import os\n@graders.register('mine')\nclass A:\n    def __init__(self): os._exit(0)\n    def __call__(self, response, answer): return 0.0\n"),
    _grader("that is a class that cannot be called", "mine", "@graders.register('mine')\nclass A: pass\n"),
    _grader("whose option has no default", "width", "@graders.register('mine')\ndef f(response, answer, *, width): return 0.0\n"),
    _grader("that refuses an answer", "no such answer", "@graders.register('mine')\ndef f(response, answer): return 0.0\ndef check(answer): raise ValueError('no such answer')\nf.check_answer = check\n"),
    _grader("whose check of answers is broken", "mine|check|boom", "@graders.register('mine')\ndef f(response, answer): return 0.0\ndef check(answer): raise KeyError('boom')\nf.check_answer = check\n"),
    _grader("whose check of answers exits", "mine|exit", "import sys\n@graders.register('mine')\ndef f(response, answer): return 0.0\nf.check_answer = lambda answer: sys.exit(0)\n"),
    _task("without rows", "empty", "    def size(self, split): return 0\n"),
    _task("with half a row", "size", "    def size(self, split): return 2.5\n"),
    _task("with fewer than no rows", "size", "    def size(self, split): return -1\n"),
    _task("whose size raises", "boom", "    def size(self, split): raise OSError('boom')\n"),
    _task("whose examples are tuples", "Example", "    def example(self, split, index): return ('1', '2', 3)\n"),
    _task("whose examples are None", "Example", "    def example(self, split, index): return None\n"),
    _task("whose prompts are numbers", "prompt", "    def example(self, split, index): return Example(5, '1', index)\n"),
    _task("whose answers are lists", "answer", "    def example(self, split, index): return Example('1', ['1'], index)\n"),
    _task("whose ids are None", "sample_id", "    def example(self, split, index): return Example('1', '1', None)\n"),
    _task("whose metadata are no JSON", "metadata", "    def example(self, split, index): return Example('1', '1', index, metadata={'a': object()})\n"),
    _task("whose metadata are a list", "metadata", "    def example(self, split, index): return Example('1', '1', index, metadata=[1])\n"),
    _task("whose metadata contain themselves", "metadata", "    def example(self, split, index):\n        a = {}\n        a['a'] = a\n        return Example('1', '1', index, metadata=a)\n"),
    _task("whose source is a number", "source", "    def example(self, split, index): return Example('1', '1', index, source=3)\n"),
    _task("whose examples raise", "boom", "    def example(self, split, index): raise KeyError('boom')\n"),
    _task("whose examples exit", "mine|exit", "    def example(self, split, index): raise SystemExit(0)\n"),
    _task("whose constructor ends the process", r"os\._exit\(0\) would have", "    def __init__(self, tokenizer):\n        import os\n        os._exit(0)\n"),
    _task("that cannot be made", "boom", "    def __init__(self, tokenizer): raise RuntimeError('boom')\n"),
    _task("that forgets its tokenizer", "tokenizer", "    def __init__(self, tokenizer): pass\n"),
    _task("that hides a method", "rows", "    def __init__(self, tokenizer):\n        super().__init__(tokenizer)\n        self.rows = []\n"),
)  # fmt: skip

CASES = MODELS + PLUGINS
