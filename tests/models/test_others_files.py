"""Files of models as others leave them: whatever is in one, it is read or refused in words that name it."""

from __future__ import annotations

import json
import os
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from hybridflow.json_file import LFS_POINTER, is_there, read_object
from hybridflow.models import read_shape, table
from hybridflow.models.config_fields import FIXED, READ
from hybridflow.models.model_shape import ModelShape, shape_of
from hybridflow.models.weight_files import tensor_shapes, why_broken
from hybridflow.tasks.tokenizer import tokenizer_file

CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 23,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 64,
}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from([*READ.split(), *FIXED, "id2label", "num_labels"])
ROPE = st.dictionaries(
    st.sampled_from(["rope_type", "type", "rope_theta", "factor", "low_freq_factor", "high_freq_factor"]), ANYTHING
)


@settings(max_examples=4 * settings.default.max_examples)
@given(st.dictionaries(FIELDS, ANYTHING | ROPE, max_size=3))
def test_any_config_is_a_shape_or_a_value_error(changes: dict[str, Any]) -> None:
    try:
        found = shape_of({**CONFIG, **changes})
    except ValueError as error:
        assert str(error).startswith("config.json: ")
    else:
        assert isinstance(found, ModelShape) and len(table(found)) > 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"hidden_size": "64"}, "hidden_size = '64': a whole number of at least 1 was expected"),
        ({"num_hidden_layers": True}, "num_hidden_layers = True: a whole number"),
        ({"vocab_size": 0}, "vocab_size = 0: a whole number of at least 1"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers = 1000000000000: at most 10000 was expected"),
        ({"head_dim": -1}, "head_dim = -1: a whole number"),
        ({"rms_norm_eps": "1e-6"}, "rms_norm_eps = '1e-6': a number above 0 was expected"),
        ({"rope_theta": float("nan")}, "rope_theta = nan: a number above 0 was expected"),
        ({"rope_parameters": []}, "rope_parameters = []: an object was expected"),
        ({"architectures": "Qwen2ForCausalLM"}, "architectures = 'Qwen2ForCausalLM': a list of names was expected"),
        ({"architectures": [5]}, "architectures = [5]: a list of names was expected"),
        ({"layer_types": 5}, "layer_types = 5: a list of names was expected"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings = 'no': true or false was expected"),
        ({"sliding_window": "4096"}, "sliding_window = '4096': a whole number"),
    ],
)
def test_a_field_of_another_kind_is_named(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        shape_of({**CONFIG, **changes})


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[1, 2]", "an object was expected, as {…}; it is a list of 2"),
        (b"null", "an object was expected, as {…}; it is None"),
        (b'{"a": 1,\n', "config.json:2: not JSON"),
        (b"", "config.json:1: not JSON"),
        (b"\x80\x81", "not UTF-8 text (at byte 0)"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8 text (at byte 0)"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not readable as JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not readable as JSON: Exceeds the limit"),
        (LFS_POINTER + b"\noid sha256:0\nsize 5\n", "is a pointer of Git LFS, not the file itself"),
    ],
)
def test_what_is_no_object_names_the_file(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json") as error:
        read_shape(tmp_path)
    assert told in str(error.value) and str(error.value).startswith(str(tmp_path))


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(CONFIG).encode())
    assert read_shape(tmp_path).hidden == 64


@settings(max_examples=2 * settings.default.max_examples)
@given(st.binary(max_size=60))
def test_any_bytes_are_an_object_or_a_value_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.json"
    file.write_bytes(content)
    try:
        assert isinstance(read_object(file), dict)
    except ValueError as error:
        assert str(error).startswith(str(file))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with a config and all its weights in one file."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    weights = {weight.name: np.zeros(weight.shape, np.float16) for weight in table(shape_of(CONFIG))}
    save_file(weights, tmp_path / "model.safetensors")
    return tmp_path


def why(model: Path) -> str | None:
    return why_broken(model, read_shape(model))


def test_a_whole_folder_is_not_broken_with_and_without_an_index(model: Path) -> None:
    assert why(model) is None
    names = dict.fromkeys(tensor_shapes(model / "model.safetensors"), "model.safetensors")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert why(model) is None


def test_weights_that_are_cut_short_anywhere_are_told_by_their_file(model: Path) -> None:
    file = model / "model.safetensors"
    whole = file.read_bytes()
    (header,) = struct.unpack("<Q", whole[:8])
    for size in (0, 5, 8, 8 + header // 2, 8 + header, len(whole) - 1):
        file.write_bytes(whole[:size])
        assert (why(model) or "").startswith(f"{file}, of {size} bytes, is not whole, or no safetensors: ")


def test_what_is_no_safetensors_at_all_is_told_by_its_file(model: Path) -> None:
    file = model / "model.safetensors"
    for content, told in (
        (LFS_POINTER + b"\noid sha256:0\nsize 5\n", f"{file} is a pointer of Git LFS"),
        (b"\xff" * 64, f"{file}, of 64 bytes, is not whole"),
        (struct.pack("<Q", 4) + b"null", f"{file}, of 12 bytes, is not whole"),
    ):
        file.write_bytes(content)
        assert (why(model) or "").startswith(told)
    file.unlink()
    assert "only safetensors are read" in (why(model) or "")
    file.mkdir()
    assert why(model) is not None


def test_tensors_of_no_float_are_named(model: Path) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes().replace(b'"F', b'"I'))  # of as many bits
    wanted = r"model\.embed_tokens\.weight is of I\d\d; one of BF16, F16, F32, F64 is read"
    assert re.fullmatch(f"{re.escape(str(file))}: {wanted}", why(model) or "")


def test_tensors_that_are_missing_or_of_another_shape_are_named(model: Path) -> None:
    config = {**CONFIG, "num_hidden_layers": 3}
    assert "has no tensor 'model.layers.2." in (why_broken(model, shape_of(config)) or "")
    config = {**CONFIG, "intermediate_size": 100}
    assert "has shape (96, 64); by config.json it is (100, 64)" in (why_broken(model, shape_of(config)) or "")


@settings(max_examples=2 * settings.default.max_examples)
@given(index=ANYTHING | st.dictionaries(st.just("weight_map"), ANYTHING | st.dictionaries(st.text(), st.text())))
def test_any_index_is_told(tmp_path_factory: pytest.TempPathFactory, index: Any) -> None:
    folder = tmp_path_factory.getbasetemp() / "indexed"
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert isinstance(why_broken(folder, shape_of(CONFIG)), str)


def test_an_index_names_files_beside_it_only(model: Path) -> None:
    names = {"model.norm.weight": "../../elsewhere.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert "the name of a file beside it was expected" in (why(model) or "")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (Path.mkdir, "is no file"),
        (os.mkfifo, "is no file"),  # to read it would wait for ever
        (lambda path: path.symlink_to("/dev/zero"), "is no file"),  # and this would fill the memory
        (lambda path: path.symlink_to("gone"), "is a link that leads nowhere"),
        (lambda path: path.symlink_to(path.name), "is a link that leads nowhere"),
    ],
)
def test_what_has_the_name_of_a_file_and_is_none_is_told(tmp_path: Path, make: Any, told: str) -> None:
    for name in ("config.json", "tokenizer.json", "generation_config.json", "model.safetensors"):
        make(tmp_path / name)
    with pytest.raises(ValueError, match=f"generation_config.json {told}"):
        is_there(tmp_path / "generation_config.json")
    with pytest.raises(ValueError, match=f"/config.json {told}"):
        read_shape(tmp_path)
    with pytest.raises(ValueError, match=f"/config.json {told}"):
        read_object(tmp_path / "config.json")
    with pytest.raises(ValueError, match=f"tokenizer.json {told}"):
        tokenizer_file(tmp_path)
    with pytest.raises(ValueError, match=f"model.safetensors {told}"):
        tensor_shapes(tmp_path / "model.safetensors")
    assert f"model.safetensors {told}" in str(why_broken(tmp_path, shape_of(CONFIG)))
    assert not is_there(tmp_path / "none")
