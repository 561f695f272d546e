"""What a trained network decides on every test image, and how often it is right."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from reproduction.tasks.classification.data import Dataset
from reproduction.tasks.classification.metrics import top_k_correct


@dataclass(frozen=True)
class Evaluation:
    """Results over a whole split.

    Attributes:
        loss: Mean cross-entropy.
        top1: Share of images whose label has the largest logit, in percent.
        top5: Share whose label is among the five largest, in percent.
        predictions: (N,) int64, the class with the largest logit.
        margins: (N,) difference between the two largest logits.
        count: N.
    """

    loss: float
    top1: float
    top5: float
    predictions: torch.Tensor
    margins: torch.Tensor
    count: int

    @property
    def scores(self) -> dict[str, float]:
        """Accuracies by name, as the training loop logs them."""
        return {"top1": self.top1, "top5": self.top5}


@torch.no_grad()
def evaluate(
    model: nn.Module,
    dataset: Dataset,
    *,
    split: str = "test",
    batch_size: int = 256,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Evaluation:
    """Run a classifier over a split in eval mode.

    Args:
        model: Maps (B, 3, H, W) to logits; its mode is restored. It must be of `dtype` already.
        dataset: Where the images come from.
        split: ``train`` (as trained on, for one epoch) or ``test``.
        batch_size: Images a batch.
        device: Where to run; by default the CPU.
        dtype: Arithmetic.
    """
    was_training = model.training
    model.eval()
    losses, logits_of_all, labels_of_all = [], [], []
    try:
        for images, labels, _ in dataset.batches(split, batch_size=batch_size):
            logits = model(images.to(device, dtype)).cpu()
            losses.append(F.cross_entropy(logits, labels, reduction="sum"))
            logits_of_all.append(logits)
            labels_of_all.append(labels)
    finally:
        model.train(was_training)
    logits, labels = torch.cat(logits_of_all), torch.cat(labels_of_all)
    best = logits.topk(2, dim=1) if logits.shape[1] > 1 else None
    count = len(labels)
    return Evaluation(
        loss=float(torch.stack(losses).sum()) / count,
        top1=100 * float(top_k_correct(logits, labels, 1).float().mean()),
        top5=100 * float(top_k_correct(logits, labels, 5).float().mean()),
        predictions=logits.argmax(dim=1),
        margins=best.values[:, 0] - best.values[:, 1] if best else torch.zeros(count),
        count=count,
    )
