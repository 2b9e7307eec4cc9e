from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dbcpu.config import ModelConfig
from dbcpu.engine.compiling import compile_network
from dbcpu.engine.offsets import drop_unread_planes
from dbcpu.engine.precision import choose_dtype, gains_by_bf16
from dbcpu.engine.prepare import prepare
from dbcpu.engine.threads import available_cpus
from dbcpu.engine.upsampled import UpsampledConv3x3
from dbcpu.errors import UsageError
from dbcpu.model.network import Network, build_model

CONFIGS = {
    "deformable": ModelConfig(backbone="resnet18", deformable=True),
    "deep": ModelConfig(backbone="resnet50", deformable=True),
    "strided": ModelConfig(backbone="resnet50", deformable=True, offset_stride="strided", inner_channels=64),
    "unmodulated": ModelConfig(backbone="resnet18", deformable=True, modulated=False, neck="smoothed", head_bias=True),
    "attention": ModelConfig(backbone="resnet18", attention="scale_channel_spatial"),
    "channel attention": ModelConfig(backbone="resnet18", attention="scale_channel"),
    "biases": ModelConfig(backbone="resnet18", decoder_bias=True, head_bias=True),
    "head bias": ModelConfig(backbone="resnet18", head_bias=True),
    "mobile": ModelConfig(backbone="mobilenet_v3_large"),
}


def _trained_looking(config: ModelConfig) -> Network:
    """A network whose batch norms and offsets are not at their initial values."""
    torch.manual_seed(0)
    network = build_model(config).eval().requires_grad_(False)
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.uniform_(0.7, 1.3)
            module.bias.normal_(0, 0.1)
        if name.endswith("conv2_offset"):
            module.weight.normal_(0, 0.02)
            module.bias.normal_(0, 1)
    return network


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_fast_form_computes_the_same_map(name: str, fuse: bool):
    network = _trained_looking(CONFIGS[name])
    fast = prepare(copy.deepcopy(network), fuse=fuse)
    x = torch.randn(2, 3, 96, 64)
    with torch.inference_mode():
        expected = network(x)
        found = fast(x.to(memory_format=torch.channels_last))
    assert found.shape == expected.shape
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_no_batch_norm_is_left_after_a_convolution():
    fast = prepare(_trained_looking(CONFIGS["deformable"]))
    assert not [m for m in fast.modules() if isinstance(m, nn.BatchNorm2d)]


@settings(deadline=None, max_examples=30)
@given(
    factor=st.sampled_from([2, 3, 4, 8]),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    channels=st.integers(1, 4),
    outputs=st.integers(1, 4),
    batch=st.integers(1, 2),
)
def test_a_convolution_of_an_upsampled_map_equals_the_plain_one(
    factor: int, height: int, width: int, channels: int, outputs: int, batch: int
):
    generator = torch.Generator().manual_seed(factor * 1000 + height * 100 + width * 10 + channels)
    weight = torch.randn(outputs, channels, 3, 3, dtype=torch.float64, generator=generator)
    x = torch.randn(batch, channels, height, width, dtype=torch.float64, generator=generator)
    upsampled = F.interpolate(x, scale_factor=float(factor), mode="nearest")
    expected = F.conv2d(upsampled, weight, padding=1) + 1
    out = torch.ones_like(expected).contiguous(memory_format=torch.channels_last)
    UpsampledConv3x3(weight, factor, torch.float64).add_to(out, x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(out, expected)


def test_bf16_keeps_the_coordinates_of_deformable_convolutions_in_float32():
    network = _trained_looking(CONFIGS["deformable"])
    dtypes = {
        name: p.dtype for name, p in prepare(copy.deepcopy(network), torch.bfloat16, fuse=False).named_parameters()
    }
    assert {dtype for name, dtype in dtypes.items() if "conv2_offset" in name} == {torch.float32}
    assert {dtype for name, dtype in dtypes.items() if "conv2_offset" not in name} == {torch.bfloat16}
    fast = prepare(copy.deepcopy(network), torch.bfloat16)
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        difference = fast(x.to(torch.bfloat16, memory_format=torch.channels_last)) - network(x)
    assert difference.dtype == torch.float32
    assert difference.abs().max() < 0.05


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"cpu_name": "Intel Xeon Platinum 8488C", "avx512_bf16": True, "amx_tile": True}, torch.bfloat16),
        ({"cpu_name": "Intel Xeon Platinum 8488C", "avx512_bf16": True, "amx_tile": False}, torch.float32),
        ({"cpu_name": "AMD EPYC 9654", "avx512_bf16": True, "amx_tile": False}, torch.bfloat16),
        ({"cpu_name": "AMD EPYC 7763", "avx512_bf16": False, "amx_tile": False}, torch.float32),
        ({"neon": True, "bf16": True}, torch.float32),
    ],
)
def test_auto_is_bf16_on_processors_that_are_known_to_gain_by_it(
    capabilities: dict[str, object], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert choose_dtype("auto") == expected


def test_precision_is_chosen_by_name_and_auto_by_the_processor():
    assert choose_dtype("fp32") == torch.float32
    assert choose_dtype("bf16") == torch.bfloat16
    assert choose_dtype("auto") == (torch.bfloat16 if gains_by_bf16() else torch.float32)
    with pytest.raises(UsageError, match="fp16"):
        choose_dtype("fp16")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/app\n", {"app/cpu.max": "50000 100000"}, 1),
        ("0::/app/inner\n", {"app/cpu.max": "150000 100000", "app/inner/cpu.max": "max 100000"}, 2),
        ("0::/app\n", {"app/cpu.max": "max 100000"}, None),
        ("3:cpu,cpuacct:/app\n", {"cpu/app/cpu.cfs_quota_us": "100000", "cpu/app/cpu.cfs_period_us": "100000"}, 1),
        ("3:cpu,cpuacct:/host/path\n", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ("3:cpu,cpuacct:/app\n", {"cpu/app/cpu.cfs_quota_us": "-1", "cpu/app/cpu.cfs_period_us": "100000"}, None),
        ("", {}, None),
    ],
)
def test_the_quota_of_the_container_bounds_the_threads(
    tmp_path: Path, membership: str, files: dict[str, str], expected: int | None, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "membership").write_text(membership)
    for name, content in files.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    found = available_cpus(membership=tmp_path / "membership", root=tmp_path / "root")
    assert found == (8 if expected is None else expected)


def test_affinity_bounds_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert available_cpus(membership=tmp_path / "none") == 3


@pytest.mark.parametrize("modulated", [True, False])
def test_offset_convolutions_lose_only_the_planes_that_are_never_read(modulated: bool):
    config = ModelConfig(backbone="resnet50", deformable=True, modulated=modulated)
    network = _trained_looking(config)
    x = torch.randn(1, 3, 64, 96)
    expected = network(x)
    drop_unread_planes(network)
    planes = {block.conv2_offset.out_channels for block in network.backbone.layer3[:2]}
    assert planes == ({8, 27} if modulated else {5, 18})
    torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-6)


def test_where_nothing_can_be_compiled_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    monkeypatch.setattr("torch._inductor.config.force_disable_caches", True)
    with pytest.raises(UsageError, match=r"--compile: .*install a C\+\+ compiler"):
        compile_network(nn.Identity())
