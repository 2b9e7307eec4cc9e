from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from dbcpu.checkpoint import native
from dbcpu.checkpoint.architecture import check_complete, expected_shapes, infer_model_config
from dbcpu.checkpoint.load import load_network, read_weights, require_finite
from dbcpu.checkpoint.read import read_checkpoint
from dbcpu.config import ModelConfig
from dbcpu.errors import CheckpointError, ConfigError, OutputError, UsageError
from dbcpu.model.network import build_model

MakeCheckpoint = Callable[..., Path]


def _bare(synthetic: ModuleType, variant: str = "deformable_resnet18") -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in synthetic.state_dict(variant).items()}


@pytest.mark.parametrize("layout", ["original", "legacy", "cuda", "bare", "ddp"])
def test_every_layout_of_the_original_gives_the_same_weights(
    layout: str, make_checkpoint: MakeCheckpoint, synthetic: ModuleType
):
    weights = read_weights(make_checkpoint("deformable_resnet18", layout))
    assert weights.origin.family == "original"
    assert weights.config.model == ModelConfig(backbone="resnet18", deformable=True, threshold_head=True)
    expected = _bare(synthetic)
    assert all(torch.equal(expected[name], tensor) for name, tensor in weights.tensors.items())
    assert set(expected) - set(weights.tensors) == {name for name, _ in weights.origin.dropped}


def test_every_dropped_name_has_its_reason(make_checkpoint: MakeCheckpoint):
    reasons = dict(read_weights(make_checkpoint()).origin.dropped)
    assert reasons["backbone.fc.weight"].startswith("classifier of ImageNet")
    assert reasons["backbone.smooth.bias"].startswith("left over")
    assert reasons["backbone.bn1.num_batches_tracked"] == "counter of training steps"


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(backbone="resnet34", inner_channels=128, decoder_bias=True, head_bias=True),
        ModelConfig(backbone="resnet50", deformable=True, attention="scale_channel", attention_channels=32),
        ModelConfig(backbone="resnet101", attention="scale_spatial", threshold_head=True, serial=True),
        ModelConfig(backbone="resnet152", attention="scale_channel_spatial", attention_channels=256),
        ModelConfig(backbone="mobilenet_v3_large", threshold_head=True, inner_channels=96),
        ModelConfig(backbone="resnet18", deformable=True, modulated=False, neck="smoothed", head_bias=True),
    ],
    ids=lambda config: config.backbone,
)
def test_the_architecture_is_read_from_names_and_shapes_alone(config: ModelConfig):
    # Expanded zeros: the shapes of a ResNet-152 without its memory.
    tensors = {name: torch.zeros(()).expand(shape) for name, shape in expected_shapes(config).items()}
    assert infer_model_config(tensors, Path("x")) == config
    check_complete(tensors, config, Path("x"))


@pytest.mark.parametrize(
    ("variant", "stride"), [("deformable_resnet50", "original"), ("deformable_resnet50_strided", "strided")]
)
def test_the_stride_of_the_offsets_is_read_from_the_rows_that_were_never_trained(
    variant: str, stride: str, synthetic: ModuleType
):
    tensors = _bare(synthetic, variant)
    assert infer_model_config(tensors, Path("x")).offset_stride == stride
    assert infer_model_config(tensors, Path("x"), offset_stride="strided").offset_stride == "strided"
    assert infer_model_config(tensors, Path("x"), offset_stride="original").offset_stride == "original"


def test_the_stride_of_offsets_without_masks_is_read_as_well(synthetic: ModuleType):
    for variant, stride in (("deformable_resnet50", "original"), ("deformable_resnet50_strided", "strided")):
        tensors = {n: t[:18] if "conv2_offset" in n else t for n, t in _bare(synthetic, variant).items()}
        found = infer_model_config(tensors, Path("x"))
        assert (found.modulated, found.offset_stride) == (False, stride)


def test_stride_2_blocks_that_disagree_ask_for_the_option(synthetic: ModuleType):
    tensors = _bare(synthetic, "deformable_resnet50")
    tensors["backbone.layer3.0.conv2_offset.bias"][7] = 1
    with pytest.raises(CheckpointError, match=r"layer3: strided.*--offset-stride"):
        infer_model_config(tensors, Path("x"))
    assert infer_model_config(tensors, Path("x"), offset_stride="original").offset_stride == "original"


def _save(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    torch.save({f"model.module.{name}": tensor for name, tensor in tensors.items()}, path)
    return path


def test_missing_surplus_and_misshapen_tensors_are_listed_at_once(tmp_path: Path, synthetic: ModuleType):
    tensors = _bare(synthetic)
    del tensors["backbone.layer2.0.bn1.bias"]
    tensors["decoder.in9.weight"] = torch.zeros(1)
    tensors["decoder.binarize.6.bias"] = torch.zeros(2)
    with pytest.raises(CheckpointError) as caught:
        read_weights(_save(tmp_path / "final", tensors))
    message = str(caught.value)
    assert "missing 1 tensor (backbone.layer2.0.bn1.bias)" in message
    assert "without a place 1 tensor (decoder.in9.weight)" in message
    assert "decoder.binarize.6.bias [2] instead of [1]" in message


def test_a_name_that_no_rule_knows_is_an_error(tmp_path: Path, synthetic: ModuleType):
    tensors = {**_bare(synthetic), "neck.extra.weight": torch.zeros(1)}
    with pytest.raises(
        CheckpointError, match=r"1 tensor \(neck.extra.weight\) that the original DB code does not have"
    ):
        read_weights(_save(tmp_path / "final", tensors))


def test_weights_of_something_else_are_named_as_such(tmp_path: Path):
    torch.save({"features.0.weight": torch.zeros(3), "classifier.weight": torch.zeros(3)}, tmp_path / "vgg.pth")
    with pytest.raises(CheckpointError, match=r"not a DB checkpoint that dbcpu knows.*features\.0\.weight"):
        read_weights(tmp_path / "vgg.pth")


def test_weights_that_are_not_finite_are_named(tmp_path: Path, synthetic: ModuleType):
    tensors = _bare(synthetic)
    tensors["decoder.in5.weight"][0] = torch.nan
    tensors["backbone.conv1.weight"][0] = torch.inf
    weights = read_weights(_save(tmp_path / "final", tensors))
    with pytest.raises(CheckpointError, match=r"2 tensors \(backbone.conv1.weight, decoder.in5.weight\)"):
        require_finite(weights)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("backbone.layer1.0.bn1.running_var", lambda tensor: -1 - tensor),
        ("backbone.layer1.0.bn1.running_var", lambda tensor: (-1 - tensor).to(torch.float8_e4m3fn)),
        ("decoder.in5.weight", lambda tensor: tensor.double() * 1e300),
    ],
)
def test_weights_that_compute_nan_are_refused_though_they_are_finite(
    name: str, change: Callable[[torch.Tensor], torch.Tensor], tmp_path: Path, synthetic: ModuleType
):
    tensors = _bare(synthetic)
    tensors[name] = change(tensors[name])
    weights = read_weights(_save(tmp_path / "final", tensors))
    with pytest.raises(CheckpointError, match=rf"negative variance in 1 tensor \({name}\)"):
        require_finite(weights)


def test_a_stride_that_does_not_exist_is_refused(make_checkpoint: MakeCheckpoint):
    with pytest.raises(UsageError, match="offset_stride must be one of auto, original, strided, not 'stride'"):
        read_weights(make_checkpoint(), offset_stride="stride")  # type: ignore[arg-type]


def test_weights_that_are_whole_numbers_are_refused(tmp_path: Path, synthetic: ModuleType):
    tensors = _bare(synthetic)
    tensors["decoder.in5.weight"] = tensors["decoder.in5.weight"].to(torch.int64)
    with pytest.raises(CheckpointError, match=r"decoder.in5.weight int64"):
        read_weights(_save(tmp_path / "final", tensors))


def test_a_stated_configuration_has_to_agree_with_the_weights(tmp_path: Path, make_checkpoint: MakeCheckpoint):
    config = tmp_path / "x.yaml"
    config.write_text("model: {backbone: resnet50}\npostprocess: {score_threshold: 0.5}")
    with pytest.raises(ConfigError, match=r"x\.yaml states backbone: resnet50.*weights of .* have backbone: resnet18"):
        read_weights(make_checkpoint(), config=config)
    config.write_text("model: {backbone: resnet18}\npostprocess: {score_threshold: 0.5}")
    weights = read_weights(make_checkpoint(), config=config)
    assert weights.config.postprocess.score_threshold == 0.5
    assert weights.config.postprocess.binarize_threshold == 0.3


def test_loading_is_strict_and_keeps_every_number(make_checkpoint: MakeCheckpoint):
    weights = read_weights(make_checkpoint())
    network = load_network(weights.tensors, weights.config.model)
    state = network.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in weights.tensors.items())
    assert not network.training


def test_half_precision_weights_compute_in_float32(tmp_path: Path, synthetic: ModuleType):
    tensors = {name: t.half() if t.is_floating_point() else t for name, t in _bare(synthetic).items()}
    weights = read_weights(_save(tmp_path / "final", tensors))
    assert {tensor.dtype for tensor in weights.tensors.values()} == {torch.float16}
    network = load_network(weights.tensors, weights.config.model)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_what_training_saves_here_loads_as_an_old_checkpoint(tmp_path: Path):
    config = ModelConfig(backbone="resnet18", deformable=True, threshold_head=True)
    assert read_weights(_save(tmp_path / "final", build_model(config).state_dict())).config.model == config


def _write(weights_path: Path, target: Path, *, replace: bool = False) -> None:
    weights = read_weights(weights_path)
    native.write_model_file(target, weights.tensors, weights.config, weights.origin, replace=replace)


def test_a_model_file_carries_everything(tmp_path: Path, make_checkpoint: MakeCheckpoint):
    old = make_checkpoint("deformable_resnet18", "legacy")
    _write(old, tmp_path / "m.safetensors")
    before, after = read_weights(old), read_weights(tmp_path / "m.safetensors")
    assert after.converted
    assert after.config == before.config
    assert after.origin == before.origin
    assert after.origin.sha256 == before.raw.sha256
    assert before.tensors.keys() == after.tensors.keys()
    assert all(torch.equal(after.tensors[name], tensor) for name, tensor in before.tensors.items())


def test_tensors_that_share_memory_can_be_written(tmp_path: Path, synthetic: ModuleType):
    tensors = _bare(synthetic)
    flat = torch.zeros(128)
    tensors["decoder.binarize.1.weight"], tensors["decoder.binarize.1.bias"] = flat[:64], flat[32:96]
    _write(_save(tmp_path / "final", tensors), tmp_path / "m.safetensors")
    assert read_weights(tmp_path / "m.safetensors").converted


def test_an_existing_model_file_is_kept_unless_replacing_is_asked_for(tmp_path: Path, make_checkpoint: MakeCheckpoint):
    target = tmp_path / "m.safetensors"
    target.write_bytes(b"precious")
    with pytest.raises(OutputError, match=r"exists already.*--force"):
        _write(make_checkpoint(), target)
    assert target.read_bytes() == b"precious"
    _write(make_checkpoint(), target, replace=True)
    assert read_weights(target).converted


def test_a_model_file_of_a_later_schema_or_with_damaged_metadata_is_refused(
    tmp_path: Path, make_checkpoint: MakeCheckpoint
):
    path = tmp_path / "m.safetensors"
    _write(make_checkpoint(), path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b'\\"schema_version\\": 1', b'\\"schema_version\\": 9'))
    with pytest.raises(CheckpointError, match="schema version 9"):
        read_weights(path)
    path.write_bytes(content.replace(b'\\"backbone\\"', b'\\"backbune\\"'))
    with pytest.raises(CheckpointError, match="unknown key backbune"):
        read_weights(path)


def test_nothing_is_left_behind_when_what_was_read_back_differs(
    tmp_path: Path, make_checkpoint: MakeCheckpoint, monkeypatch: pytest.MonkeyPatch
):
    real = native.save_file

    def corrupting(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        real(tensors, path, metadata)
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)

    monkeypatch.setattr(native, "save_file", corrupting)
    with pytest.raises(OutputError, match="differs"):
        _write(make_checkpoint(), tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_prefixes_of_a_checkpoint_are_reported(make_checkpoint: MakeCheckpoint):
    assert read_checkpoint(make_checkpoint()).prefix == "model.module."
