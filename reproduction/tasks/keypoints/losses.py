"""Losses on heatmaps (CVPR'19 section 3)."""

import torch

from reproduction.errors import UserError

HARD_KEYPOINTS = 8


def keypoint_mse(
    heatmaps: torch.Tensor, target_heatmaps: torch.Tensor, keypoint_weights: torch.Tensor
) -> torch.Tensor:
    """Return half the mean squared error, keypoints weighted.

    ``0.5 * mean((w * (heatmaps - targets))**2)``. The mean divides by all elements: a keypoint of
    weight 0 adds no error and still counts in the divisor.

    Args:
        heatmaps: (B, K, H, W), from the network.
        target_heatmaps: As large.
        keypoint_weights: (B, K).

    Returns:
        A scalar.

    Raises:
        UserError: Maps are no tensor, or the shapes do not fit one another.

    >>> ones = torch.ones(1, 2, 4, 4)
    >>> float(keypoint_mse(ones, 0 * ones, torch.tensor([[1.0, 0.0]])))
    0.25
    """
    return 0.5 * _weighted_squares(heatmaps, target_heatmaps, keypoint_weights).mean()


def hard_keypoint_mse(
    heatmaps: torch.Tensor,
    target_heatmaps: torch.Tensor,
    keypoint_weights: torch.Tensor,
    hardest: int = HARD_KEYPOINTS,
) -> torch.Tensor:
    """Return the loss of the hardest keypoints of each image; no official recipe uses it.

    Args:
        heatmaps: (B, K, H, W), from the network.
        target_heatmaps: As large.
        keypoint_weights: (B, K).
        hardest: Keypoints an image that count.

    Returns:
        A scalar.

    Raises:
        UserError: Maps are no tensor, the shapes do not fit one another, or there are fewer
            keypoints.

    >>> errors = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
    >>> float(hard_keypoint_mse(errors, 0 * errors, torch.ones(1, 3), hardest=2))
    3.25
    """
    check_heatmaps(heatmaps, target_heatmaps)
    if not 1 <= hardest <= heatmaps.shape[1]:
        raise UserError(
            f"the {hardest} hardest keypoints are to count, of {heatmaps.shape[1]}; give a number "
            f"from 1 to {heatmaps.shape[1]}"
        )
    squares = _weighted_squares(heatmaps, target_heatmaps, keypoint_weights)
    return (0.5 * squares.mean(dim=(2, 3))).topk(hardest, dim=1).values.mean()


def _weighted_squares(
    heatmaps: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    check_heatmaps(heatmaps, targets)
    if weights.shape != heatmaps.shape[:2]:
        raise UserError(
            f"keypoint_weights have shape {tuple(weights.shape)}; expected "
            f"{tuple(heatmaps.shape[:2])}, one for each image and keypoint"
        )
    return (weights[:, :, None, None] * (heatmaps - targets)) ** 2


def check_heatmaps(heatmaps: torch.Tensor, targets: torch.Tensor) -> None:
    """Refuse heatmaps that are not (B, K, H, W), or whose targets are not as large.

    Raises:
        UserError: One is no tensor, or the shapes do not fit.
    """
    for name, value in (("heatmaps", heatmaps), ("their targets", targets)):
        if not isinstance(value, torch.Tensor):
            raise UserError(
                f"{name} are a {type(value).__name__}; expected one tensor (images, keypoints, H, "
                "W): stack maps, and give several outputs of a network one at a time"
            )
    if heatmaps.dim() != 4:
        raise UserError(
            f"heatmaps have shape {tuple(heatmaps.shape)}; expected (images, keypoints, H, W)"
        )
    if heatmaps.shape != targets.shape:
        raise UserError(
            f"heatmaps have shape {tuple(heatmaps.shape)} and their targets "
            f"{tuple(targets.shape)}: make the targets for the network's input size and keypoints"
        )
