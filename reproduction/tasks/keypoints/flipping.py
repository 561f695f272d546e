"""The flip test: heatmaps averaged over an image and its mirror image (CVPR'19 section 4.1)."""

from collections.abc import Callable, Sequence

import torch

from reproduction.errors import UserError

# Keypoints that trade places in a mirror, by data set.
FLIP_PAIRS = {
    "coco": tuple((left, left + 1) for left in range(1, 17, 2)),
    "mpii": ((0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13)),
}
Pairs = Sequence[tuple[int, int]]


def unflip_heatmaps(heatmaps: torch.Tensor, pairs: Pairs, *, shift: bool = True) -> torch.Tensor:
    """Bring the heatmaps of a mirrored image back to those of the image.

    Mirroring at stride 4 moves content by a fraction of a heatmap pixel; `shift` undoes most of
    it by one pixel to the right, where column 0 keeps its values.

    Args:
        heatmaps: (B, K, H, W) of the mirrored images.
        pairs: Keypoints that trade places.
        shift: Whether to move the maps.

    Returns:
        (B, K, H, W).

    Raises:
        UserError: A pair names a keypoint that the heatmaps lack, or one twice.

    >>> unflip_heatmaps(torch.tensor([[[[1., 2., 3.]]]]), ()).tolist()
    [[[[3.0, 3.0, 2.0]]]]
    """
    order = mirrored_order(heatmaps.shape[1], pairs)
    unflipped = heatmaps[:, order].flip(-1)
    if shift:
        unflipped = torch.cat([unflipped[..., :1], unflipped[..., :-1]], dim=-1)
    return unflipped


def mirrored_order(keypoints: int, pairs: Pairs) -> list[int]:
    """List, for each keypoint, the one that takes its place in a mirror.

    Raises:
        UserError: A pair names a keypoint that there is not, or one twice.

    >>> mirrored_order(4, [(1, 2)])
    [0, 2, 1, 3]
    """
    named = [keypoint for pair in pairs for keypoint in pair]
    if len(set(named)) < len(named) or not all(0 <= keypoint < keypoints for keypoint in named):
        raise UserError(
            f"flip pairs {tuple(pairs)} do not fit {keypoints} keypoints: each may be named once, "
            f"from 0 to {keypoints - 1}"
        )
    order = list(range(keypoints))
    for left, right in pairs:
        order[left], order[right] = right, left
    return order


def flip_test(
    network: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    pairs: Pairs,
    *,
    shift: bool = True,
) -> torch.Tensor:
    """Average a network's heatmaps over images and their mirror images.

    Args:
        network: From (B, 3, H, W) to (B, K, H/4, W/4).
        images: (B, 3, H, W), normalized.
        pairs: Keypoints that trade places.
        shift: Whether to move the mirrored maps by one pixel.

    Returns:
        (B, K, H/4, W/4).

    Raises:
        UserError: The pairs do not fit the network's keypoints.
    """
    unflipped = unflip_heatmaps(network(images.flip(-1)), pairs, shift=shift)
    return 0.5 * (network(images) + unflipped)
