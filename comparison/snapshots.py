"""A few test images with truth and prediction, small enough to be kept in a record as text.

Label maps and heatmaps are kept exactly, as compressed bytes; images, which are only looked at, as
JPEG. `comparison.task_figures` draws them.
"""

import base64
import io
import math
import zlib
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from reproduction.tasks.detection.task import Detected
from reproduction.tasks.keypoints.crops import crop_matrix, transform_points
from reproduction.tasks.scenes.keypoints import Located, ScenePose
from reproduction.tasks.scenes.labeling import Labeled
from reproduction.tasks.scenes.plans import SceneTask
from reproduction.tasks.task import evaluating

EXAMPLES = 3
QUALITY = 90
Row = dict[str, Any]


def snapshots(
    task: SceneTask,
    model: nn.Module,
    result: Labeled | Located | Detected,
    device: torch.device,
) -> list[Row]:
    """Return the first test images with what is true and what a network sees, one row each.

    Args:
        task: Segmentation, keypoints or detection.
        model: The trained network.
        result: Its evaluation by the task.
        device: Where the model is.
    """
    if isinstance(result, Labeled):
        return [_labels(task, result.predictions, index) for index in range(EXAMPLES)]
    if isinstance(result, Detected):
        return [_boxes(task, result.predictions[index], index) for index in range(EXAMPLES)]
    assert isinstance(task, ScenePose)
    return _keypoints(task, model, result.predictions, device)


def _boxes(task: SceneTask, found: list[Row], index: int) -> Row:
    """Keep left, top, width, height and digit of the true boxes and of as many, the surest."""
    present = task.test.digits[index] >= 0
    truth = np.column_stack([task.test.boxes_xywh[index], task.test.digits[index]])[present]
    sure = sorted(found, key=lambda entry: -entry["score"])[: len(truth)]
    return {
        "image": pack_image(task.test.images[index]),
        "boxes": truth.tolist(),
        "predicted_boxes": [
            [*(round(value, 2) for value in entry["bbox"]), entry["category_id"] - 1]
            for entry in sure
        ],
    }


def _labels(task: SceneTask, predictions: np.ndarray, index: int) -> Row:
    return {
        "image": pack_image(task.test.images[index]),
        "labels": pack(task.test.labels[index]),
        "predicted_labels": pack(predictions[index]),
    }


def _keypoints(
    task: ScenePose, model: nn.Module, predictions: np.ndarray, device: torch.device
) -> list[Row]:
    batch = next(task.batches("test", batch_size=EXAMPLES))
    with torch.no_grad(), evaluating(model):
        heatmaps = model(batch.images.to(device)).amax(dim=1).cpu().numpy()  # (B, H/4, W/4)
    rows = []
    for digit, points, maps in zip(task.digits["test"], predictions, heatmaps, strict=False):
        matrix = crop_matrix(digit.box, (task.crop_px, task.crop_px))
        truth = task.test.keypoints_xy[digit.scene, digit.place]
        rows.append(
            {
                "image": pack_image(task.examples(task.test, [digit])[0][0]),
                "keypoints": transform_points(truth, matrix).round(2).tolist(),
                "predicted_keypoints": transform_points(points, matrix).round(2).tolist(),
                "heatmap": pack((255 * maps.clip(0, 1)).round().astype(np.uint8)),
            }
        )
    return rows


def pack(array: np.ndarray) -> Row:
    """Write a uint8 array (H, W) as text.

    >>> unpack(pack(np.array([[1, 2, 3]], dtype=np.uint8))).tolist()
    [[1, 2, 3]]
    """
    data = zlib.compress(np.ascontiguousarray(array, dtype=np.uint8).tobytes(), 9)
    return {"shape": list(array.shape), "data": base64.b64encode(data).decode()}


def unpack(packed: Row) -> np.ndarray:
    """Read what `pack` wrote."""
    count = math.prod(packed["shape"])
    data = zlib.decompressobj().decompress(base64.b64decode(packed["data"]), max_length=count)
    return np.frombuffer(data, dtype=np.uint8).reshape(packed["shape"])


def pack_image(image: np.ndarray) -> str:
    """Write an image (H, W, 3) uint8 as text, nearly as it is."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=QUALITY)
    return base64.b64encode(content.getvalue()).decode()


def unpack_image(packed: str) -> np.ndarray:
    """Read what `pack_image` wrote."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(packed))).convert("RGB"))
