"""The deformable convolution against golden numbers of torchvision, a nested-loop reference, and calculus."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.deform_conv import deform_conv2d as reference_deform_conv2d
from torch import Tensor, nn

import dbcpu.ops.operator
from dbcpu.geometry import Size
from dbcpu.ops import DeformConv2d, deform_conv2d
from dbcpu.ops.sampling import Sampler, SamplingGrid

if TYPE_CHECKING:
    from collections.abc import Iterator

GOLDEN_CASES = json.loads((GOLDEN / "deform_conv2d.json").read_text())
NOWHERE = (math.nan, math.inf, -math.inf, 1e30, -1e30, 3e38)


@dataclass(frozen=True, kw_only=True)
class Case:
    """Tensors and steps of one call, as keyword arguments of `deform_conv2d`."""

    tensors: dict[str, Tensor | None]
    steps: dict[str, tuple[int, int]]

    def __call__(self, **changed: Tensor | None) -> Tensor:
        return deform_conv2d(**{**self.tensors, **changed}, **self.steps)

    def reference(self) -> Tensor:
        arrays = {name: None if t is None else t.detach().double().numpy() for name, t in self.tensors.items()}
        return torch.from_numpy(reference_deform_conv2d(images=arrays.pop("input"), **arrays, **self.steps))

    def to(self, **options: Any) -> Case:
        converted = {name: None if t is None else t.to(**options) for name, t in self.tensors.items()}
        return Case(tensors=converted, steps=self.steps)


def make_case(
    *,
    seed: int = 0,
    images: int = 2,
    size: tuple[int, int] = (6, 7),
    kernel: tuple[int, int] = (3, 3),
    groups: int = 1,
    offset_groups: int = 1,
    channels: int | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    mask: bool = True,
    bias: bool = True,
    reach: float = 2.0,
) -> Case:
    generator = torch.Generator().manual_seed(seed)
    channels = math.lcm(groups, offset_groups) if channels is None else channels
    taps = kernel[0] * kernel[1]
    out = [
        (side + 2 * before - step * (k - 1) - 1) // by + 1
        for side, k, by, before, step in zip(size, kernel, stride, padding, dilation, strict=True)
    ]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tensors = {
        "input": normal(images, channels, *size),
        "offset": normal(images, 2 * offset_groups * taps, *out) * reach,
        "weight": normal(2 * groups, channels // groups, *kernel),
        "bias": normal(2 * groups) if bias else None,
        "mask": normal(images, offset_groups * taps, *out) if mask else None,
    }
    return Case(tensors=tensors, steps={"stride": stride, "padding": padding, "dilation": dilation})


def in_layout(tensor: Tensor, layout: str) -> Tensor:
    """Return the same values in other memory."""
    if layout == "channels_last":
        return tensor.contiguous(memory_format=torch.channels_last)
    if layout == "sliced":
        roomy = torch.full([2 * side + 1 for side in tensor.shape], math.nan, dtype=tensor.dtype)
        view = roomy[tuple(slice(1, None, 2) for _ in tensor.shape)]
        view.copy_(tensor)
        return view
    return tensor


@st.composite
def cases(draw: st.DrawFn) -> Case:
    groups, offset_groups = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 5)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    least = [max(1, d * (k - 1) + 1 - 2 * p) for k, d, p in zip(kernel, dilation, padding, strict=True)]
    case = make_case(
        seed=draw(st.integers(0, 1 << 20)),
        images=draw(st.integers(0, 2)),
        size=(least[0] + draw(st.integers(0, 3)), least[1] + draw(st.integers(0, 3))),
        kernel=kernel,
        groups=groups,
        offset_groups=offset_groups,
        stride=draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        padding=padding,
        dilation=dilation,
        mask=draw(st.booleans()),
        bias=draw(st.booleans()),
        reach=draw(st.sampled_from([0.0, 0.5, 3.0, 30.0])),
    )
    offset = case.tensors["offset"]
    if draw(st.booleans()):
        offset = offset.round()
    for value in draw(st.lists(st.sampled_from(NOWHERE), max_size=3)):
        if offset.numel():
            offset.view(-1)[draw(st.integers(0, offset.numel() - 1))] = value
    laid_out = {
        name: t if t is None or t.ndim < 4 else in_layout(t, draw(st.sampled_from(["", "channels_last", "sliced"])))
        for name, t in (case.tensors | {"offset": offset}).items()
    }
    return Case(tensors=laid_out, steps=case.steps)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dbcpu.ops.operator, "CHUNK_ELEMENTS", 2 * 9 * 7)


def assert_close(actual: Tensor, expected: Tensor, relative: float) -> None:
    """Compare with a tolerance relative to the largest expected value."""
    assert actual.shape == expected.shape
    if expected.numel():
        difference = (actual.detach().double() - expected.double()).abs().max().item()
        assert difference <= relative * max(1.0, expected.abs().max().item())


@pytest.mark.parametrize("golden_case", GOLDEN_CASES, ids=lambda c: c["name"])
def test_outputs_and_gradients_are_torchvisions(golden_case: dict[str, Any]) -> None:
    with np.load(GOLDEN / "deform_conv2d.npz") as file:
        prefix = f"{golden_case['name']}/"
        arrays = {k.removeprefix(prefix): torch.from_numpy(file[k]) for k in file.files if k.startswith(prefix)}
    names = ("input", "offset", "weight", "bias", "mask")
    tensors = {n: arrays[n].requires_grad_() if n in arrays else None for n in names}
    case = Case(tensors=tensors, steps={n: tuple(golden_case[n]) for n in ("stride", "padding", "dilation")})
    output = case()
    assert_close(output, arrays["output"], 1e-9)
    output.backward(arrays["grad_output"])
    for name, tensor in tensors.items():
        if tensor is not None and (name != "offset" or golden_case["gradients_defined"]):
            assert tensor.grad is not None
            assert_close(tensor.grad, arrays[f"grad_{name}"], 1e-9)


@given(case=cases(), elements=st.sampled_from([1, 100, 1 << 15]))
@settings(max_examples=120, deadline=None)
def test_any_call_gives_what_nested_loops_give(case: Case, elements: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dbcpu.ops.operator, "CHUNK_ELEMENTS", elements)
        assert_close(case(), case.reference(), 1e-12)


@given(case=cases(), elements=st.sampled_from([1, 100, 1 << 15]))
@settings(max_examples=40, deadline=None)
def test_gradients_are_finite_whatever_the_offsets_are(case: Case, elements: int) -> None:
    leaves = {n: None if t is None else t.detach().requires_grad_() for n, t in case.tensors.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dbcpu.ops.operator, "CHUNK_ELEMENTS", elements)
        case(**leaves).sum().backward()
    for name, leaf in leaves.items():
        if leaf is not None:
            assert leaf.grad is not None
            assert leaf.grad.shape == leaf.shape
            assert leaf.grad.isfinite().all(), name
    nowhere = ~leaves["offset"].detach().abs().lt(1e29)
    assert (leaves["offset"].grad[nowhere] == 0).all()


@given(
    values=st.lists(st.floats(width=32) | st.sampled_from(NOWHERE), min_size=18, max_size=18),
    height=st.integers(1, 3),
    width=st.integers(1, 3),
)
def test_no_offset_leads_outside_the_input(values: list[float], height: int, width: int) -> None:
    grid = SamplingGrid(
        in_size=Size(height, width),
        out_size=Size(1, 1),
        kernel_size=Size(3, 3),
        stride=(1, 1),
        padding=(1, 1),
        dilation=(1, 1),
        offset_groups=1,
    )
    sampler = Sampler(grid, torch.device("cpu"))
    hats = sampler.split(torch.tensor(values).view(1, 18, 1, 1), slice(0, 1))
    indices = sampler.indices(hats)
    assert indices.min() >= 0
    assert indices.max() < height * width
    assert all(((weight >= 0) & (weight <= 1)).all() for weight in (hats.lower, hats.upper))


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mask": False, "bias": False, "images": 1},
        {"groups": 2, "offset_groups": 3, "channels": 6, "kernel": (1, 2), "padding": (0, 0)},
        {"stride": (2, 1), "dilation": (1, 2), "padding": (2, 0), "kernel": (2, 2)},
        {"size": (1, 3), "images": 1},
    ],
    ids=str,
)
def test_gradients_are_those_of_finite_differences(options: dict[str, Any]) -> None:
    case = make_case(reach=0.0, **{"size": (4, 3)} | options)
    # Away from whole numbers, where the derivative jumps.
    fractions = torch.empty_like(case.tensors["offset"]).uniform_(0.1, 0.9, generator=torch.Generator().manual_seed(1))
    steps = torch.randint(-3, 3, fractions.shape, generator=torch.Generator().manual_seed(2))
    given_tensors = {n: t for n, t in (case.tensors | {"offset": fractions + steps}).items() if t is not None}
    leaves = [t.requires_grad_() for t in given_tensors.values()]
    assert torch.autograd.gradcheck(
        lambda *ts: case(**dict(zip(given_tensors, ts, strict=True))), leaves, fast_mode=True
    )


def test_offsets_of_zero_have_the_derivative_on_their_right() -> None:
    # One row 0, 1, 4, 9: a network that starts from zero offsets must feel which way to go.
    offset = torch.zeros(1, 2, 1, 4, requires_grad=True)
    deform_conv2d(torch.tensor([[[[0.0, 1.0, 4.0, 9.0]]]]), offset, torch.ones(1, 1, 1, 1)).sum().backward()
    assert offset.grad is not None
    assert offset.grad[0, 1, 0].tolist() == [1.0, 3.0, 5.0, -9.0]


def test_a_second_derivative_is_refused() -> None:
    case = make_case()
    leaves = [case.tensors[n].requires_grad_() for n in ("input", "weight")]
    (gradient,) = torch.autograd.grad(case().square().sum(), leaves[0], create_graph=True)
    with pytest.raises(RuntimeError, match="deform_conv2d has no second derivatives"):
        torch.autograd.grad(gradient.sum(), leaves[1])


def test_offsets_of_zero_make_an_ordinary_convolution() -> None:
    case = make_case(reach=0.0, mask=False, groups=2, channels=4, stride=(2, 1), dilation=(1, 2))
    dense = {k: case.tensors[k] for k in ("input", "weight", "bias")}
    assert_close(case(), F.conv2d(**dense, **case.steps, groups=2), 1e-12)


@pytest.mark.parametrize(("dtype", "relative"), [(torch.float32, 1e-6), (torch.bfloat16, 0.02), (torch.float16, 2e-3)])
def test_each_dtype_agrees_with_float64_and_is_kept(dtype: torch.dtype, relative: float) -> None:
    case = make_case(channels=8, size=(9, 8)).to(dtype=dtype)
    leaves = {n: t.requires_grad_() for n, t in case.tensors.items() if t is not None}
    output = case(**leaves)
    assert output.dtype == dtype
    assert_close(output, case.reference(), relative)
    output.sum().backward()
    assert all(leaf.grad is not None and leaf.grad.dtype == dtype for leaf in leaves.values())


def test_offsets_are_not_rounded_to_the_inputs_dtype() -> None:
    # Every second pixel is 1: bfloat16 would turn 200.25 into 200 and lose the fraction.
    row = torch.arange(256).remainder(2).view(1, 1, 1, 256).bfloat16()
    offset = torch.zeros(1, 2, 1, 256)
    offset[0, 1, 0, 0] = 200.25
    output = deform_conv2d(row, offset, torch.ones(1, 1, 1, 1, dtype=torch.bfloat16))
    assert output[0, 0, 0, 0].item() == 0.25


def test_the_output_is_channels_last_if_the_input_is() -> None:
    case = make_case(channels=4)
    assert case().is_contiguous()
    channels_last = in_layout(case.tensors["input"], "channels_last")
    assert case(input=channels_last).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(case(input=channels_last), case())


def test_autocast_multiplies_in_its_dtype_and_leaves_float64_alone() -> None:
    double = make_case(channels=8)
    single = double.to(dtype=torch.float32)
    leaf = single.tensors["input"].requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        output = single()
        assert output.dtype == torch.bfloat16
        assert double().dtype == torch.float64
    assert_close(output, double(), 0.03)
    output.float().sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.dtype == torch.float32


def test_shapes_are_known_without_values() -> None:
    case = make_case(stride=(2, 1), images=3)
    assert case.to(device="meta")().shape == case().shape


def test_inference_mode_gives_what_training_gives() -> None:
    case = make_case(channels=4)
    with torch.inference_mode():
        inferred = case()
    assert torch.equal(inferred, case(input=case.tensors["input"].clone().requires_grad_()).detach())


def test_the_operator_keeps_torchs_rules_for_custom_operators() -> None:
    case = make_case(channels=4, size=(4, 4))
    tensors = [case.tensors[n].requires_grad_() for n in ("input", "offset", "weight", "bias", "mask")]
    for last in (tensors[-1], None):
        torch.library.opcheck(torch.ops.dbcpu.deform_conv2d.default, (*tensors[:-1], last, *case.steps.values()))


class Deformable(nn.Module):
    """An offset convolution and the layer it drives, as in the networks."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Conv2d(4, 27, 3, padding=1)
        self.layer = DeformConv2d(4, 6, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        offset, mask = self.offset(images).split([18, 9], dim=1)
        return self.layer(images, offset, mask.sigmoid())


def test_it_compiles_without_a_graph_break_and_for_any_size() -> None:
    model = Deformable()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    for size in ((8, 9), (11, 6)):
        images = torch.randn(2, 4, *size).contiguous(memory_format=torch.channels_last)
        gradients = []
        for function in (model, compiled):
            model.zero_grad()
            function(images).square().sum().backward()
            gradients.append(model.offset.weight.grad)
        assert_close(compiled(images), model(images), 1e-6)
        assert_close(gradients[1], gradients[0], 1e-5)


def test_it_exports_with_dynamic_height_and_width() -> None:
    model = Deformable().eval()
    sides = {2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    program = torch.export.export(model, (torch.randn(1, 4, 8, 9),), dynamic_shapes={"images": sides})
    other = torch.randn(1, 4, 13, 5)
    assert_close(program.module()(other), model(other), 1e-6)


def test_extra_memory_does_not_grow_with_the_picture() -> None:
    def extra_memory(side: int) -> int:
        layout = {"memory_format": torch.channels_last}
        images, weight = torch.randn(1, 32, side, side).to(**layout), torch.randn(1, 32, 3, 3).to(**layout)
        offset, mask = torch.randn(1, 18, side, side).to(**layout), torch.randn(1, 9, side, side)
        with torch.inference_mode(), torch.profiler.profile(profile_memory=True) as profile:
            output = deform_conv2d(images, offset, weight, padding=1, mask=mask)
        events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
        changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
        return max(itertools.accumulate(changes)) - output.nbytes

    samples_of_a_chunk = (1 << 15) // 2 * 32 * 4
    assert samples_of_a_chunk < extra_memory(64) == extra_memory(256) < 3 * samples_of_a_chunk


def arguments(**changed: object) -> dict[str, object]:
    tensors = {
        "input": torch.zeros(2, 4, 5, 6),
        "offset": torch.zeros(2, 36, 5, 6),
        "weight": torch.zeros(6, 2, 3, 3),
        "bias": torch.zeros(6),
        "mask": torch.zeros(2, 18, 5, 6),
    }
    return {**tensors, "padding": 1, **changed}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"input": torch.zeros(4, 5, 6)}, "expected input: 4 dimensions; got (4, 5, 6)"),
        ({"offset": torch.zeros(36, 5, 6)}, "expected offset: 4 dimensions; got (36, 5, 6)"),
        ({"mask": torch.zeros(1)}, "expected mask: 4 dimensions; got (1,)"),
        ({"input": torch.zeros(2, 4, 0, 6)}, "expected input: channels and pixels; got (2, 4, 0, 6)"),
        (
            {"input": torch.zeros(2, 4, 5, 6, dtype=torch.int32)},
            "expected input: a floating point dtype; got torch.int32",
        ),
        (
            {"weight": torch.zeros(6, 2, 3, 3).double()},
            "expected weight: the input's dtype, torch.float32; got torch.float64",
        ),
        ({"bias": torch.zeros(6).half()}, "expected bias: the input's dtype, torch.float32; got torch.float16"),
        ({"mask": torch.zeros(2, 18, 5, 6, device="meta")}, "expected mask: the input's device, cpu; got meta"),
        ({"weight": torch.zeros(6, 3, 3, 3)}, "for 4 in channels; got (6, 3, 3, 3)"),
        ({"weight": torch.zeros(5, 2, 3, 3)}, "for 4 in channels; got (5, 2, 3, 3)"),
        ({"weight": torch.zeros(6, 2, 0, 3)}, "for 4 in channels; got (6, 2, 0, 3)"),
        ({"offset": torch.zeros(2, 37, 5, 6)}, "expected offset: 2 * kh * kw = 18 channels for each group"),
        ({"offset": torch.zeros(2, 6, 5, 6)}, "expected offset: 2 * kh * kw = 18 channels for each group"),
        ({"offset": torch.zeros(2, 54, 5, 6)}, "of the input's 4; got (2, 54, 5, 6)"),
        ({"offset": torch.zeros(2, 36, 5, 5)}, "expected offset: shape (2, 36, 5, 6); got (2, 36, 5, 5)"),
        ({"offset": torch.zeros(1, 36, 5, 6)}, "expected offset: shape (2, 36, 5, 6); got (1, 36, 5, 6)"),
        ({"mask": torch.zeros(2, 9, 5, 6)}, "expected mask: shape (2, 18, 5, 6); got (2, 9, 5, 6)"),
        ({"bias": torch.zeros(5)}, "expected bias: shape (6,); got (5,)"),
        ({"stride": 0}, "expected stride: two numbers, at least 1; got (0, 0)"),
        ({"padding": (0, -1)}, "expected padding: two numbers, at least 0; got (0, -1)"),
        ({"dilation": (1, 0)}, "expected dilation: two numbers, at least 1; got (1, 0)"),
        ({"dilation": 4}, "expected input: sides that hold the dilated kernel once padded; got (2, 4, 5, 6)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_arguments_say_what_was_expected_and_what_came(changed: dict[str, object], message: str) -> None:
    deform_conv2d(**arguments())
    with pytest.raises(RuntimeError) as caught:
        deform_conv2d(**arguments(**changed))
    assert message in str(caught.value)


def test_the_layer_is_the_function_with_its_parameters() -> None:
    layer = DeformConv2d(4, 6, (3, 1), stride=2, padding=(1, 0), dilation=2, groups=2)
    case = make_case(
        kernel=(3, 1), stride=(2, 2), padding=(1, 0), dilation=(2, 2), groups=2, channels=4
    ).to(dtype=torch.float32)  # fmt: skip
    tensors = case.tensors
    expected = case(weight=torch.zeros(6, 2, 3, 1) + layer.weight, bias=layer.bias)
    assert torch.equal(layer(tensors["input"], tensors["offset"], tensors["mask"]), expected)
    assert {name: tuple(t.shape) for name, t in layer.state_dict().items()} == {"weight": (6, 2, 3, 1), "bias": (6,)}


def test_the_layer_starts_like_an_ordinary_convolution() -> None:
    torch.manual_seed(3)
    layer = DeformConv2d(4, 6, 3)
    torch.manual_seed(3)
    dense = nn.Conv2d(4, 6, 3)
    assert torch.equal(layer.weight, dense.weight)
    assert layer.bias is not None
    assert torch.equal(layer.bias, dense.bias)


def test_the_layer_prints_its_arguments() -> None:
    plain = "DeformConv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))"
    full = (
        "DeformConv2d(4, 8, kernel_size=(3, 5), stride=(2, 2), padding=(1, 1), dilation=(2, 2), groups=2, bias=False)"
    )
    assert repr(DeformConv2d(3, 8, 3)) == plain
    assert repr(DeformConv2d(4, 8, (3, 5), 2, 1, 2, 2, bias=False)) == full


@pytest.mark.parametrize(("channels", "name"), [((3, 4), "in_channels"), ((4, 3), "out_channels")])
def test_the_layer_refuses_channels_that_groups_do_not_divide(channels: tuple[int, int], name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be divisible by groups, got 3 and 2"):
        DeformConv2d(*channels, 3, groups=2)


@pytest.fixture(scope="module")
def torchvision_ops() -> Iterator[Any]:
    try:
        import torchvision.ops
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision cannot be imported here: {error}")
    return torchvision.ops


@given(seed=st.integers(0, 1000), groups=st.integers(1, 2), offset_groups=st.integers(1, 3), mask=st.booleans())
@settings(max_examples=20, deadline=None)
def test_torchvision_gives_the_same(
    torchvision_ops: Any, seed: int, groups: int, offset_groups: int, mask: bool
) -> None:
    case = make_case(seed=seed, groups=groups, offset_groups=offset_groups, mask=mask)
    gradients = []
    for function in (deform_conv2d, torchvision_ops.deform_conv2d):
        leaves = {n: None if t is None else t.clone().requires_grad_() for n, t in case.tensors.items()}
        function(**leaves, **case.steps).square().sum().backward()
        gradients.append([leaf.grad for leaf in leaves.values() if leaf is not None])
    for ours, theirs in zip(*gradients, strict=True):
        assert_close(ours, theirs, 1e-9)
