"""The operator `torch.ops.dbcpu.deform_conv2d`: eager mode, `torch.compile` and `torch.export` share this definition.

Chunk by chunk of output pixels, the taps are sampled into the rows of a matrix, one row per pixel, and the matrix is
multiplied with the kernel. Nothing that grows with the picture is kept but the output.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dbcpu.ops.arguments import sampling_grid
from dbcpu.ops.sampling import Hats, Sampler, SamplingGrid, corner_products, corner_weights, sample_rows, scatter_rows_

# torch shares element-wise operations on more elements than this among threads. For the thirty of a chunk that gains
# little where the cores are idle, and loses much where they are not, each waiting for the slower thread.
CHUNK_ELEMENTS = 1 << 15
# The matrix should stay near the caches; in smaller chunks the calls cost more than the work.
CHUNK_BYTES = 16 << 20
# On an accelerator calls are dear and memory is not.
ACCELERATOR_CHUNK_BYTES = 256 << 20

# glibc hands large freed blocks back to the system, and the next chunk takes its pages again, zeroed, one fault each: a
# third of the operator's time. It learns to keep blocks as large as the largest one freed so far; this one, never
# touched, teaches it.
torch.empty(31 << 20, dtype=torch.uint8, device="cpu")

Pair = Sequence[int]


class Chunk(NamedTuple):
    """Some output pixels of some images, and how to sample their taps.

    Attributes:
        images: numbers of the images.
        pixels: numbers of the output pixels, row-major.
        rows: the images' input, one row per pixel and offset group.
        hats: of the deformed positions.
        mask: modulation, in sample order.
        indices: for `sample_rows`.
        weights: for `sample_rows`.
    """

    images: slice
    pixels: slice
    rows: Tensor
    hats: Hats
    mask: Tensor | None
    indices: Tensor
    weights: Tensor


def _forward(
    images: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> Tensor:
    grid = sampling_grid(images, offset, weight, bias, mask, stride, padding, dilation)
    kernels = _kernels(weight, images.shape[1])
    biases = [None] * len(kernels) if bias is None else list(bias.view(len(kernels), -1))
    output = _empty_output(images, weight, grid)
    for chunk in _chunks(Sampler(grid, images.device), images, offset, mask):
        target = _pixels(output, chunk, len(kernels))
        for group, columns in enumerate(_columns(chunk, grid, len(kernels))):
            product = _product(columns, kernels[group], biases[group])
            target[group].copy_(product.view(target[group].shape))
        del columns, product  # before those of the next chunk are made
    return output


def _product(columns: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """Return `columns @ kernel.T + bias`, (pixels, out channels).

    A 1x1 convolution is the same product. On a CPU oneDNN computes it, measured at 1.1 to 1.45 times the speed of the
    BLAS that torch brings (AMD Zen 4, the shapes of ResNet-18).
    """
    if columns.device.type != "cpu" or columns.dtype not in (torch.float32, torch.bfloat16):
        return F.linear(columns, kernel, bias)
    picture = columns[None, :, None].permute(0, 3, 1, 2)  # (1, taps * channels, pixels, 1), channels-last
    return F.conv2d(picture, kernel[:, :, None, None], bias)[0, :, :, 0].t()


def _fake_forward(
    images: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> Tensor:
    grid = sampling_grid(images, offset, weight, bias, mask, stride, padding, dilation)
    return _empty_output(images, weight, grid)


def _backward(
    grad: Tensor,
    images: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of input, offset, weight and mask. Sampling again costs less than keeping the samples."""
    grid = sampling_grid(images, offset, weight, None, mask, stride, padding, dilation)
    sampler = Sampler(grid, images.device)
    kernels = _kernels(weight, images.shape[1])
    grad_kernels = torch.zeros_like(kernels, dtype=torch.promote_types(kernels.dtype, torch.float32))
    grad_images, grad_offset, _, grad_mask = _empty_gradients(images, offset, weight, mask)
    grad_images.zero_()
    for chunk in _chunks(sampler, images, offset, mask):
        columns = _columns(chunk, grid, len(kernels))
        grad_columns = torch.empty_like(columns)
        for group, grad_pixels in enumerate(_pixels(grad, chunk, len(kernels)).flatten(1, 2)):
            torch.mm(grad_pixels, kernels[group], out=grad_columns[group])
            grad_kernels[group] += grad_pixels.t() @ columns[group]
        grad_samples = _samples(grad_columns, grid)
        products = corner_products(grad_samples, chunk.rows, chunk.indices)
        of_offset, of_mask = sampler.gradients(products, chunk.hats, chunk.mask)
        grid.unfold_offset(grad_offset[chunk.images], chunk.pixels).copy_(of_offset)
        if mask is not None:
            grid.unfold_mask(grad_mask[chunk.images], chunk.pixels).copy_(of_mask)
        grad_rows = _rows(grad_images[chunk.images], grid.offset_groups)
        scatter_rows_(grad_rows, grad_samples, chunk.indices, chunk.weights)
    by_tap = torch.unflatten(grad_kernels, 2, (*grid.kernel_size, -1))
    grad_weight = by_tap.permute(0, 1, 4, 2, 3).flatten(0, 1).to(weight.dtype)
    return grad_images, grad_offset, grad_weight, grad_mask


def _fake_backward(
    grad: Tensor,  # noqa: ARG001
    images: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    stride: Pair,  # noqa: ARG001
    padding: Pair,  # noqa: ARG001
    dilation: Pair,  # noqa: ARG001
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _empty_gradients(images, offset, weight, mask)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    images, offset, weight, _, mask, *ctx.steps = inputs
    ctx.save_for_backward(images, offset, weight, mask)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    images, offset, weight, mask = ctx.saved_tensors
    gradients = torch.ops.dbcpu.deform_conv2d_backward(grad, images, offset, weight, mask, *ctx.steps)
    of_images, of_offset, of_weight, of_mask = gradients
    of_bias = grad.sum((0, 2, 3)) if ctx.needs_input_grad[3] else None
    return of_images, of_offset, of_weight, of_bias, None if mask is None else of_mask, None, None, None


def _refuse(ctx: Any, *grads: Tensor) -> None:  # noqa: ARG001
    raise RuntimeError("deform_conv2d has no second derivatives")


def _chunks(sampler: Sampler, images: Tensor, offset: Tensor, mask: Tensor | None) -> Iterator[Chunk]:
    """Yield parts of the batch: several images where they are small, part of one where it is large."""
    grid = sampler.grid
    pixel_bytes = grid.taps * images.shape[1] * images.element_size()
    if images.device.type == "cpu":
        limit = min(CHUNK_ELEMENTS // (2 * grid.taps * grid.offset_groups), CHUNK_BYTES // pixel_bytes)
    else:
        limit = ACCELERATOR_CHUNK_BYTES // pixel_bytes
    for some in _spans(images.shape[0], max(1, limit // grid.pixels)):
        rows = _rows(images[some], grid.offset_groups)
        for pixels in _spans(grid.pixels, max(1, limit)):
            hats = sampler.split(offset[some], pixels)
            modulation = None if mask is None else grid.unfold_mask(mask[some], pixels)
            weights = corner_weights(hats, modulation, rows.dtype)
            yield Chunk(some, pixels, rows, hats, modulation, sampler.indices(hats), weights)


def _spans(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _rows(images: Tensor, offset_groups: int) -> Tensor:
    """Return (images * H * W * offset groups, channels of a group); a view if the images are channels-last."""
    channels_last = images.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    return channels_last.reshape(-1, images.shape[1] // offset_groups)


def _pixels(planes: Tensor, chunk: Chunk, groups: int) -> Tensor:
    """Return the chunk's pixels of (N, channels, Ho, Wo) as (groups, images, pixels, channels of a group), a view."""
    pixels = planes[chunk.images].flatten(2)[..., chunk.pixels]
    return torch.unflatten(pixels, 1, (groups, -1)).permute(1, 0, 3, 2)


def _columns(chunk: Chunk, grid: SamplingGrid, groups: int) -> Tensor:
    """Return the chunk's samples as (groups, images * pixels, taps * channels of a group)."""
    samples = sample_rows(chunk.rows, chunk.indices, chunk.weights)
    channels = samples.shape[1] * grid.offset_groups
    return samples.view(-1, grid.taps, groups, channels // groups).permute(2, 0, 1, 3).flatten(2)


def _samples(columns: Tensor, grid: SamplingGrid) -> Tensor:
    """Return columns to the shape that `sample_rows` gave."""
    by_tap = torch.unflatten(columns, 2, (grid.taps, -1)).permute(1, 2, 0, 3)
    return by_tap.reshape(len(by_tap) * grid.taps * grid.offset_groups, -1)


def _kernels(weight: Tensor, channels: int) -> Tensor:
    """Return (groups, out channels of a group, taps * channels of a group); a view if the weight is channels-last."""
    groups = channels // weight.shape[1]
    return torch.unflatten(weight, 0, (groups, -1)).permute(0, 1, 3, 4, 2).flatten(2)


def _empty_output(images: Tensor, weight: Tensor, grid: SamplingGrid) -> Tensor:
    channels_last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    shape = (images.shape[0], weight.shape[0], *grid.out_size)
    return torch.empty(shape, dtype=images.dtype, device=images.device, memory_format=layout)


def _empty_gradients(
    images: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return channels-last tensors; one without elements where there is no mask, as an operator cannot return None."""
    given = (images, offset, weight, offset.new_empty(0, 0, 0, 0) if mask is None else mask)
    first, second, third, fourth = (torch.empty_like(t, memory_format=torch.channels_last) for t in given)
    return first, second, third, fourth


_STEPS = "SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation"
torch.library.define(
    "dbcpu::deform_conv2d",
    f"(Tensor input, Tensor offset, Tensor weight, Tensor? bias, Tensor? mask, {_STEPS}) -> Tensor",
)
torch.library.define(
    "dbcpu::deform_conv2d_backward",
    f"(Tensor grad, Tensor input, Tensor offset, Tensor weight, Tensor? mask, {_STEPS})"
    " -> (Tensor, Tensor, Tensor, Tensor)",
)
torch.library.impl("dbcpu::deform_conv2d", "default", _forward)
torch.library.impl("dbcpu::deform_conv2d_backward", "default", _backward)
torch.library.register_fake("dbcpu::deform_conv2d", _fake_forward)
torch.library.register_fake("dbcpu::deform_conv2d_backward", _fake_backward)
torch.library.register_autograd("dbcpu::deform_conv2d", _differentiate, setup_context=_save)
torch.library.register_autograd("dbcpu::deform_conv2d_backward", _refuse)
