from __future__ import annotations

import contextlib
import io
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from dbcpu.checkpoint.pickled import forbidden_globals
from dbcpu.checkpoint.read import read_checkpoint
from dbcpu.errors import CheckpointError


def _tensors() -> OrderedDict[str, torch.Tensor]:
    torch.manual_seed(0)
    return OrderedDict((f"backbone.layer{i}.weight", torch.randn(4, 3)) for i in range(3))


def _prefixed(prefix: str) -> OrderedDict[str, torch.Tensor]:
    return OrderedDict((prefix + name, tensor) for name, tensor in _tensors().items())


def _assert_same(path: Path) -> None:
    raw = read_checkpoint(path)
    assert list(raw.tensors) == list(_tensors())
    assert all(torch.equal(raw.tensors[name], tensor) for name, tensor in _tensors().items())


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "pre-1.6"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "model.module.", "module.model.module.", "_orig_mod."])
def test_any_serialisation_and_any_depth_of_prefixes_gives_the_same_tensors(tmp_path: Path, zipped: bool, prefix: str):
    torch.save(_prefixed(prefix), tmp_path / "final", _use_new_zipfile_serialization=zipped)
    _assert_same(tmp_path / "final")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: {"state_dict": t, "epoch": 7, "optimizer": {"lr": 0.007}},
        lambda t: {"model": t, "epoch": 7},
        lambda t: {"epoch": 7, "something": t},
        lambda t: {"model": {"state_dict": t}, "loss": torch.tensor(0.5)},
        lambda t: {**t, "epoch": 7},
        lambda t: {"ema": t, "epoch": torch.tensor(3)},
        lambda t: {"ema": {"module": t}, "updates": 3},
        lambda t: {"model": {"mean": torch.zeros(3)}, "weights": t},
        lambda t: {"det_model": t, "amp": {"scale": torch.tensor(1.0)}},
        lambda t: {"state_dict": t, "state_dict_ema": {name: tensor * 0 for name, tensor in t.items()}},
        lambda t: {"model": t, "optimizer": {"state": {i: {"exp_avg": torch.zeros(3)} for i in range(9)}}},
    ],
)
def test_the_tensors_are_found_in_a_training_state(tmp_path: Path, wrap: Any):
    torch.save(wrap(_tensors()), tmp_path / "final")
    _assert_same(tmp_path / "final")


def test_what_stands_beside_the_tensors_is_reported(tmp_path: Path):
    torch.save({"state_dict": _tensors(), "epoch": 7, "optimizer": {"lr": 0.1}}, tmp_path / "final")
    assert read_checkpoint(tmp_path / "final").extras == {"epoch": 7, "optimizer": {"lr": 0.1}}


def test_tensors_that_were_saved_on_a_gpu_come_to_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.serialization, "location_tag", lambda _: "cuda:0")
    torch.save(_tensors(), tmp_path / "final", _use_new_zipfile_serialization=False)
    monkeypatch.undo()
    assert b"cuda:0" in (tmp_path / "final").read_bytes()
    _assert_same(tmp_path / "final")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_stored_dtype_is_kept(tmp_path: Path, dtype: torch.dtype):
    torch.save({name: tensor.to(dtype) for name, tensor in _tensors().items()}, tmp_path / "final")
    assert {tensor.dtype for tensor in read_checkpoint(tmp_path / "final").tensors.values()} == {dtype}


def test_safetensors_are_read_whatever_they_are_called(tmp_path: Path):
    save_file(_tensors(), tmp_path / "final", metadata={"format": "pt"})
    raw = read_checkpoint(tmp_path / "final")
    assert raw.container == "safetensors"
    assert raw.metadata == {"format": "pt"}
    assert set(raw.tensors) == set(_tensors())


class _Runs:
    """Unpickling it would create the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("kind", ["zip", "pre-1.6", "bare pickle", "protocol 4"])
def test_a_file_that_would_run_code_is_refused_by_name_and_nothing_runs(tmp_path: Path, kind: str):
    proof, path = tmp_path / "it_ran", tmp_path / "final"
    document = {"state_dict": _tensors(), "config": _Runs(proof)}
    if kind == "bare pickle":
        path.write_bytes(pickle.dumps({"config": _Runs(proof)}, protocol=2))
    elif kind == "protocol 4":
        path.write_bytes(pickle.dumps({"config": _Runs(proof)}, protocol=4))
    else:
        torch.save(document, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert f"{os.system.__module__}.system" in str(caught.value)
    assert "nothing in it was run" in str(caught.value)
    assert not proof.exists()


def test_all_forbidden_globals_are_named_at_once(tmp_path: Path):
    document = {"state_dict": _tensors(), "metrics": np.zeros(3), "where": Path("x")}
    torch.save(document, tmp_path / "final")
    names = forbidden_globals(tmp_path / "final")
    assert any(name.endswith("._reconstruct") for name in names)
    assert any(name.startswith("pathlib.") for name in names)
    assert not any(name.startswith(("torch.", "collections.")) for name in names)


@pytest.mark.parametrize("kind", ["zip", "pre-1.6", "safetensors"])
def test_a_file_cut_off_anywhere_is_an_error_of_one_line(tmp_path: Path, kind: str):
    whole, path = tmp_path / "whole", tmp_path / "cut"
    if kind == "safetensors":
        save_file(_tensors(), whole)
    else:
        torch.save(_tensors(), whole, _use_new_zipfile_serialization=kind == "zip")
    content = whole.read_bytes()
    for part in range(20):
        path.write_bytes(content[: len(content) * part // 20])
        with pytest.raises(CheckpointError) as caught:
            read_checkpoint(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


def _zip_of_garbage() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"garbage")
        archive.writestr("archive/version", b"3")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"\xff\xd8\xff\xe0 picture", "a JPEG picture"),
        (b"\x89HDF\r\n\x1a\n", "a Keras or HDF5 file"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\xef\xbb\xbf\n <HTML>", "a web page"),
        (b"<?xml version='1.0'?><Error>", "an XML document"),
        (b"\x1f\x8b\x08 zipped", "a gzip archive"),
        (b"PK\x03\x04 no archive", "cut-off or damaged"),
        (_zip_of_garbage(), "damaged"),
        (b"hello, I am a text", "not a checkpoint"),
        (b"\x80\x02garbage", "damaged"),
        (b"\xff" * 100, "not a checkpoint"),
    ],
)
def test_what_is_no_checkpoint_is_named_for_what_it_is(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "final").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(tmp_path / "final")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_directory_and_a_missing_file_are_named(tmp_path: Path):
    (tmp_path / "model_epoch_1").touch()
    with pytest.raises(CheckpointError, match=r"a directory.*model_epoch_1"):
        read_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="no such file"):
        read_checkpoint(tmp_path / "none")


@pytest.mark.parametrize("document", [torch.zeros(3), [1, 2], {"epoch": 3}, {"a": _tensors(), "b": _tensors()}])
def test_a_pickle_without_one_set_of_named_tensors_says_what_it_holds(tmp_path: Path, document: Any):
    torch.save(document, tmp_path / "final")
    with pytest.raises(CheckpointError, match=r"single tensor|not named tensors|no tensors|several sets"):
        read_checkpoint(tmp_path / "final")


def test_two_sets_of_weights_under_known_names_are_not_chosen_between(tmp_path: Path):
    torch.save({"model": _tensors(), "state_dict": _tensors()}, tmp_path / "final")
    with pytest.raises(CheckpointError, match=r"several sets of tensors: model, state_dict; .*a file of its own"):
        read_checkpoint(tmp_path / "final")


def test_a_training_state_that_holds_itself_ends(tmp_path: Path):
    document: dict[str, Any] = {"weights": _tensors()}
    document["model"] = document
    torch.save(document, tmp_path / "final")
    with pytest.raises(CheckpointError, match="several sets"):
        read_checkpoint(tmp_path / "final")


@pytest.mark.parametrize("protocol", [4, 5])
def test_another_pickle_protocol_is_named_as_such(tmp_path: Path, protocol: int):
    torch.save(_tensors(), tmp_path / "zip", pickle_protocol=protocol)
    (tmp_path / "bare").write_bytes(pickle.dumps({"a": 1}, protocol=protocol))
    for name in ("zip", "bare"):
        with pytest.raises(CheckpointError, match=rf"by protocol {protocol}.*save its state_dict\(\)"):
            read_checkpoint(tmp_path / name)


@pytest.mark.parametrize(
    "tensor", [torch.zeros(3, device="meta"), torch.ones(1).expand(64, 1 << 40)], ids=["meta", "expanded"]
)
def test_a_shape_without_numbers_is_refused(tmp_path: Path, tensor: torch.Tensor):
    torch.save({**_tensors(), "decoder.in5.weight": tensor}, tmp_path / "final")
    with pytest.raises(CheckpointError, match=r"decoder\.in5\.weight has a shape, but not the numbers"):
        read_checkpoint(tmp_path / "final")


def test_a_pipe_is_refused_as_what_it_is(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="a pipe or device"):
        read_checkpoint(tmp_path / "pipe")


def test_a_name_that_the_system_refuses_is_an_error_of_the_file(tmp_path: Path):
    with pytest.raises(CheckpointError, match="File name too long"):
        read_checkpoint(tmp_path / ("a" * 300))


def test_a_torchscript_program_is_named(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "final", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
        archive.writestr("archive/code/__torch__.py", b"")
    with pytest.raises(CheckpointError, match="TorchScript"):
        read_checkpoint(tmp_path / "final")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    zipped=st.booleans(), flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1)
)
def test_flipped_bytes_give_tensors_or_a_checkpoint_error(tmp_path: Path, zipped: bool, flips: list[tuple[float, int]]):
    buffer = io.BytesIO()
    torch.save(_tensors(), buffer, _use_new_zipfile_serialization=zipped)
    content = bytearray(buffer.getvalue())
    for place, bits in flips:
        content[int(place * len(content))] ^= bits
    (tmp_path / "final").write_bytes(content)
    # Anything else than a CheckpointError fails the test.
    with contextlib.suppress(CheckpointError):
        raw = read_checkpoint(tmp_path / "final")
        assert all(isinstance(tensor, torch.Tensor) for tensor in raw.tensors.values())


def test_a_pickle_that_claims_more_bytes_than_there_is_memory_is_damaged_and_nothing_else(tmp_path: Path):
    (tmp_path / "final").write_bytes(b"\x80\x02\x8e" + (1 << 62).to_bytes(8, "little") + b"few.")
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(tmp_path / "final")


def test_an_archive_with_a_name_that_is_no_text_is_damaged_and_nothing_else(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "final", "w") as archive:
        archive.writestr("archive/vérsion", b"3")
    content = (tmp_path / "final").read_bytes()
    (tmp_path / "final").write_bytes(content.replace("é".encode(), b"\xff\xff"))
    assert forbidden_globals(tmp_path / "final") == []
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(tmp_path / "final")


def test_a_program_under_two_names_is_not_run(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "final", "w") as archive:
        archive.writestr("archive/data.pkl", b"cposix\nsystem\n(Vexit 1\ntR.")
        archive.writestr("archive/version", b"3")
    content = (tmp_path / "final").read_bytes()
    # The name is in front of the content and in the directory at the end; torch looks at one, zipfile at both.
    (tmp_path / "final").write_bytes(content.replace(b"data.pkl", b"data.pkm", 1))
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(tmp_path / "final")


@pytest.mark.parametrize("length", [0x80, 0x4B50])
def test_safetensors_whose_header_length_looks_like_another_format_are_read(tmp_path: Path, length: int):
    tensors = {"backbone.conv1.weight": torch.zeros(2)}
    save_file(tensors, tmp_path / "final", metadata={"filler": ""})
    size = int.from_bytes((tmp_path / "final").read_bytes()[:8], "little")
    filler = "x" * (length + (1 << 16) * (length < 256) - size)  # the header is padded to a multiple of eight
    save_file(tensors, tmp_path / "final", metadata={"filler": filler})
    head = (tmp_path / "final").read_bytes()[:2]
    assert head[0] == length & 0xFF
    assert read_checkpoint(tmp_path / "final").container == "safetensors"
