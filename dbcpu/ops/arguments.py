"""What the arguments of a deformable convolution must satisfy, and the grid they describe."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from dbcpu.geometry import Size
from dbcpu.ops.sampling import SamplingGrid


def sampling_grid(
    images: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> SamplingGrid:
    """Return the grid that the arguments of `dbcpu.ops.deform_conv2d` describe, groups derived from shapes.

    Raises:
        RuntimeError: as torchvision does, if the arguments do not go together; says what was expected and what came.
    """
    _check_tensors(images, {"input": images, "offset": offset, "weight": weight, "bias": bias, "mask": mask})
    for name, values, least in (("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1)):
        _expect(len(values) == 2 and min(values) >= least, f"{name}: two numbers, at least {least}", tuple(values))
    (count, channels, *sides), (out_channels, group_channels, *kernel) = images.shape, weight.shape
    _expect(all(side > 0 for side in images.shape[1:]), "input: channels and pixels", tuple(images.shape))
    _expect(
        min(weight.shape) > 0 and channels % group_channels == 0 and out_channels % (channels // group_channels) == 0,
        f"weight: shape (out channels, in channels / groups, kh, kw) for {channels} in channels",
        tuple(weight.shape),
    )
    taps = kernel[0] * kernel[1]
    offset_groups = max(1, offset.shape[1] // (2 * taps))
    _expect(
        offset.shape[1] == offset_groups * 2 * taps and channels % offset_groups == 0,
        f"offset: 2 * kh * kw = {2 * taps} channels for each group of the input's {channels}",
        tuple(offset.shape),
    )
    out_size = [
        (side + 2 * before - step * (taps - 1) - 1) // by + 1
        for side, taps, by, before, step in zip(sides, kernel, stride, padding, dilation, strict=True)
    ]
    _expect(
        all(side > 0 for side in out_size), "input: sides that hold the dilated kernel once padded", tuple(images.shape)
    )
    _expect_shape("offset", offset, (count, offset_groups * 2 * taps, *out_size))
    _expect_shape("mask", mask, (count, offset_groups * taps, *out_size))
    _expect_shape("bias", bias, (out_channels,))
    return SamplingGrid(
        in_size=Size(*sides),
        out_size=Size(*out_size),
        kernel_size=Size(*kernel),
        stride=(stride[0], stride[1]),
        padding=(padding[0], padding[1]),
        dilation=(dilation[0], dilation[1]),
        offset_groups=offset_groups,
    )


def _check_tensors(images: Tensor, tensors: dict[str, Tensor | None]) -> None:
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        _expect(tensor.ndim == 4 or name == "bias", f"{name}: 4 dimensions", tuple(tensor.shape))
        _expect(tensor.is_floating_point(), f"{name}: a floating point dtype", tensor.dtype)
        if name in ("weight", "bias"):
            _expect(tensor.dtype == images.dtype, f"{name}: the input's dtype, {images.dtype}", tensor.dtype)
        _expect(tensor.device == images.device, f"{name}: the input's device, {images.device}", tensor.device)


def _expect_shape(name: str, tensor: Tensor | None, shape: tuple[int, ...]) -> None:
    if tensor is not None:
        _expect(tuple(tensor.shape) == shape, f"{name}: shape {shape}", tuple(tensor.shape))


def _expect(holds: bool, expected: str, got: object) -> None:
    if not holds:
        raise RuntimeError(f"expected {expected}; got {got}")
