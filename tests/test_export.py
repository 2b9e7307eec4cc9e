"""Exported networks give torch's numbers in their runtimes, and carry their configuration."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import run_cli

from dbcpu.checkpoint.load import load_network, read_weights
from dbcpu.checkpoint.native import describe_weights
from dbcpu.config import ModelConfig
from dbcpu.errors import OutputError
from dbcpu.export.program import LARGEST_DIFFERENCE, compare_with_torch
from dbcpu.export.to_onnx import write_onnx
from dbcpu.export.to_openvino import write_openvino
from dbcpu.model.network import Network, build_model
from dbcpu.model.resnet import LAYOUTS, Layout

# All kinds of blocks that ResNet-50 has, traced in a fraction of its time.
SHALLOW = Layout(bottleneck=True, blocks=(1, 1, 1, 1))
TINY = torch.nn.Conv2d(3, 1, 1).requires_grad_(False)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    """Bottlenecks with the original's strides and ASF, of random weights, whose offsets reach across several pixels."""
    monkeypatch.setitem(LAYOUTS, "resnet50", SHALLOW)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = ModelConfig(backbone="resnet50", deformable=True, attention="scale_channel_spatial")
        network = build_model(config).eval().requires_grad_(False)
        for name, tensor in network.state_dict().items():
            if "conv2_offset" in name:
                torch.nn.init.normal_(tensor, std=0.05 if name.endswith("weight") else 1)
    return network


@pytest.mark.slow
def test_the_originals_strides_and_attention_give_torchs_maps_in_onnx_runtime(network: Network, tmp_path: Path):
    pytest.importorskip("onnxruntime")
    assert 0 < write_onnx(tmp_path / "m.onnx", network, {}) < LARGEST_DIFFERENCE


@pytest.mark.slow
def test_the_originals_strides_and_attention_give_torchs_maps_in_openvino(network: Network, tmp_path: Path):
    pytest.importorskip("openvino")
    assert 0 < write_openvino(tmp_path / "m.xml", network, {}) < LARGEST_DIFFERENCE


@pytest.mark.slow
def test_an_onnx_file_has_the_standard_operator_free_axes_and_the_configuration(
    make_checkpoint: Callable[..., Path], tmp_path: Path
):
    runtime, onnx = pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    checkpoint, path = make_checkpoint(), tmp_path / "m.onnx"
    code, out, err = run_cli("export", checkpoint, "--to", "onnx", "-o", path)
    assert (code, out) == (0, "")
    assert "differ from torch's by at most" in err

    session = runtime.InferenceSession(path)
    weights = read_weights(checkpoint)
    batch = np.random.default_rng(1).normal(size=(3, 3, 32, 64)).astype(np.float32)
    expected = load_network(weights.tensors, weights.config.model)(torch.from_numpy(batch))
    (found,) = session.run(["probability_map"], {"input": batch})
    assert np.abs(found - expected.numpy()).max() < LARGEST_DIFFERENCE
    assert session.get_modelmeta().custom_metadata_map == {"dbcpu": describe_weights(weights.config, weights.origin)}

    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 19)]
    assert sum(node.op_type == "DeformConv" for node in model.graph.node) == 6
    # Nothing of the machine it was made on.
    assert str(Path(__file__).parents[1]).encode() not in path.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_an_openvino_file_has_its_tensors_beside_it_free_axes_and_the_configuration(
    make_checkpoint: Callable[..., Path], tmp_path: Path
):
    openvino = pytest.importorskip("openvino")
    checkpoint = make_checkpoint("dbnet_pytorch_deformable_resnet18", "dbnet_torch")  # without masks
    path = tmp_path / "m.xml"
    (tmp_path / "m.bin").write_text("older")
    code, out, err = run_cli("export", checkpoint, "--to", "openvino", "-o", path, "--force")
    assert (code, out) == (0, "")
    assert "differ from torch's by at most" in err
    assert sorted(tmp_path.iterdir()) == [path.with_suffix(".bin"), path]

    model = openvino.Core().read_model(path)
    assert model.inputs[0].names == {"input"}
    assert model.outputs[0].names == {"probability_map"}
    assert [model.inputs[0].partial_shape[axis].is_dynamic for axis in range(4)] == [True, False, True, True]
    weights = read_weights(checkpoint)
    assert model.get_rt_info("dbcpu").astype(str) == describe_weights(weights.config, weights.origin)


@pytest.mark.parametrize("wrong", [2e-4, np.nan])
def test_maps_that_differ_are_an_error(wrong: float, tmp_path: Path):
    compare_with_torch(lambda batch: TINY(torch.from_numpy(batch)).numpy(), TINY, where=tmp_path)
    with pytest.raises(OutputError, match="differ from torch's"):
        compare_with_torch(lambda batch: TINY(torch.from_numpy(batch)).numpy() + wrong, TINY, where=tmp_path)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_file_that_cannot_be_made_leaves_no_trace(runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("onnxruntime" if runtime == "onnx" else runtime)
    monkeypatch.setattr("dbcpu.export.program.LARGEST_DIFFERENCE", -1)
    write, path = (write_onnx, tmp_path / "m.onnx") if runtime == "onnx" else (write_openvino, tmp_path / "m.xml")
    path.write_text("older")
    with pytest.raises(OutputError, match="not written"):
        write(path, TINY, {})
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "older"


@pytest.mark.parametrize(
    ("runtime", "target", "existing", "message"),
    [
        ("onnx", "m.onnx", "m.onnx", "m.onnx: exists already (give --force"),
        ("openvino", "m.xml", "m.bin", "m.bin: exists already (give --force"),
        ("onnx", "m.xml", None, "m.xml: must end in .onnx"),
        ("openvino", "m", None, "m: must end in .xml"),
        ("onnx", "none/m.onnx", None, "none: there is no such folder"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused_before_the_work(
    runtime: str, target: str, existing: str | None, message: str, tmp_path: Path
):
    if existing:
        (tmp_path / existing).write_text("older")
    code, _, err = run_cli("export", "no-such-checkpoint", "--to", runtime, "-o", tmp_path / target)
    assert code != 0
    assert message in err


def test_the_checkpoint_itself_is_never_replaced(make_checkpoint: Callable[..., Path], tmp_path: Path):
    checkpoint = tmp_path / "m.bin"
    checkpoint.symlink_to(make_checkpoint())
    code, _, err = run_cli("export", checkpoint, "--to", "openvino", "--force")
    assert (code, "m.bin: would replace the file it reads" in err) == (2, True)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_missing_package_is_named_with_its_extra(
    runtime: str, make_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    find_spec = importlib.util.find_spec
    hidden = ("onnxscript", "openvino")
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: name not in hidden and find_spec(name, *rest))
    checkpoint, ending = make_checkpoint(), {"onnx": ".onnx", "openvino": ".xml"}[runtime]
    code, _, err = run_cli("export", checkpoint, "--to", runtime, "-o", tmp_path / f"m{ending}")
    assert code == 2
    assert f"pip install 'dbcpu[{runtime}]'" in err
    assert list(tmp_path.iterdir()) == []
