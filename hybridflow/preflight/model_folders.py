"""Model folders that a run reads and leaves, looked at before anything starts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from hybridflow.config import Config
from hybridflow.config.compose import configs_dir
from hybridflow.config.model_roles import BY_MODEL, section, with_models
from hybridflow.json_file import read_object
from hybridflow.models import Head, ModelShape, read_shape
from hybridflow.models.weight_files import why_broken
from hybridflow.preflight.hub_downloads import fetched
from hybridflow.preflight.run_folder_checks import folder_of

# Model folders, resolved, that runs before this one will leave; None: their shape is not known.
PendingModels = Mapping[Path, ModelShape | None]


def compared_tokenizers(config: Config, models: Mapping[str, ModelShape], pending: PendingModels) -> dict[str, str]:
    """Return how the tokenizer of each of these models differs from the actor's, by role; empty: not, or not yet."""
    from hybridflow.tasks.vocabulary import differences

    actor = config.actor.model.path
    by_role = {}
    for role in models:
        path = section(config, role).model.path
        if path != actor and pending.keys() & {Path(path).resolve(), Path(actor).resolve()}:
            by_role[role] = ""  # it is compared when it is there
        elif path != actor:
            try:
                difference = differences(actor, path)
            except ValueError as error:
                by_role[role] = str(error)
            else:
                by_role |= {role: difference.ordinary or ""} if difference else {}
    return by_role


def output_model(config: Config, pending: PendingModels = MappingProxyType({})) -> dict[Path, ModelShape | None]:
    """Return the model folder that a run with these settings leaves, with its shape."""
    from hybridflow.algorithms import algorithms

    shape: ModelShape | None = None
    if config.algorithm.name in algorithms:
        learner = algorithms.get(config.algorithm.name).learner
        source = read_models(config, (learner,), pending)[0].get(learner)
        shape = replace(source, head=Head.reward if learner == "reward_model" else Head.lm) if source else None
    return {(folder_of(config) / "model").resolve(): shape}


def read_models(
    config: Config, roles: tuple[str, ...], pending: PendingModels = MappingProxyType({})
) -> tuple[dict[str, ModelShape], list[str]]:
    """Read config.json of each role; return shapes, and a problem for each folder that is missing or not supported."""
    models: dict[str, ModelShape] = {}
    unread: dict[str, str] = {}
    for role in with_models(config, roles):
        path = section(config, role).model.path
        worker = section(config, role).worker
        if not path:
            unread[path] = (
                f"{role}.model.path: none is given; {role}.worker = {worker} needs the folder of a {role} model"
            )
            continue
        if path in unread:
            continue
        try:
            path = section(config, role).model.path = fetched(path)
            there = Path(path).resolve() not in pending
            shape = read_shape(path) if there else pending[Path(path).resolve()]
            models |= {role: shape} if shape else {}
            broken = why_broken(path, shape) if there and shape else None
            broken = broken or (asks_for_code(path) if there else None)
            unread |= {path: f"{role}.model.path: {broken}"} if broken and path not in unread else {}
        except FileNotFoundError:
            hint = how_to_make(path, config.run.root, f"train-{role}" if role in BY_MODEL else "sft")
            unread.setdefault(path, f"{role}.model.path: {path} is not a model folder (no config.json); {hint}")
        except ValueError as error:
            unread.setdefault(path, f"{role}.model.path: {error}")
    return models, list(unread.values())


def asks_for_code(path: str) -> str | None:
    """Tell of a tokenizer that asks to run code of its own, as `trust_remote_code` would let it; None: it does not.

    Nothing here ever does, but without its code it may be another tokenizer. `read_shape` asks the same of the model.
    """
    file = Path(path) / "tokenizer_config.json"
    if not file.is_file() or not read_object(file).get("auto_map"):
        return None
    return (
        f"{file}: auto_map asks to run code of the folder's own, which is never done here (docs/security.md); if the "
        "tokenizer is right without it, set it to null there"
    )


def how_to_make(path: str, root: str, subcommand: str = "sft") -> str:
    """Say by which command a model folder is made, told from where it should be; `subcommand` makes those of runs."""
    folder = Path(path)
    if folder.name == "model" and folder.parent.parent == Path(root):
        run = folder.parent.name
        ours = (configs_dir() / "experiment" / f"{run}.yaml").is_file()
        given = f"experiment={run}" if ours else f"… run.name={run}"
        return f"the run {run} leaves it there at its end: hybridflow {subcommand} {given}"
    if (folder / "model" / "config.json").is_file():
        return f"it is a run folder: give the model in it, {folder / 'model'}"
    if subcommand != "sft":
        return f"give the folder of a {subcommand.removeprefix('train-')} model; hybridflow {subcommand} makes one"
    layers = re.search(r"(\d+)_layers$", folder.name)
    recipe = (
        "smollm2" if "smollm2" in folder.name.lower() else f"addition --layers {layers[1]}" if layers else "addition"
    )
    hub = _of_hub(path)
    return f"make one (hybridflow model {recipe} --out {path}) or give the path of a Hugging Face folder{hub}"


def _of_hub(path: str) -> str:
    """Say what to do with a name on the hub, if it may be one: without a revision nothing is downloaded."""
    owner, _, name = path.partition("/")
    may_be = re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", path) and not Path(owner).exists()
    if not may_be or owner in ("models", "runs"):
        return ""
    made = f"hf download {path} --local-dir models/{name}"
    return f"; a model of the hub is given with its revision, {path}@main, or as the folder that {made} makes"
