"""Deformable convolution as its definition reads: one loop per index, float64."""

from __future__ import annotations

from math import floor, prod
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]


def deform_conv2d(
    images: Array,
    offset: Array,
    weight: Array,
    bias: Array | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    mask: Array | None,
) -> Array:
    channels, kernel = images.shape[1], weight.shape[2:]
    offset_groups = offset.shape[1] // (2 * prod(kernel))
    groups = channels // weight.shape[1]
    output = np.zeros((images.shape[0], weight.shape[0], *offset.shape[2:]))
    for image, out_channel, row, column in np.ndindex(output.shape):
        group = out_channel // (weight.shape[0] // groups)
        for channel, tap_row, tap_column in np.ndindex(weight.shape[1:]):
            in_channel = group * weight.shape[1] + channel
            offset_group = in_channel // (channels // offset_groups)
            tap = offset_group * prod(kernel) + tap_row * kernel[1] + tap_column
            dy, dx = offset[image, 2 * tap : 2 * tap + 2, row, column]
            y = row * stride[0] - padding[0] + tap_row * dilation[0] + dy
            x = column * stride[1] - padding[1] + tap_column * dilation[1] + dx
            sample = bilinear(images[image, in_channel], y, x)
            if mask is not None:
                sample *= mask[image, tap, row, column]
            output[image, out_channel, row, column] += weight[out_channel, channel, tap_row, tap_column] * sample
        if bias is not None:
            output[image, out_channel, row, column] += bias[out_channel]
    return output


def bilinear(plane: Array, y: float, x: float) -> float:
    height, width = plane.shape
    if not (-1 < y < height and -1 < x < width):  # NaN is nowhere
        return 0.0
    total = 0.0
    for row in (floor(y), floor(y) + 1):
        for column in (floor(x), floor(x) + 1):
            if 0 <= row < height and 0 <= column < width:
                total += plane[row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return total
