"""The flip test: heatmaps averaged over an image and its mirror image (CVPR'19 section 4.1)."""

from collections.abc import Callable, Sequence

import torch

from reproduction.errors import UserError

Pairs = Sequence[tuple[int, int]]


def _across(first: int, last: int, count: int) -> tuple[tuple[int, int], ...]:
    """Pair `count` points that are numbered from one side of the face to the other."""
    return tuple((first + step, last - step) for step in range(count))


# Keypoints and landmarks that trade places in a mirror, by data set.
FLIP_PAIRS: dict[str, tuple[tuple[int, int], ...]] = {
    "coco": tuple((left, left + 1) for left in range(1, 17, 2)),
    "mpii": ((0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13)),
    "wflw": (
        *_across(0, 32, 16),  # contour
        *(*_across(33, 46, 5), *_across(38, 50, 4)),  # brows
        *_across(55, 59, 2),  # nostrils
        *(*_across(60, 72, 5), *((65, 75), (66, 74), (67, 73))),  # eyes
        *(*_across(76, 82, 3), *_across(83, 87, 2)),  # outer lips
        *(*_across(88, 92, 2), (93, 95)),  # inner lips
        (96, 97),  # pupils
    ),
    "300w": (
        *_across(0, 16, 8),
        *_across(17, 26, 5),
        *_across(31, 35, 2),
        *(*_across(36, 45, 4), (40, 47), (41, 46)),
        *(*_across(48, 54, 3), *_across(55, 59, 2)),
        *(*_across(60, 64, 2), (65, 67)),
    ),
    "cofw": (
        *((0, 1), (2, 3), (4, 6), (5, 7)),  # brows
        *((8, 9), (10, 11), (12, 14), (13, 15), (16, 17)),  # eyes
        *((18, 19), (22, 23)),  # nostrils and corners of the mouth
    ),
    "aflw": (*_across(0, 5, 3), *_across(6, 11, 3), (12, 14), (15, 17)),
}


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


def mirrored_order(count: int, pairs: Pairs, what: str = "keypoints") -> list[int]:
    """List, for each keypoint or class, the one that takes its place in a mirror.

    Args:
        count: How many there are.
        pairs: Those that trade places.
        what: Their name, in the plural.

    Raises:
        UserError: A pair names one that there is not, or one twice.

    >>> mirrored_order(4, [(1, 2)])
    [0, 2, 1, 3]
    """
    named = [index for pair in pairs for index in pair]
    if len(set(named)) < len(named) or not all(0 <= index < count for index in named):
        raise UserError(
            f"flip pairs {tuple(pairs)} do not fit {count} {what}: each may be named once, "
            f"from 0 to {count - 1}"
        )
    order = list(range(count))
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
