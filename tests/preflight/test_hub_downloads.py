"""A model of the hub: downloaded once, without code; then found in the cache; offline the error says what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hybridflow.config.hub_ids import HubId, hub_id
from tests.preflight.hub_server import COMMIT, hub

MINE = "someone/tiny"
CODE = """
import sys
from hybridflow.preflight.hub_downloads import fetched
for path in sys.argv[1:]:
    try:
        print(fetched(path))
    except ValueError as error:
        print("error:", error)
"""
Fetch = Callable[..., list[str]]


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct@main", HubId("HuggingFaceTB/SmolLM2-135M-Instruct", "main")),
        (f"{MINE}@{COMMIT}", HubId(MINE, COMMIT)),
        (f"{MINE}@refs/pr/1", HubId(MINE, "refs/pr/1")),
        (MINE, None),
        ("models/mine", None),
        ("tiny@main", None),
        (f"/{MINE}@main", None),
        ("../tiny@main", None),
        (f"{MINE}@../../etc", None),
        (f"{MINE}@", None),
        ("", None),
    ],
)
def test_an_id_has_an_owner_a_name_and_a_revision(path: str, known: HubId | None) -> None:
    assert hub_id(path) == known


def test_a_folder_of_that_name_is_that_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{MINE}@main").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hub_id(f"{MINE}@main") is None


@pytest.fixture
def fetch(tmp_path: Path) -> Fetch:
    """`fetch(address, *paths)`: in a process of its own, which alone reads where the hub is."""

    def start(address: str, *paths: str, **environment: str) -> list[str]:
        own = {"HF_HOME": str(tmp_path / "cache"), "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", **environment}
        command = [sys.executable, "-c", CODE, *paths]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=100, check=False, env={**os.environ, **own}
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.splitlines()

    return start


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / "onnx").mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "merges.txt", "chat_template.jinja"):
        (folder / name).write_text(f"{{}} {name}")
    for name in ("modeling_tiny.py", "pytorch_model.bin", "README.md", "onnx/model.safetensors", "onnx/config.json"):
        (folder / name).write_text("not this")
    return folder


@pytest.mark.processes
def test_it_is_downloaded_once_and_without_code(fetch: Fetch, repository: Path) -> None:
    with hub(repository, MINE) as (address, asked):
        (first,) = fetch(address, f"{MINE}@main")
        assert sorted(file.name for file in Path(first).iterdir()) == [
            "chat_template.jinja", "config.json", "merges.txt", "model.safetensors", "tokenizer.json",
        ]  # fmt: skip
        assert Path(first).name == COMMIT and (Path(first) / "merges.txt").read_text() == "{} merges.txt"
        assert "modeling_tiny.py" not in asked
        (Path(first) / "model.safetensors").unlink()  # as an interrupted download leaves it
        unknown, other, again = fetch(address, "someone/else@main", f"{MINE}@v2", f"{MINE}@main")
        assert unknown.startswith("error: someone/else@main cannot be had from the hub: ")
        assert other.startswith(f"error: {MINE}@v2 cannot be had from the hub: ")
        assert again == first and (Path(first) / "model.safetensors").is_file()
    assert fetch(address, f"{MINE}@main", f"{MINE}@{COMMIT}") == [first, first], "the hub is away by now"


@pytest.mark.processes
def test_offline_the_error_names_the_folder_to_make(fetch: Fetch) -> None:
    (line,) = fetch("http://127.0.0.1:9", f"{MINE}@main", HF_HUB_OFFLINE="1")
    assert line == (
        f"error: {MINE}@main cannot be had from the hub: HF_HUB_OFFLINE is set; where there is a network, hf download "
        f"{MINE} --revision main --local-dir models/tiny makes a folder to give instead"
    )


@pytest.mark.processes
def test_a_hub_that_is_away(fetch: Fetch) -> None:
    (line,) = fetch("http://127.0.0.1:9", f"{MINE}@main")
    assert line.startswith(f"error: {MINE}@main cannot be had from the hub: ") and "hf download" in line


@pytest.mark.processes
def test_a_repository_that_holds_no_model(fetch: Fetch, repository: Path) -> None:
    (repository / "model.safetensors").unlink()
    with hub(repository, MINE) as (address, _):
        assert fetch(address, f"{MINE}@main") == [
            f"error: {MINE}@main has no config.json or no safetensors; give a model that has both"
        ]
