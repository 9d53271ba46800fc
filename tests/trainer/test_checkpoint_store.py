"""Whenever a commit is cut off, by a crash or a loss of power, the newest complete checkpoint is found and whole."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridflow.trainer.checkpoint_store import (
    BEST,
    LATEST,
    MANIFEST,
    CheckpointError,
    Checkpoints,
    Disk,
    Manifest,
    verify,
)


class CrashError(Exception):
    """The process ended here."""


class FailingDisk(Disk):
    """Ends the process in the `fail_at`-th operation, a long one half way; then what was never flushed is lost."""

    def __init__(self, fail_at: int) -> None:
        self.left, self.flushed = fail_at, set[int]()

    def tick(self) -> bool:
        self.left -= 1
        return self.left < 0

    def make(self, folder: Path) -> None:
        if self.tick():
            raise CrashError
        super().make(folder)

    def write(self, file: Path, text: str) -> None:
        if self.tick():
            file.write_text(text[: len(text) // 2])
            raise CrashError
        super().write(file, text)

    def flush(self, path: Path) -> None:
        if self.tick():
            raise CrashError
        super().flush(path)
        self.flushed.add(path.stat().st_ino)

    def rename(self, old: Path, new: Path) -> None:
        if self.tick():
            raise CrashError
        os.replace(old, new)
        if self.tick():
            raise CrashError

    def remove(self, folder: Path) -> None:
        if self.tick():
            files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
            for file in files[: (len(files) + 1) // 2]:
                file.unlink()
            raise CrashError
        super().remove(folder)

    def lose_power(self, path: Path) -> None:
        for file in path.rglob("*"):
            if file.is_file() and file.stat().st_ino not in self.flushed:
                os.truncate(file, 0)


def write(folder: Path, step: int) -> None:
    """What ranks and trainer leave in the folder."""
    (folder / "actor" / "tensors").mkdir(parents=True)
    for name in ("actor/tensors/.metadata", "actor/tensors/__0_0.distcp", "actor/state.json", "trainer.json"):
        (folder / name).write_text(f"{name} of step {step}")


def save(checkpoints: Checkpoints, step: int, keep: int) -> None:
    write(checkpoints.begin(step), step)
    checkpoints.commit(step, {"torch": "2"})
    checkpoints.keep(keep)


@given(st.integers(0, 70), st.integers(1, 3), st.integers(0, 4))
def test_an_interrupted_commit_leaves_the_newest_whole(fail_at: int, keep: int, done: int) -> None:
    with TemporaryDirectory() as place:
        path, disk = Path(place) / "checkpoints", FailingDisk(10**6)
        for step in range(1, done + 1):
            save(Checkpoints(path, disk), step, keep)
        disk.left = fail_at
        try:
            save(Checkpoints(path, disk), done + 1, keep)
        except CrashError:
            disk.lose_power(path)
        else:
            assert disk.left >= 0
        after = Checkpoints(path)
        assert_all_whole(after, done, min(done, keep))
        save(after, done + 2, keep)
        assert_all_whole(after, done + 2, 1)
        assert (path / LATEST).read_text() == f"step-{done + 2:06d}\n"
        assert len(after.steps()) <= keep
        assert not [entry for entry in path.iterdir() if entry.name.startswith(".")]


class FullDisk(FailingDisk):
    """Has no room from the `fail_at`-th operation on; what was written stays."""

    def tick(self) -> bool:
        if super().tick():
            raise OSError(errno.ENOSPC, "No space left on device")
        return False


@pytest.mark.parametrize("fail_at", range(16))
def test_a_disk_that_is_full_at_any_step_of_a_commit_leaves_the_one_before(fail_at: int, tmp_path: Path) -> None:
    path = tmp_path / "checkpoints"
    save(Checkpoints(path), 1, 2)
    disk = FullDisk(fail_at)
    checkpoints = Checkpoints(path, disk)
    with pytest.raises(OSError, match="No space left"):
        save(checkpoints, 2, 2)
    checkpoints.abandon(2)
    assert_all_whole(Checkpoints(path), 1, 1)
    assert not [entry for entry in path.iterdir() if entry.name.startswith(".")]
    save(Checkpoints(path), 3, 1)
    assert_all_whole(Checkpoints(path), 3, 1)


def assert_all_whole(checkpoints: Checkpoints, at_least: int, count: int) -> None:
    steps = checkpoints.steps()
    assert len(steps) >= count and (not at_least or steps[-1] >= at_least)
    for step in steps:
        folder = checkpoints.at(step)
        assert verify(folder).step == step
        assert (folder / "trainer.json").read_text() == f"trainer.json of step {step}"


def test_every_operation_of_a_commit_is_tried(tmp_path: Path) -> None:
    """The range of the property reaches past the longest commit."""
    disk = FailingDisk(10**6)
    for step in range(1, 5):
        before = disk.left
        save(Checkpoints(tmp_path / "checkpoints", disk), step, 1)
        assert before - disk.left < 70


@pytest.mark.parametrize("name", ["actor/tensors/__0_0.distcp", "trainer.json"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 7, 1)
    file = checkpoints.at(7) / name
    text = file.read_text()
    for damage, told in ((text[:-1], "bytes"), (text[:-1] + "?", "sha256"), (None, "is missing")):
        file.unlink() if damage is None else file.write_text(damage)
        with pytest.raises(CheckpointError, match=told) as refused:
            verify(checkpoints.at(7))
        assert name in str(refused.value) and "step-000007" in str(refused.value)
        file.write_text(text)
    verify(checkpoints.at(7))


def test_a_folder_without_a_readable_manifest_is_refused(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 7, 1)
    manifest = checkpoints.at(7) / MANIFEST
    whole = json.loads(manifest.read_text())
    for text, told in (("{", "cannot be read"), (json.dumps(whole | {"format": 2}), "format is 2")):
        manifest.write_text(text)
        with pytest.raises(CheckpointError, match=told):
            Manifest.read(checkpoints.at(7))
    manifest.unlink()
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        verify(checkpoints.at(7))


def test_a_million_steps_are_still_in_order(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (999_999, 1_000_000):
        save(checkpoints, step, 2)
    assert checkpoints.steps() == [999_999, 1_000_000]
    assert checkpoints.newest() == tmp_path / "step-1000000"


def test_a_save_that_failed_leaves_nothing(tmp_path: Path) -> None:
    own = Checkpoints(tmp_path)
    (own.begin(5) / "file").write_text("x")
    own.commit(5, {})
    (own.begin(10) / "actor").mkdir()
    own.abandon(10)
    assert own.steps() == [5] and not list(tmp_path.glob(".tmp*"))
    own.abandon(10)
    own.begin(10)
    (tmp_path / ".old-step-000001").mkdir()
    own.sweep()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [LATEST, "step-000005"]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(["format", "step", "versions", "files"])


def manifest_of(folder: Path, **changes: object) -> None:
    entry = {"size": 1, "sha256": "0" * 64}
    whole = {"format": 1, "step": 10, "versions": {"torch": "2"}, "files": {"a": entry}, **changes}
    (folder / MANIFEST).write_text(json.dumps(whole), encoding="utf-8")


@settings(max_examples=3 * settings.default.max_examples)
@given(changes=st.dictionaries(KEYS, ANYTHING, max_size=2))
def test_any_manifest_is_read_or_told(tmp_path_factory: pytest.TempPathFactory, changes: dict[str, object]) -> None:
    folder = tmp_path_factory.getbasetemp() / "step-000010"
    folder.mkdir(exist_ok=True)
    manifest_of(folder, **changes)
    try:
        assert isinstance(Manifest.read(folder), Manifest)
    except CheckpointError as error:
        assert str(error).startswith(str(folder))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"files": {}}, "files = {}: an object was expected"),
        ({"step": "10"}, "step = '10': a whole number"),
        ({"step": None}, "step = None: a whole number"),
        ({"step": 9}, "step = 9, in the folder step-000010"),
        *(({"format": wrong}, f"its format is {wrong}, this version reads 1") for wrong in (2, 1.0, True, None)),
        ({"versions": []}, r"versions = []: an object of texts was expected"),
        ({"files": ["a"]}, r"files = ['a']: an object was expected"),
        ({"files": {"a": {"size": 1}}}, "a: {'size': 1}: size and sha256 were expected"),
        ({"files": {"a": {"size": "1", "sha256": "0" * 64}}}, "a: size = '1': a whole number"),
        ({"files": {"a": {"size": 1, "sha256": "x"}}}, "a: sha256 = 'x': 64 hexadecimal digits were expected"),
        ({"files": {"a": {"size": 1, "sha256": "0" * 64, "more": 1}}}, "size and sha256 were expected"),
    ],
)
def test_a_manifest_that_is_not_as_it_was_written_is_told(tmp_path: Path, changes: dict, told: str) -> None:
    folder = tmp_path / "step-000010"
    folder.mkdir()
    manifest_of(folder, **changes)
    with pytest.raises(CheckpointError) as error:
        verify(folder)
    assert told in str(error.value) and error.value.exit_code == 2


@pytest.mark.parametrize(
    "content", [b"", b"null", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"step": ' + b"9" * 5000 + b"}"]
)
def test_a_manifest_of_any_bytes_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(CheckpointError, match="is not a checkpoint: its manifest"):
        verify(tmp_path)


def test_the_best_is_kept_beside_the_newest(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2, 3, 4):
        write(checkpoints.begin(step), step)
        checkpoints.commit(step, {})
        checkpoints.keep(1, best=2 if step > 1 else None)
    assert checkpoints.steps() == [2, 4]
    assert (tmp_path / BEST).read_text() == "step-000002\n"
    write(checkpoints.begin(6), 6)
    checkpoints.commit(6, {})
    checkpoints.keep(1, best=5)
    assert checkpoints.steps() == [2, 6], "a better one found no room on the disk: the best that there is stays"
    assert (tmp_path / BEST).read_text() == "step-000002\n"


@pytest.mark.parametrize("name", ["step-0000009", "step-٠٠٠٠٠٩", "step-9", f"step-{'9' * 99}", "step-000009 ", "step-"])
def test_a_name_that_no_commit_writes_is_no_checkpoint(tmp_path: Path, name: str) -> None:
    checkpoints = Checkpoints(tmp_path)
    for written in (8, 1_000_000):
        checkpoints.at(written).mkdir()
    (tmp_path / name).mkdir()
    assert checkpoints.steps() == [8, 1_000_000]
