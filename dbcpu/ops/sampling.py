"""Bilinear sampling of channels-last rows at deformed kernel positions, and its gradients.

A sample at coordinate `t` of an axis weighs line `r` of the plane by the hat `max(0, 1 - |t - r|)`. Two neighbouring
lines inside the plane carry all of it: a line outside would have contributed zero, and the hats of the lines inside
vanish one pixel away from them. So the rule of the border, samples in (-1, H) x (-1, W) and zeros around the plane,
needs no case of its own, and every index is inside whatever the offsets are.

Samples are numbered in the order (images, output pixels, tap rows, tap columns, offset groups): "sample order" below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dbcpu.geometry import Size


@dataclass(frozen=True, kw_only=True)
class SamplingGrid:
    """Where the taps of a kernel lie before they are deformed.

    Attributes:
        in_size: plane that is sampled.
        out_size: plane of kernel positions, the output pixels; numbered row-major.
        kernel_size: taps per axis.
        stride: input pixels between output pixels, (vertical, horizontal), like the next two.
        padding: virtual pixels before the plane.
        dilation: input pixels between taps.
        offset_groups: groups of channels that share their offsets.
    """

    in_size: Size
    out_size: Size
    kernel_size: Size
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    offset_groups: int

    @property
    def pixels(self) -> int:
        """Number of output pixels."""
        return self.out_size.height * self.out_size.width

    @property
    def taps(self) -> int:
        """Number of taps of the kernel."""
        return self.kernel_size.height * self.kernel_size.width

    def unfold_offset(self, offset: Tensor, pixels: slice) -> Tensor:
        """Return a view of some output pixels' offsets, (2, sample order), of (images, groups * taps * 2, Ho, Wo)."""
        by_tap = torch.unflatten(offset.flatten(2), 1, (self.offset_groups, *self.kernel_size, 2))
        return by_tap[..., pixels].permute(4, 0, 5, 2, 3, 1)

    def unfold_mask(self, mask: Tensor, pixels: slice) -> Tensor:
        """Return a view of some output pixels' modulation, (sample order), of (images, groups * taps, Ho, Wo)."""
        by_tap = torch.unflatten(mask.flatten(2), 1, (self.offset_groups, *self.kernel_size))
        return by_tap[..., pixels].permute(0, 4, 2, 3, 1)


class Hats(NamedTuple):
    """Deformed positions, split on each axis into the two neighbouring lines that carry the sample.

    All have the shape (2, sample order): y first, x second.

    Attributes:
        cell: lower neighbour, a whole number inside the plane.
        distance: position minus `cell`; outside [0, 1) only at the edges of the plane and beyond.
        lower: weight of the lower neighbour.
        upper: weight of the next line, zero where there is none.
    """

    cell: Tensor
    distance: Tensor
    lower: Tensor
    upper: Tensor


class Sampler:
    """Turns offsets into row numbers and weights, chunk by chunk; made once per call.

    Args:
        grid: the undeformed positions.
        device: where the offsets are.
    """

    def __init__(self, grid: SamplingGrid, device: torch.device) -> None:
        self.grid = grid
        row, column = (
            torch.arange(taps, device=device, dtype=torch.float32).mul_(step).sub_(before)
            for taps, step, before in zip(grid.kernel_size, grid.dilation, grid.padding, strict=True)
        )
        self._taps = row.repeat_interleave(len(column)), column.repeat(len(row))

    def split(self, offset: Tensor, pixels: slice) -> Hats:
        """Deform the positions of some output pixels' taps, and split them.

        Args:
            offset: shape (images, groups * taps * 2, Ho, Wo), dy before dx, in input pixels; NaN counts as far outside.
            pixels: numbers of the output pixels.

        Returns:
            Hats of float32, or of float64 if the offsets are.
        """
        grid = self.grid
        unfolded = grid.unfold_offset(offset, pixels)
        number = torch.arange(pixels.start, pixels.stop, device=offset.device)
        row, column = number.div(grid.out_size.width, rounding_mode="floor"), number.remainder(grid.out_size.width)
        # Into a new tensor: a plain sum would inherit the offsets' order of dimensions and slow down all that follows.
        dtype = torch.promote_types(offset.dtype, torch.float32)
        position = torch.empty(unfolded.shape, dtype=dtype, device=offset.device)
        for axis, (line, step) in enumerate(zip((row, column), grid.stride, strict=True)):
            undeformed = torch.add(self._taps[axis], line.unsqueeze(1), alpha=step)
            torch.add(unfolded[axis], undeformed.view(-1, *grid.kernel_size, 1), out=position[axis])
        position.nan_to_num_(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
        cell = position.floor().clamp_(min=0)
        for axis, side in enumerate(grid.in_size):
            cell[axis].clamp_(max=max(side - 2, 0))
        distance = position.sub_(cell)
        lower = (1 - distance.abs()).clamp_(min=0)
        upper = torch.minimum(distance, 2 - distance).clamp_(min=0)
        return Hats(cell, distance, lower, self._none_past_a_single_line(upper))

    def indices(self, hats: Hats) -> Tensor:
        """Return the row numbers of each sample's neighbours: top left, top right, bottom left, bottom right.

        Returns:
            int32 (sample order, 4), or int64 where int32 cannot count the rows; into rows in the order (images, H, W,
            offset groups).
        """
        height, width = self.grid.in_size
        images, groups = hats.cell.shape[1], self.grid.offset_groups
        plane = height * width * groups
        dtype = torch.int32 if images * plane < 2**31 else torch.int64
        y, x = hats.cell.to(dtype).unbind()
        first = y.mul_(width).add_(x)
        if images > 1 or groups > 1:
            image = torch.arange(0, images * plane, plane, dtype=dtype, device=first.device)
            group = torch.arange(groups, dtype=dtype, device=first.device)
            first.mul_(groups).add_(image.view(-1, 1, 1, 1, 1) + group)
        right, below = groups * (width > 1), groups * width * (height > 1)
        indices = first.new_empty(*first.shape, 4)
        for corner, step in enumerate((0, right, below, below + right)):
            torch.add(first, step, out=indices[..., corner])
        return indices

    def gradients(self, products: Tensor, hats: Hats, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the gradients of the offsets, (2, sample order), and of the mask, (sample order).

        Where a position is exactly on a pixel the derivative is the one on its right, and at -1 it is zero, as in the
        CUDA kernels: networks start from offsets of zero, and would not leave them with a mean of both sides.

        Args:
            products: of `corner_products` with the gradient of the samples.
            hats: of the same samples.
            mask: of the same samples, from `SamplingGrid.unfold_mask`.
        """
        dtype, step = hats.distance.dtype, hats.distance.floor()
        before = ((step == -1) & (hats.distance > -1)).to(dtype)
        between, beyond = (step == 0).to(dtype), (step == 1).to(dtype)
        lower_slope, upper_slope = before - between, self._none_past_a_single_line(between - beyond)
        top_left, top_right, bottom_left, bottom_right = products.to(dtype).unbind(-1)
        (lower_y, lower_x), (upper_y, upper_x) = hats.lower, hats.upper
        top, bottom = top_left * lower_x + top_right * upper_x, bottom_left * lower_x + bottom_right * upper_x
        left, right = top_left * lower_y + bottom_left * upper_y, top_right * lower_y + bottom_right * upper_y
        of_offset = lower_slope * torch.stack((top, left)) + upper_slope * torch.stack((bottom, right))
        return (of_offset if mask is None else of_offset * mask), top * lower_y + bottom * upper_y

    def _none_past_a_single_line(self, upper: Tensor) -> Tensor:
        for axis, side in enumerate(self.grid.in_size):
            if side == 1:
                upper[axis].zero_()
        return upper


def corner_weights(hats: Hats, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return the bilinear weights of the four neighbours, times the mask: (sample order, 4) of `dtype`."""
    top, bottom = hats.lower[0], hats.upper[0]
    if mask is not None:
        mask = mask.contiguous()
        top, bottom = top * mask, bottom * mask
    weights = torch.empty(*top.shape, 4, dtype=dtype, device=top.device)
    for row, wy in enumerate((top, bottom)):
        for column, wx in enumerate((hats.lower[1], hats.upper[1])):
            torch.mul(wy, wx, out=weights[..., 2 * row + column])
    return weights


def sample_rows(rows: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sum of four rows for each sample.

    Args:
        rows: images, shape (images * H * W * offset groups, channels of an offset group), C-contiguous.
        indices: of `Sampler.indices`.
        weights: of `corner_weights`, of the rows' dtype.

    Returns:
        Shape (samples, channels of an offset group).
    """
    bags, weights = indices.view(-1, 4), weights.view(-1, 4)
    samples: Tensor = F.embedding_bag(bags, rows, mode="sum", per_sample_weights=weights)
    return samples


def scatter_rows_(target: Tensor, samples: Tensor, indices: Tensor, weights: Tensor) -> None:
    """Add the transpose of `sample_rows` to `target`: each sample, weighted, to the four rows it came from.

    Sampling is a sparse matrix with four entries per sample; sorted by row they make the bags of its transpose. That
    takes a third of the time of embedding_bag's own backward, which adds row by row.

    Args:
        target: shape and order of the rows given to `sample_rows`; changed in place.
        samples: shape (samples, channels of an offset group).
        indices: given to `sample_rows`.
        weights: given to `sample_rows`.
    """
    row, entry = indices.view(-1).sort()
    first, last = int(row[0]), int(row[-1])  # neighbouring pixels touch few rows, and only those are passed over
    starts = torch.searchsorted(row, torch.arange(first, last + 1, dtype=row.dtype, device=row.device))
    sums = F.embedding_bag(entry // 4, samples, starts, mode="sum", per_sample_weights=weights.view(-1)[entry])
    target[first : last + 1] += sums


def corner_products(samples: Tensor, rows: Tensor, indices: Tensor) -> Tensor:
    """Return the inner product of each sample with the four rows it came from, shaped like `indices`.

    With the gradient of the samples that is the gradient of the weights, for which torch has a kernel.
    """
    flat = indices.view(-1)
    starts = torch.arange(0, len(flat), 4, dtype=flat.dtype, device=flat.device)
    bags = torch.arange(len(samples), dtype=flat.dtype, device=flat.device).repeat_interleave(4)
    products: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(samples, rows, flat, starts, bags, 0)
    return products.view(indices.shape)
