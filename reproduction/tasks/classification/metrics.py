"""Top-k accuracy from logits."""

import torch


def top_k_correct(logits: torch.Tensor, labels: torch.Tensor, k: int) -> torch.Tensor:
    """Say for each image whether its label is among the k largest logits.

    With fewer than k classes, all of them count.

    Args:
        logits: (B, classes).
        labels: (B,) int64.
        k: At least 1.

    Returns:
        (B,) bool.

    >>> top_k_correct(torch.tensor([[0.1, 0.7, 0.2]]), torch.tensor([2]), 1)
    tensor([False])
    >>> top_k_correct(torch.tensor([[0.1, 0.7, 0.2]]), torch.tensor([2]), 2)
    tensor([True])
    """
    best = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return (best == labels[:, None]).any(dim=1)
