from __future__ import annotations

import pickle
import re
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from helpers import golden_entries, run_cli

from dbcpu import Size, load_detector
from dbcpu.checkpoint.families import FAMILIES, family_of
from dbcpu.checkpoint.load import read_weights
from dbcpu.checkpoint.read import read_checkpoint
from dbcpu.errors import CheckpointError, ConfigError, UsageError
from dbcpu.image import source_from_array
from dbcpu.preprocess import content_size

MakeCheckpoint = Callable[..., Path]
Tensors = dict[str, torch.Tensor]
FOREIGN = sorted({entry["variant"] for entry in golden_entries("foreign_probability_maps.json")})


def _layout(variant: str) -> str:
    return "mmocr" if variant.startswith("mmocr") else "dbnet_torch"


def _bare(synthetic: ModuleType, variant: str) -> Tensors:
    return {name: torch.from_numpy(np.asarray(array)) for name, array in synthetic.state_dict(variant).items()}


@pytest.mark.parametrize("variant", FOREIGN)
def test_the_probability_maps_are_those_of_the_other_code(
    variant: str, golden: Path, synthetic: ModuleType, tmp_path: Path
):
    synthetic.save_checkpoint(variant, tmp_path / "best.pth", layout=_layout(variant))
    with np.load(golden / "foreign_probability_maps.npz") as maps:
        for entry in golden_entries("foreign_probability_maps.json"):
            if entry["variant"] != variant:
                continue
            detector = load_detector(tmp_path / "best.pth", short_side=entry["short_side"])
            network_input = detector.preprocess(source_from_array(synthetic.image(entry["image"])))
            assert zlib.crc32(network_input.tensor.numpy().tobytes()) == entry["input_crc32"]
            found = detector.infer(network_input)
            np.testing.assert_allclose(found, maps[entry["key"]].squeeze(), rtol=0, atol=5e-5)


# Names of code bases without golden maps of their own: the same tensors as a golden variant's, renamed.
def _paddle(name: str) -> str:
    if match := re.match(r"backbone\.layer(\d)\.(\d+)\.(.*)", name):
        layer, block, rest = int(match[1]), int(match[2]), match[3]
        head = f"backbone.stages.{layer - 1}.res{layer + 1}{chr(ord('a') + block)}."
        part, _, tensor = rest.rpartition(".")
        parts = {
            "conv1": "conv0._conv",
            "conv2": "conv1._conv.conv_dcn" if layer > 1 else "conv1._conv",
            "conv2_offset": "conv1._conv.conv_offset",
            "conv3": "conv2._conv",
            "bn1": "conv0._batch_norm",
            "bn2": "conv1._batch_norm",
            "bn3": "conv2._batch_norm",
            "downsample.0": "short._conv",
            "downsample.1": "short._batch_norm",
        }
        return f"{head}{parts[part]}.{tensor}"
    for pattern, new in (
        (r"backbone\.conv1\.", "backbone.conv._conv."),
        (r"backbone\.bn1\.", "backbone.conv._batch_norm."),
        (r"decoder\.in(\d)\.", r"neck.in\1_conv."),
        (r"decoder\.out2\.", "neck.p2_conv."),
        (r"decoder\.out(\d)\.0\.", r"neck.p\1_conv."),
        (r"decoder\.concat_attention\.conv\.", "neck.asf.conv."),
        (r"decoder\.concat_attention\.enhanced_attention\.spatial_wise\.", "neck.asf.spatial_scale."),
        (r"decoder\.concat_attention\.enhanced_attention\.attention_wise\.", "neck.asf.channel_scale."),
        (r"decoder\.(binarize|thresh)\.0\.", r"head.\1.conv1."),
        (r"decoder\.(binarize|thresh)\.1\.", r"head.\1.conv_bn1."),
        (r"decoder\.(binarize|thresh)\.3\.", r"head.\1.conv2."),
        (r"decoder\.(binarize|thresh)\.4\.", r"head.\1.conv_bn2."),
        (r"decoder\.(binarize|thresh)\.6\.", r"head.\1.conv3."),
    ):
        if re.match(pattern, name):
            return re.sub(pattern, new, name)
    return name


def _tao(name: str) -> str:
    if name.startswith(("decoder.in", "decoder.out", "decoder.concat")):
        name = name.replace("decoder.", "neck.", 1)
    return "model." + name.replace("decoder.", "head.", 1)


@pytest.mark.parametrize(
    ("family", "variant", "rename", "file_name"),
    [
        ("paddleocr2pytorch", "deformable_resnet50_asf_spatial_strided", _paddle, "paddle.pth"),
        pytest.param("paddleocr2pytorch", "deformable_resnet50_strided", _paddle, "paddle.pth", marks=pytest.mark.slow),
        pytest.param("tao-ocdnet", "deformable_resnet50_strided", _tao, "ocdnet.pth", marks=pytest.mark.slow),
        ("tao-ocdnet", "resnet18", _tao, "ocdnet.pth"),
        ("modelscope", "resnet18", str, "pytorch_model.pt"),
    ],
)
def test_renamed_tensors_give_the_golden_maps(
    family: str,
    variant: str,
    rename: Callable[[str], str],
    file_name: str,
    golden: Path,
    synthetic: ModuleType,
    tmp_path: Path,
):
    tensors = _bare(synthetic, variant)
    kept = {n: t for n, t in tensors.items() if not n.startswith(("backbone.fc.", "backbone.smooth."))}
    torch.save({rename(name): tensor for name, tensor in kept.items()}, tmp_path / file_name)
    weights = read_weights(tmp_path / file_name)
    assert weights.origin.family == family
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in weights.tensors.items())
    entry = next(e for e in golden_entries("probability_maps.json") if e["variant"] == variant)
    # ModelScope has means of its own; the golden maps were made with the original's.
    stated = "original" if family == "modelscope" else None
    detector = load_detector(tmp_path / file_name, short_side=entry["short_side"], family=stated)
    found = detector.probability_map(synthetic.image(entry["image"]))
    with np.load(golden / "probability_maps.npz") as maps:
        np.testing.assert_allclose(found, maps[entry["key"]].squeeze(), rtol=0, atol=5e-5)


@pytest.mark.parametrize(
    ("variant", "mean", "size"),
    [
        ("mmocr_dbnet_resnet18", (123.675, 116.28, 103.53), Size(736, 981)),
        ("mmocr_dbnetpp_resnet50_dcnv2", (123.675, 116.28, 103.53), Size(1024, 1365)),
        ("dbnet_pytorch_resnet18", (123.675, 116.28, 103.53), Size(1024, 1376)),
    ],
)
def test_a_family_brings_its_own_preprocessing(
    variant: str, mean: tuple[float, ...], size: Size, make_checkpoint: MakeCheckpoint
):
    config = read_weights(make_checkpoint(variant, _layout(variant))).config
    assert (config.preprocess.channels, config.preprocess.mean) == ("rgb", mean)
    assert content_size(config.preprocess, Size(240, 320)) == size
    assert config.model.offset_stride == "strided"


def test_mmocr_0_and_1_differ_in_names_and_in_the_means_of_some_networks(tmp_path: Path, synthetic: ModuleType):
    tensors = _bare(synthetic, "mmocr_dbnet_resnet50_dcnv2")
    old = {
        name.replace("det_head", "bbox_head").replace("conv2.conv_offset", "conv2_offset"): t
        for name, t in tensors.items()
    }
    torch.save({"meta": {}, "state_dict": old}, tmp_path / "old.pth")
    torch.save({"meta": {}, "state_dict": tensors}, tmp_path / "new.pth")
    before, after = read_weights(tmp_path / "old.pth"), read_weights(tmp_path / "new.pth")
    assert (before.origin.family, after.origin.family) == ("mmocr-0.x", "mmocr-1.x")
    assert before.config.preprocess.mean[0] == 122.67891434
    assert after.config.preprocess.mean[0] == 123.675
    assert before.tensors.keys() == after.tensors.keys()
    assert all(torch.equal(before.tensors[name], tensor) for name, tensor in after.tensors.items())


def _dbnet_file(path: Path, synthetic: ModuleType, **entries: Any) -> Path:
    torch.save({"state_dict": OrderedDict(_bare(synthetic, "dbnet_pytorch_resnet18")), **entries}, path)
    return path


def test_dbnet_pytorch_states_more_in_its_configuration(tmp_path: Path, synthetic: ModuleType):
    config = {
        "post_processing": {
            "type": "SegDetectorRepresenter",
            "args": {"thresh": 0.25, "box_thresh": 0.5, "unclip_ratio": 2},
        },
        "dataset": {
            "validate": {
                "dataset": {
                    "args": {
                        "img_mode": "BGR",
                        "pre_processes": [{"type": "ResizeShortSize", "args": {"short_size": 736}}],
                    }
                }
            }
        },
    }
    found = read_weights(_dbnet_file(tmp_path / "a.pth", synthetic, config=config)).config
    assert (found.postprocess.binarize_threshold, found.postprocess.score_threshold) == (0.25, 0.5)
    assert found.postprocess.unclip_ratio == 2
    assert (found.preprocess.short_side, found.preprocess.channels) == (736, "bgr")
    config["post_processing"]["args"]["thresh"] = "high"
    with pytest.raises(ConfigError, match="configuration inside the checkpoint"):
        read_weights(_dbnet_file(tmp_path / "b.pth", synthetic, config=config))


@pytest.mark.parametrize(
    ("arguments", "mean", "std"),
    [
        ({"mean": [0.5, 0.4, 0.3], "std": [0.25, 0.5, 1]}, (127.5, 102, 76.5), (63.75, 127.5, 255)),
        ({"mean": 0.5, "std": [0.5]}, (127.5,) * 3, (127.5,) * 3),
        (None, (0, 0, 0), (255, 255, 255)),
    ],
)
def test_dbnet_pytorch_normalises_as_its_training_did(
    arguments: Any, mean: tuple[float, ...], std: tuple[float, ...], tmp_path: Path, synthetic: ModuleType
):
    transforms = [{"type": "ToTensor", "args": {}}, *([{"type": "Normalize", "args": arguments}] if arguments else [])]
    config = {"dataset": {"train": {"dataset": {"args": {"img_mode": "RGB", "transforms": transforms}}}}}
    found = read_weights(_dbnet_file(tmp_path / "a.pth", synthetic, config=config)).config.preprocess
    assert (found.mean, found.std) == (mean, std)


def test_dbnet_pytorch_with_a_damaged_normalisation_is_refused(tmp_path: Path, synthetic: ModuleType):
    transforms = [{"type": "ToTensor"}, {"type": "Normalize", "args": {"mean": "grey"}}]
    config = {"dataset": {"train": {"transforms": transforms}}}
    with pytest.raises(ConfigError, match=r"a\.pth: in the configuration inside the checkpoint, mean must be"):
        read_weights(_dbnet_file(tmp_path / "a.pth", synthetic, config=config))


@pytest.mark.parametrize("name", ["det_head.binarize.0.weight", "det_head.threshold.0.weight"])
def test_a_head_of_mmocr_with_a_wrong_shape_is_named(name: str, tmp_path: Path, synthetic: ModuleType):
    tensors = _bare(synthetic, "mmocr_dbnet_resnet18")
    tensors[name] = torch.ones(64)
    torch.save({"state_dict": tensors}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"\.0\.weight"):
        read_weights(tmp_path / "a.pth")


def test_dbnet_pytorch_of_before_june_2020_has_other_names(tmp_path: Path, synthetic: ModuleType):
    tensors = _bare(synthetic, "dbnet_pytorch_deformable_resnet18")
    old = {
        name.replace("neck.", "segmentation_body.").replace("head.", "segmentation_head."): tensor
        for name, tensor in tensors.items()
    }
    torch.save({"state_dict": old}, tmp_path / "old.pth")
    torch.save({"state_dict": tensors}, tmp_path / "new.pth")
    before, after = read_weights(tmp_path / "old.pth"), read_weights(tmp_path / "new.pth")
    assert before.config == after.config
    assert not after.config.model.modulated
    assert before.tensors.keys() == after.tensors.keys()


@pytest.mark.parametrize("value", [np.float64(0.5), np.float32(0.5), np.int64(3), np.bool_(True)])
def test_numbers_of_numpy_beside_the_weights_do_no_harm(tmp_path: Path, synthetic: ModuleType, value: np.generic):
    path = _dbnet_file(tmp_path / "a.pth", synthetic, metrics={"hmean": value})
    assert read_checkpoint(path).extras["metrics"] == {"hmean": value}
    # Files of numpy 1 name the same function under its older module.
    torch.save({"state_dict": {}, "metrics": value}, tmp_path / "old", _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert b"numpy._core.multiarray" in content or np.lib.NumpyVersion(np.__version__) < "2.0.0"


def test_an_array_of_numpy_is_still_refused(tmp_path: Path, synthetic: ModuleType):
    path = _dbnet_file(tmp_path / "a.pth", synthetic, metrics=np.zeros(3))
    with pytest.raises(CheckpointError, match=r"would import numpy\._?core\.multiarray\._reconstruct"):
        read_checkpoint(path)


@pytest.mark.slow
def test_easyocr_parity_leaves_the_attention_out(make_checkpoint: MakeCheckpoint, synthetic: ModuleType):
    checkpoint = make_checkpoint("deformable_resnet50_asf_spatial")
    with_asf, without = read_weights(checkpoint), read_weights(checkpoint, attention=False)
    assert with_asf.config.model.attention == "scale_spatial"
    assert without.config.model.attention == "none"
    assert ("decoder.concat_attention.conv.bias", "left out on request") in without.origin.dropped
    maps = [
        load_detector(checkpoint, short_side=96, attention=attention).probability_map(synthetic.image(4))
        for attention in (True, False)
    ]
    assert np.abs(maps[0] - maps[1]).max() > 1e-3


def test_every_family_is_recognised_by_its_own_names_only(synthetic: ModuleType):
    examples = {
        "original": list(_bare(synthetic, "deformable_resnet50_asf")),
        "mmocr-1.x": list(_bare(synthetic, "mmocr_dbnetpp_resnet50_dcnv2")),
        "dbnet.pytorch": list(_bare(synthetic, "dbnet_pytorch_deformable_resnet50")),
        "paddleocr2pytorch": [_paddle(name) for name in _bare(synthetic, "deformable_resnet50_asf_spatial")],
        "tao-ocdnet": [_tao(name).removeprefix("model.") for name in _bare(synthetic, "deformable_resnet50")],
    }
    for family, names in examples.items():
        assert [f.name for f in FAMILIES if f.recognises(names, "best.pth")] == [family]


def test_a_stated_family_overrules_the_recognised_one(tmp_path: Path, synthetic: ModuleType):
    torch.save(_bare(synthetic, "resnet18"), tmp_path / "renamed.pth")
    assert read_weights(tmp_path / "renamed.pth").origin.family == "original"
    assert read_weights(tmp_path / "renamed.pth", family="modelscope").config.preprocess.mean[0] == 123.68
    with pytest.raises(UsageError, match=r"no checkpoint family is called dbnet.*known: modelscope, original"):
        read_weights(tmp_path / "renamed.pth", family="dbnet")


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["feat_extractor.conv1.weight", "fpn.in_branches.0.0.weight", "prob_head.0.weight"], "a docTR network"),
        (["backbone.stem.0.weight", "neck.lateral_convs.0.conv.weight"], "an mmocr network with an oCLIP backbone"),
        (["backbone.conv1.weight", "neck.fpems.0.up_add1.0.weight", "head.binarize.0.weight"], "FPEM_FFM"),
        (["backbone.conv1_1.conv.weight", "neck.in2_conv.weight"], "ResNet-vd backbone"),
        (["backbone.conv1.weight", "neck.lateral_convs.0.conv.weight", "neck.out_conv.0.weight"], "conv_after_concat"),
        (["backbone.conv1.weight", "head.conv.0.weight"], "ConvHead"),
        (["backbones.conv1.weight"], "a backbone or neck that dbcpu does not have"),
        (["basenet.slice1.0.weight", "upconv1.conv.0.weight"], "not a DB checkpoint that dbcpu knows"),
    ],
)
def test_networks_that_cannot_be_mapped_are_named_with_the_reason(names: list[str], what: str):
    with pytest.raises(CheckpointError) as caught:
        family_of(names, Path("x.pth"))
    assert what in str(caught.value)


def test_other_kinds_of_file_are_named_with_a_way_out(tmp_path: Path):
    paddle = {"conv1_1.weight": np.zeros(3), "StructuredToParameterName@@": {"a": "b"}}
    (tmp_path / "best.pdparams").write_bytes(pickle.dumps(paddle, protocol=2))
    (tmp_path / "model.onnx").write_bytes(b"\x08\x07\x12\x07pytorch\x1a\x052.1.0:" + b"\0" * 100)
    (tmp_path / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 100)
    torch.save(torch.nn.Sequential(torch.nn.Linear(1, 1)), tmp_path / "whole.pth")
    for name, what in (
        ("best.pdparams", "a PaddlePaddle file"),
        ("model.onnx", "an ONNX file"),
        ("model.h5", "a Keras or HDF5 file"),
        ("whole.pth", "a whole pickled module"),
    ):
        with pytest.raises(CheckpointError) as caught:
            read_checkpoint(tmp_path / name)
        assert what in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "variant",
    [
        "deformable_resnet18",
        pytest.param("deformable_resnet50", marks=pytest.mark.slow),
        pytest.param("deformable_resnet50_asf", marks=pytest.mark.slow),
        "mobilenet_v3_large",
    ],
)
def test_the_way_to_a_model_file_and_back_keeps_every_bit(
    variant: str, tmp_path: Path, make_checkpoint: MakeCheckpoint, synthetic: ModuleType
):
    model, back = tmp_path / "m.safetensors", tmp_path / "final"
    assert run_cli("convert", make_checkpoint(variant, "legacy"), "-o", model)[0] == 0
    assert run_cli("convert", model, "--to", "original", "-o", back)[0] == 0
    assert back.read_bytes()[2:8] == b"\x8a\x0a\x6c\xfc\x9c\x46"  # what PyTorch 1.2 reads
    written = torch.load(back, weights_only=True)
    original = _bare(synthetic, variant)
    kept = set(read_weights(model).tensors)
    assert kept < set(original)
    for name in kept:
        assert torch.equal(written[f"model.module.{name}"], original[name])
    counters = {name: tensor for name, tensor in written.items() if name.endswith("num_batches_tracked")}
    assert counters
    assert all(tensor == 0 and tensor.dtype == torch.int64 for tensor in counters.values())
    assert set(written) <= {f"model.module.{name}" for name in original}
    assert read_weights(back).config == read_weights(model).config


@pytest.mark.parametrize(
    ("variant", "layout", "reason"),
    [
        ("deformable_resnet50_strided", "original", "stride"),
        ("dbnet_pytorch_deformable_resnet18", "dbnet_torch", "neck"),
        ("mmocr_dbnetpp_resnet50_dcnv2", "mmocr", "stride"),
        ("mmocr_dbnet_resnet18", "mmocr", "normalised with another channels, mean, std, scale"),
    ],
)
def test_what_the_original_would_misread_is_refused(
    variant: str, layout: str, reason: str, tmp_path: Path, make_checkpoint: MakeCheckpoint
):
    code, _, err = run_cli("convert", make_checkpoint(variant, layout), "--to", "original", "-o", tmp_path / "final")
    assert code == 4
    assert reason in err
    assert list(tmp_path.iterdir()) == []


def test_inspect_says_what_a_family_implies(make_checkpoint: MakeCheckpoint):
    code, out, _ = run_cli("inspect", make_checkpoint("mmocr_dbnet_resnet18", "mmocr"))
    assert code == 0
    assert "mmocr-1.x" in out
    assert "offset convolutions of stride 2" in out
