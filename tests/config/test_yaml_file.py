"""YAML of any kind is settings, or one line that names the file and what is wrong with it, at once."""

from __future__ import annotations

import os
from pathlib import Path
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridflow import preflight
from hybridflow.config import compose, yaml_file
from hybridflow.errors import ConfigError

HEAD = "# @package _global_\ndefaults: [addition]\n"


def bomb(levels: int, wide: int = 9) -> str:
    lines = ["x0: &a0 [1]"]
    lines += [f"x{n}: &a{n} [{','.join([f'*a{n - 1}'] * wide)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


def endless(levels: int) -> str:
    lines = [f"    x{n}: ${{task.options.x{n - 1}}}${{task.options.x{n - 1}}}" for n in range(1, levels)]
    return "\n".join([f"{HEAD}task:", "  options:", "    x0: a", *lines, ""])


WRONG: dict[str, tuple[bytes | str, str]] = {
    "binary": (bytes(range(256)), "not UTF-8 text (at byte 128)"),
    "utf16": ((HEAD + "run: {name: x}\n").encode("utf-16"), "not UTF-8 text (at byte 0)"),
    "list": ("- a\n", "my.yaml:1: settings, as `key: value`, were expected"),
    "text": ("hello\n", "my.yaml:1: settings, as `key: value`, were expected"),
    "deep": (HEAD + "task: {options: " + "{a: " * 3000 + "1" + "}" * 3000 + "}\n", "my.yaml:3: nested more than 50"),
    "deep_list": (HEAD + "plugins: " + "[" * 3000 + "]" * 3000, "my.yaml:3: nested more than 50"),
    "bomb": (bomb(40), "its aliases stand for more than 10000 values"),
    "self_alias": (HEAD + "run: &x {a: *x}\n", "my.yaml:3: *x stands for what it is itself in"),
    "merge": (HEAD + "run: &x {<<: *x}\n", "my.yaml:3: *x stands for what it is itself in"),
    "digits": (HEAD + f"run: {{seed: {'9' * 5000}}}\n", "my.yaml:3: a number of 5000 digits"),
    "tag": (HEAD + "run: !!python/object:os.system {}\n", "my.yaml:3: not readable as YAML: could not determine"),
    "twice": (HEAD + "run: {seed: 1}\nrun: {seed: 2}\n", "my.yaml:4: not readable as YAML: found duplicate key run"),
    "documents": (HEAD + "---\nrun: {seed: 2}\n", "not readable as YAML"),
    "null_key": (HEAD + "null: 3\n", "not readable as settings"),
    "interpolation": (HEAD + "run: {name: '${'}\n", "not readable as settings"),
    "endless": (endless(60), "task.options.x13: its ${...} stand for more than 10000 values"),
    "circle": ("# @package _global_\ndefaults: [my]\n", "composing does not end"),
    "no_package": ("run: {seed: 1}\n", "my.yaml: its first line must be `# @package _global_`"),
    "empty": ("", "my.yaml: its first line must be `# @package _global_`"),
    "list_of_section": (HEAD + "run: [1]\n", "run: wrong type: [1] given; settings by name"),
    "huge": (b"#" * (yaml_file.MAX_BYTES + 1), "settings have at most"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_file_of_settings_is_one_line_at_once(tmp_path: Path, name: str) -> None:
    content, told = WRONG[name]
    file = tmp_path / "experiment" / "my.yaml"
    file.parent.mkdir()
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    begin = perf_counter()
    with pytest.raises(ConfigError) as error:
        preflight.load("train", ["experiment=my"], tmp_path)
    assert told in str(error.value) and "\n" not in str(error.value)
    assert perf_counter() - begin < 20


@pytest.mark.parametrize("head", ["", "\ufeff"])
def test_what_a_user_may_write_is_read(tmp_path: Path, head: str) -> None:
    """With a byte order mark, aliases, some depth and a long list."""
    file = tmp_path / "experiment" / "my.yaml"
    file.parent.mkdir()
    deep = "{a: " * 40 + "1" + "}" * 40
    body = f"run: {{seed: 3, name: x}}\ntask: {{options: {{a: &a [1, 2], b: *a, c: {deep}, d: {list(range(2000))}}}}}\n"
    file.write_text(f"{head}{HEAD}{body}", encoding="utf-8")
    found = compose.compose("train", ["experiment=my"], tmp_path).to_config()
    assert (found.run.seed, found.task.options["b"], len(found.task.options["d"])) == (3, [1, 2], 2000)


@settings(max_examples=3 * settings.default.max_examples)
@given(st.binary(max_size=200) | st.text(alphabet="-:{}[],&*a1<! \n\t'\"|>%@#?~.", max_size=60).map(str.encode))
def test_any_bytes_are_settings_or_a_config_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(content)
    try:
        yaml_file.load(file)
    except ConfigError as error:
        assert str(error).startswith(str(file))


def test_a_folder_and_what_is_not_there(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    for file, told in (
        (tmp_path, "Is a directory"),
        (tmp_path / "none.yaml", "No such file or directory"),
        (tmp_path / "pipe.yaml", "pipe.yaml is no file"),
        (tmp_path / "loop.yaml", "Too many levels"),
    ):
        with pytest.raises(ConfigError, match=told):
            yaml_file.load(file)
