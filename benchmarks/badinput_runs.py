"""Rows of `benchmarks.badinput`: run folders and checkpoints that somebody has changed, which a run would go on from."""
# ruff: noqa: E501  (a table: a row a line)

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.badinput_case import Case, train

STEP = "checkpoints/step-000003"
PICKLE = b"cos\nsystem\n(S'touch hacked'\ntR."
SETTINGS = ("trainer.steps=5", "trainer.save_every=1")
Change = Callable[[Path], object]


def write_run(folder: Path) -> None:
    """Write a run folder with a checkpoint after three steps, as a run on `models/addition` leaves it."""
    from hybridflow.config.compose import resolved_yaml
    from hybridflow.observe.run_folder import RunFolder
    from hybridflow.preflight import load
    from hybridflow.trainer.checkpoint_store import Checkpoints
    from hybridflow.trainer.progress import Progress
    from hybridflow.trainer.resume import versions
    from hybridflow.trainer.saved_state import SavedState

    text = resolved_yaml(load("train", [*train(*SETTINGS)[1:]]))
    run = RunFolder(folder)
    run.write_config(text)
    run.log({"step": 0, "validation/accuracy": 0.1})
    checkpoints = Checkpoints(run.checkpoints)
    place = checkpoints.begin(3)
    _write_engine(place / "actor", folder.parent / "addition")
    state = SavedState(Progress(3, 1.5, {0: 0.1}, 3), {"kl": {}}, run.sizes())
    (place / "trainer.json").write_text(json.dumps(state.to_json()))
    (place / "config.yaml").write_text(text)
    checkpoints.commit(3, versions())


def _write_engine(folder: Path, model: Path) -> None:
    """Write what one rank saves of a model, with torch's own writer."""
    import warnings

    import torch
    from safetensors.torch import load_file, save_file
    from torch.distributed import checkpoint

    from hybridflow.engines.megatron import saved_files

    weights = load_file(model / "model.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        writer = checkpoint.FileSystemWriter(folder / "tensors", thread_count=1)
        tensors = {f"weights/{name}": values.float() for name, values in weights.items()}
        checkpoint.save(tensors, storage_writer=writer, no_dist=True)
    (folder / "tensors/metadata.json").write_text('{"sharded_backend": "torch_dist", "sharded_backend_version": 1}')
    torch.save({}, folder / saved_files.COMMON)
    state = {"optimizer_steps": 3, "schedule_steps": 3, "extra": {}, "ranks": 1}
    (folder / saved_files.STATE).write_text(json.dumps(state))
    save_file({name: torch.zeros(1) for name in saved_files.RANDOM}, saved_files.random_file(folder, 0))


def _run(name: str, said: str, change: Change, *settings: str, **more: Any) -> Case:
    """Return a run that would go on from a changed folder, asked whether it can."""

    def write(folder: Path) -> None:
        shutil.copytree(folder / "models/run", folder / "runs/bad")
        change(folder / "runs/bad")

    argv = train(*SETTINGS, *settings, "--check")
    return Case(f"run: {name}", "run", argv, said, write, starts_nothing=False, **more)


def _remade(name: str, said: str, change: Change, *settings: str) -> Case:
    """Return one whose checkpoint is changed, and its manifest made anew, as nobody does by mistake."""

    def remake(run: Path) -> None:
        from hybridflow.trainer.checkpoint_store import MANIFEST, Manifest, entries
        from hybridflow.trainer.resume import versions

        change(run / STEP)
        (run / STEP / MANIFEST).write_text(Manifest(3, versions(), entries(run / STEP)).to_json())

    return _run(f"{name}, in a remade manifest", said, remake, *settings)


def _put(name: str, data: bytes | str) -> Change:
    return lambda folder: (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)


def _made(name: str, make: Change) -> Change:
    """Put something else in the place of a file or a folder."""

    def change(folder: Path) -> None:
        place = folder / name
        if place.is_dir():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
        make(place)

    return change


def _told(name: str, **entries: object) -> Change:
    """Change entries of a JSON file."""

    def change(folder: Path) -> None:
        known = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**known, **entries}))

    return change


def _to_itself(place: Path) -> None:
    place.symlink_to(place.name)


def _as_file(place: Path) -> None:
    place.write_text("")


FOLDERS = (
    _run("nothing wrong with it", "resuming from step 3", lambda folder: None, status=0),
    _run("LATEST that names what leads out", "resuming from step 3", _put("checkpoints/LATEST", "../../../etc\n"), status=0),
    _run("half a line and foreign ones in its files", "resuming from step 3", lambda f: [file.open("ab").write(b'[1]\n{"step": "x"}\n\xff\n{"st') for file in (f / "metrics.jsonl", f / "events.jsonl")], status=0),
    *(_run(f"{part} is a pipe", f"{part} is neither a file nor a folder", _made(part, os.mkfifo)) for part in ("metrics.jsonl", "events.jsonl", "run.json", "journal", "checkpoints", "logs", ".lock")),
    *(_run(f"{part} is a link to itself", f"{part} is a link that leads nowhere", _made(part, _to_itself)) for part in ("config.yaml", "checkpoints", "model")),
    *(_run(f"{part} is a file", f"{part} is a file; a folder was expected", _made(part, _as_file)) for part in ("checkpoints", "rollouts", "journal", "tensorboard")),
    _run("metrics.jsonl has lost lines", r"metrics\.jsonl has 0 bytes", _put("metrics.jsonl", b"")),
)  # fmt: skip

CHECKPOINTS = (
    _run("a newer checkpoint that is a file", "manifest.json cannot be read", _put("checkpoints/step-000009", b"")),
    _run("a newer checkpoint that leads to /etc", "manifest.json cannot be read", lambda f: (f / "checkpoints/step-000009").symlink_to("/etc")),
    _run("a manifest that is a pipe", "manifest.json cannot be read", _made(f"{STEP}/manifest.json", os.mkfifo)),
    _run("a manifest of deep brackets", "manifest.json cannot be read", _put(f"{STEP}/manifest.json", '{"a":' * 99_999)),
    _run("a manifest of a later format", "its format is 2", _told(f"{STEP}/manifest.json", format=2)),
    _run("a manifest of format true", "its format is True", _told(f"{STEP}/manifest.json", format=True)),
    _run("a manifest that names what is outside", "etc/passwd is missing", _told(f"{STEP}/manifest.json", files={"../../../../etc/passwd": {"size": 1, "sha256": "0" * 64}})),
    _run("a manifest of negative sizes", "size = -1", _told(f"{STEP}/manifest.json", files={"a": {"size": -1, "sha256": "0" * 64}})),
    _run("another model", "actor.model.path", lambda f: None, "actor.model.path=models/plain"),
    _run("another model, and the checkpoint named", "is of another model: model.embed_tokens.weight", lambda f: None, "actor.model.path=models/plain", f"trainer.resume=runs/bad/{STEP}"),
    _run("another seed", "run.seed: 1 in the checkpoint, 7 now", lambda f: None, "run.seed=7"),
    _run("another algorithm, and the checkpoint named", "has no critic", lambda f: None, "algorithm=ppo", "algorithm.minibatches=1", f"trainer.resume=runs/bad/{STEP}"),
    _remade("no actor", "has no actor", lambda f: shutil.rmtree(f / "actor")),
    _remade("no random states", "rng-00000.safetensors: there is no such file", lambda f: (f / "actor/rng-00000.safetensors").unlink()),
    _remade("tensors cut short", "not there, or too short", lambda f: os.truncate(f / "actor/tensors/__0_0.distcp", 9)),
    _remade("a pickle as index", "asks for os.system", _put("actor/tensors/.metadata", PICKLE)),
    _remade("a pickle as common.pt", "common.pt is not what hybridflow wrote", _put("actor/tensors/common.pt", PICKLE)),
    _remade("a state that is a list", "state.json: an object was expected", _put("actor/state.json", "[]")),
    _remade("a state of negative steps", "optimizer_steps = -1", _told("actor/state.json", optimizer_steps=-1)),
    _remade("a trainer.json of other steps", "steps = 4, in the folder step-000003", _told("trainer.json", steps=4)),
    _remade("a trainer.json of negative seconds", "seconds = -1", _told("trainer.json", seconds=-1)),
    _remade("a trainer.json with files outside", "a file in the run folder was expected", _told("trainer.json", files={"../../x": 0})),
    _remade("settings with a Python object", "config.yaml.*(tag|construct)", _put("config.yaml", "run: !!python/object/apply:os.system ['touch hacked']\n")),
    _remade("settings that are a list", "config.yaml:1", _put("config.yaml", "- 1\n")),
)  # fmt: skip

CASES = FOLDERS + CHECKPOINTS
