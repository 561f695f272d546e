"""What stands in for single functions in a neutral rewrite.

Each takes the original function first and then its arguments, and falls back to it where it cannot
say the same otherwise. All are made of operations that autograd differentiates.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

Tensor = torch.Tensor
Pair = tuple[int, int]


def conv_unfolded(
    func: Any,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Compute a convolution as a matrix product over unfolded windows."""
    if isinstance(padding, str) or groups != 1:
        return func(x, weight, bias, stride, padding, dilation, groups)
    kernel = (weight.shape[2], weight.shape[3])
    s, p, d = _pair(stride), _pair(padding), _pair(dilation)
    windows = F.unfold(x, kernel, dilation=d, padding=p, stride=s)  # (B, C*k*k, H'*W')
    height = (x.shape[2] + 2 * p[0] - d[0] * (kernel[0] - 1) - 1) // s[0] + 1
    y = (weight.flatten(1) @ windows).unflatten(2, (height, -1))
    return y if bias is None else y + bias[:, None, None]


def conv_halved(
    func: Any,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Add the convolutions of the two halves of the input channels."""
    half = x.shape[1] // 2
    if groups != 1 or not half:
        return func(x, weight, bias, stride, padding, dilation, groups)
    first = func(x[:, :half], weight[:, :half], None, stride, padding, dilation)
    return first + func(x[:, half:], weight[:, half:], bias, stride, padding, dilation)


def conv_by_image(func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Convolve every image by itself."""
    return torch.cat([func(image[None], *args, **kwargs) for image in x])


def conv_mirrored(
    func: Any,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Convolve the mirrored image by the mirrored kernel and mirror the result."""
    if _pair(stride) != (1, 1):
        return func(x, weight, bias, stride, padding, dilation, groups)
    y = func(x.flip(2, 3), weight.flip(2, 3), bias, stride, padding, dilation, groups)
    return y.flip(2, 3)


def conv_scaled(func: Any, x: Tensor, weight: Tensor, bias: Any = None, *args: Any) -> Tensor:
    """Convolve three times the input and divide by three."""
    y = _recomputed(lambda x, weight: func(x * 3, weight, None, *args) / 3, x, weight)
    return y if bias is None else y + bias[:, None, None]


def norm_written_out(
    func: Any,
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Center, divide by the deviation, then scale and shift."""
    if running_mean is None or running_var is None or weight is None or bias is None:
        return func(x, running_mean, running_var, weight, bias, training, momentum, eps)
    mean, variance = _statistics(x, running_mean, running_var, training, momentum)

    def written_out(x: Tensor, mean: Tensor, variance: Tensor, scale: Tensor, b: Tensor) -> Tensor:
        y = (x - _wide(mean, x)) / (_wide(variance, x) + eps).sqrt()
        return y * _wide(scale, x) + _wide(b, x)

    return _recomputed(written_out, x, mean, variance, weight, bias)


def norm_folded(
    func: Any,
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Apply one scale and one shift per channel."""
    if running_mean is None or running_var is None or weight is None or bias is None:
        return func(x, running_mean, running_var, weight, bias, training, momentum, eps)
    mean, variance = _statistics(x, running_mean, running_var, training, momentum)
    scale = weight * (variance + eps).rsqrt()
    return x * _wide(scale, x) + _wide(bias - mean * scale, x)


def norm_shifted(
    func: Any,
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalize a third more than the input: the mean takes it back."""
    if running_mean is None or running_var is None:
        return func(x, running_mean, running_var, weight, bias, training, momentum, eps)
    shifted = running_mean + 1 / 3
    y = func(x + 1 / 3, shifted, running_var, weight, bias, training, momentum, eps)
    if training:
        running_mean.copy_(shifted - 1 / 3)
    return y


def sum_of_thirds(func: Any, a: Any, b: Any, **kwargs: Any) -> Tensor:
    """Add thirds and multiply by three."""
    return func(a, b, **kwargs) if not _both(a, b) or kwargs else (a / 3 + b / 3) * 3


def sum_of_thirds_written(func: Any, a: Any, b: Any, **kwargs: Any) -> Tensor:
    """Add thirds in place."""
    if not _both(a, b) or kwargs or a.shape != torch.broadcast_shapes(a.shape, b.shape):
        return func(a, b, **kwargs)
    return a.copy_((a / 3 + b / 3) * 3)


def sum_stacked(func: Any, a: Any, b: Any, **kwargs: Any) -> Tensor:
    """Sum a stack of both."""
    if not _both(a, b) or kwargs or a.shape != b.shape:
        return func(a, b, **kwargs)
    return torch.stack([a, b]).sum(0)


def upsampled(
    func: Any,
    x: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    **kwargs: Any,
) -> Tensor:
    """Repeat rows and columns, or interpolate by products with matrices of weights."""
    original = func(x.detach(), size, scale_factor, mode, align_corners, **kwargs)
    height, width = original.shape[-2:]
    if mode == "nearest" and not (height % x.shape[-2] or width % x.shape[-1]):
        rows = x.repeat_interleave(height // x.shape[-2], -2)
        return rows.repeat_interleave(width // x.shape[-1], -1)
    if mode != "bilinear" or scale_factor is not None:
        return func(x, size, scale_factor, mode, align_corners, **kwargs)
    rows = _weights(x.shape[-2], height, bool(align_corners), x)
    columns = _weights(x.shape[-1], width, bool(align_corners), x)
    return rows @ x @ columns.T


def relu_by_mask(func: Any, x: Tensor, inplace: bool = False) -> Tensor:
    """Multiply by whether it is positive."""
    return func(x, inplace) if inplace else x * (x > 0)


def linear_halved(func: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Add the products of the two halves of the features."""
    half = x.shape[-1] // 2
    y = x[..., :half] @ weight[:, :half].T + x[..., half:] @ weight[:, half:].T
    return y if bias is None else y + bias


def pool_as_mean(func: Any, x: Tensor, output_size: Any) -> Tensor:
    """Take the mean of all values of a channel."""
    if output_size not in (1, (1, 1)):
        return func(x, output_size)
    return x.flatten(2).sum(2)[:, :, None, None] / (x.shape[2] * x.shape[3])


def average_as_mean(func: Any, x: Tensor, kernel_size: Any, *args: Any, **kwargs: Any) -> Tensor:
    """Take the mean of all values of a channel, where the window is the whole image."""
    if _pair(kernel_size) != tuple(x.shape[2:]) or args or kwargs:
        return func(x, kernel_size, *args, **kwargs)
    return x.flatten(2).sum(2)[:, :, None, None] / (x.shape[2] * x.shape[3])


def cross_entropy(func: Any, logits: Tensor, target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Subtract the logit of the class from the logarithm of the sum of exponentials."""
    if args or kwargs or target.is_floating_point() or logits.dim() != 2:
        return func(logits, target, *args, **kwargs)
    chosen = logits.gather(1, target[:, None])[:, 0]
    return (logits.exp().sum(1).log() - chosen).sum() / len(target)


def _statistics(
    x: Tensor, running_mean: Tensor, running_var: Tensor, training: bool, momentum: float
) -> tuple[Tensor, Tensor]:
    if not training:
        return running_mean, running_var
    axes = [axis for axis in range(x.dim()) if axis != 1]
    mean = x.mean(axes)
    variance = x.var(axes, correction=0)
    count = x.numel() / x.shape[1]
    with torch.no_grad():
        running_mean += momentum * (mean - running_mean)
        running_var += momentum * (variance * count / (count - 1) - running_var)
    return mean, variance


def _recomputed(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Call a function that is called again for the backward pass instead of keeping its values."""

    def plainly(*given: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():  # the rewrite must not be rewritten
            return function(*given)

    if not torch.is_grad_enabled():
        return plainly(*inputs)
    result: Tensor = checkpoint(plainly, *inputs, use_reentrant=False, preserve_rng_state=False)
    return result


def _weights(size: int, wanted: int, align_corners: bool, like: Tensor) -> Tensor:
    """Return the matrix (wanted, size) of linear interpolation along one axis."""
    steps = torch.arange(wanted, dtype=like.dtype)
    if align_corners:
        at = steps * ((size - 1) / (wanted - 1) if wanted > 1 else 0.0)
    else:
        at = ((steps + 0.5) * (size / wanted) - 0.5).clamp(min=0)
    low = at.floor().long().clamp(max=size - 1)
    share = at - low
    matrix = torch.zeros(wanted, size, dtype=like.dtype)
    matrix[torch.arange(wanted), low] += 1 - share
    matrix[torch.arange(wanted), (low + 1).clamp(max=size - 1)] += share
    return matrix


def _wide(values: Tensor, like: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (like.dim() - 2))


def _both(a: Any, b: Any) -> bool:
    return isinstance(a, Tensor) and isinstance(b, Tensor) and a.is_floating_point()


def _pair(value: Any) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
