"""Convolution and BatchNorm of PyTorch, computed in a way that is faster on a CPU.

The results are the same up to rounding, and the names of the weights are the same. docs/performance.md has the
measurements.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.grad import conv2d_input, conv2d_weight

__all__ = ["BatchNorm2d", "Conv2d"]

_SMALL, _WIDE, _MANY = 4, 192, 32  # pixels across, channels and images, measured; see docs/performance.md

_Row: TypeAlias = tuple[int, slice]


class Conv2d(nn.Conv2d):
    """A convolution that skips the padding if its maps are small and many.

    A 3×3 convolution of 4×4 maps multiplies padding for a third of its time, and PyTorch's gradient of its weights
    takes two to three times as long as the maps. So, from 192 channels and 32 square images up, it is a sum of matrix
    products, one for each place of the kernel and each row of pixels that it meets there. PyTorch computes the rest.

    A 1×1 kernel with a stride is given the pixels that it meets and no others: on some processors PyTorch's gradient of
    its weights writes past its memory where channels are few (seen of 3 to 6 of them, channels-last, torch 2.13.0, AMD
    EPYC).
    """

    same_in_both_modes = True

    def forward(self, input: Tensor) -> Tensor:
        """Maps (B, out_channels, H', W') of images (B, in_channels, H, W)."""

        if self._skips_pixels() and input.ndim == 4 and input.device.type == "cpu":
            rows, columns = self.stride
            return F.conv2d(input[..., ::rows, ::columns], self.weight, self.bias)
        if not self._is_padded_and_wide() or not self._are_small_and_many(input):
            return super().forward(input)
        weight, bias = self.weight, self.bias  # asked for once: a parametrization computes them
        if not _is_plainly_on_cpu(input, weight):
            maps: Tensor = self._conv_forward(input, weight, bias)
            return maps
        maps = _Convolution.apply(input, weight, self.stride[0], int(self.padding[0]))
        return maps if bias is None else maps + bias[:, None, None]

    def _skips_pixels(self) -> bool:
        usual = self.padding == (0, 0) and self.groups == 1
        return usual and self.kernel_size == (1, 1) and self.stride != (1, 1)

    def _is_padded_and_wide(self) -> bool:
        (across, down), (right, below) = self.stride, self.kernel_size
        usual = across == down and right == below and self.dilation == (1, 1) and self.groups == 1
        padded = self.padding_mode == "zeros" and self.padding in [(pixels, pixels) for pixels in range(1, right)]
        return usual and padded and min(self.in_channels, self.out_channels) >= _WIDE

    def _are_small_and_many(self, images: Tensor) -> bool:
        square = images.ndim == 4 and images.shape[-1] == images.shape[-2]
        return square and 0 < images.shape[-1] <= _SMALL * self.stride[0] and len(images) >= _MANY


def _is_plainly_on_cpu(x: Tensor, weight: Tensor) -> bool:
    """Whether both are on the CPU, equally precise, and no transform but autograd's is at work."""

    return (
        x.device.type == "cpu"
        and x.layout == torch.strided
        and x.dtype == weight.dtype
        and x.dtype in (torch.float32, torch.float64)  # sums of parts are rounded part by part
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
    )


class _Convolution(torch.autograd.Function):
    """Its three passes, each a sum of matrix products over rows of pixels, the pixels before the batch.

    So the rows of a matrix are those of all images, and lie side by side.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        pixels, kernel = _pixels_first(x), weight.permute(2, 3, 1, 0)
        side = (x.shape[-1] + 2 * padding - weight.shape[-1]) // stride + 1
        maps = x.new_zeros(side, side, len(x), len(weight))
        for place, there, here in _rows(weight, stride, padding, x.shape[-1], side):
            _add_product(maps[here], pixels[there], kernel[place])
        return _images_first(maps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int, int], output: Tensor) -> None:
        x, weight, ctx.stride, ctx.padding = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding, asked = ctx.stride, ctx.padding, [_is_asked_for(ctx, which) for which in (0, 1)]
        of_x = of_weight = None
        if _are_many(gradient):
            if asked[0]:
                of_x = conv2d_input(x.shape, weight, gradient, stride, padding)
            if asked[1]:
                of_weight = conv2d_weight(x, weight.shape, gradient, stride, padding)
            return of_x, of_weight, None, None

        given, pixels, kernel = _pixels_first(gradient), _pixels_first(x), weight.permute(2, 3, 0, 1)
        of_pixels = torch.zeros_like(pixels) if asked[0] else None
        of_kernel = torch.zeros_like(kernel, memory_format=torch.contiguous_format) if asked[1] else None
        for place, there, here in _rows(weight, stride, padding, x.shape[-1], gradient.shape[-1]):
            if of_pixels is not None:
                _add_product(of_pixels[there], given[here], kernel[place])
            if of_kernel is not None:
                of_kernel[place].addmm_(given[here].flatten(0, 1).t(), pixels[there].flatten(0, 1))

        of_x = None if of_pixels is None else _images_first(of_pixels)
        of_weight = None if of_kernel is None else _images_first(of_kernel)
        return of_x, of_weight, None, None


def _are_many(gradient: Tensor) -> bool:
    """Whether it stands for many gradients, as those of ``is_grads_batched``."""

    batched, batched_for_grad = torch._C._functorch.is_batchedtensor, torch._C._functorch.is_legacy_batchedtensor
    return batched(gradient) or batched_for_grad(gradient)


def _is_asked_for(ctx: Any, which: int) -> bool:
    """Whether anybody may want the gradient of an input now.

    ``needs_input_grad`` says whether it has one. An attack leaves the weights' unasked, and autograd knows.
    """

    node = ctx.next_functions[which][0]
    if not ctx.needs_input_grad[which] or node is None:
        return False
    try:
        # Where autograd does not know of this very node, as a root or of another engine, it knows nothing of the next.
        return not torch._C._will_engine_execute_node(ctx) or torch._C._will_engine_execute_node(node)
    except RuntimeError:  # so it answers of a leaf whose gradient is to be returned, and where it does not run
        return True


def _rows(
    weight: Tensor, stride: int, padding: int, side: int, out: int
) -> Iterator[tuple[tuple[int, int], _Row, _Row]]:
    """Each place of the kernel with a row of the image and the row of the map that it takes to, padding left out."""

    met = []
    for place in range(weight.shape[-1]):
        first = max(0, -((place - padding) // stride))
        beyond = min(out, (side - 1 + padding - place) // stride + 1)
        if first < beyond:
            met.append((place, first, beyond, place - padding))

    for i, top, bottom, down in met:
        for j, left, right, along in met:
            columns = slice(stride * left + along, stride * (right - 1) + along + 1, stride)
            for row in range(top, bottom):
                yield (i, j), (stride * row + down, columns), (row, slice(left, right))


def _add_product(row: Tensor, pixels: Tensor, matrix: Tensor) -> None:
    """Adds to a row of pixels (W, B, C), in place, the matrix product of another."""

    pixels = pixels.flatten(0, 1)
    if row.is_contiguous():
        row.view(len(pixels), -1).addmm_(pixels, matrix)
    else:
        row += row.new_zeros(len(pixels), row.shape[-1]).addmm_(pixels, matrix).view_as(row)


def _pixels_first(images: Tensor) -> Tensor:
    """(H, W, B, C) of (B, C, H, W)."""

    return images.permute(2, 3, 0, 1).contiguous()


def _images_first(pixels: Tensor) -> Tensor:
    """(B, C, H, W) of (H, W, B, C), the channels of a pixel side by side, and never a view."""

    return pixels.permute(2, 3, 0, 1).clone(memory_format=torch.channels_last)


class BatchNorm2d(nn.BatchNorm2d):
    """A BatchNorm that in evaluation mode on a CPU is only a factor and a summand for each channel.

    PyTorch's backward pass computes the terms of the batch's statistics even in this mode.
    """

    same_when_evaluated = True

    def forward(self, input: Tensor) -> Tensor:
        """Maps of the shape of those that come in, (B, C, H, W)."""

        fits = input.ndim == 4 and input.shape[1] == self.num_features
        if self.training or not self.affine or not fits or not _is_plainly_on_cpu(input, self.weight):
            return super().forward(input)
        if self.running_mean is None or self.running_var is None:
            return super().forward(input)
        factor = self.weight * torch.rsqrt(self.running_var + self.eps)
        summand = self.bias - self.running_mean * factor
        return torch.addcmul(summand[:, None, None], input, factor[:, None, None])
