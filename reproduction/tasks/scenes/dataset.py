"""Sets of composed scenes, cached, whose training and test scenes share no digit."""

import hashlib
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from reproduction.durable import whole
from reproduction.errors import UserError
from reproduction.tasks.classification.sources import CACHE, held_out_digits
from reproduction.tasks.keypoints.crops import check_keypoints
from reproduction.tasks.scenes import compose
from reproduction.tasks.scenes.compose import DIGITS_PER_SCENE, KEYPOINTS, Scene, compose_scene

SPLITS = ("train", "test")
NUM_CLASSES = 11  # background and ten digits
IMAGE_SIZE = 96
LARGEST_BYTES = 2_000_000_000  # unpacked: over forty thousand scenes
MIN_IMAGE_SIZE = 64
VISIBLE = 2  # COCO's word for a keypoint that is annotated and seen
SIGMA = 0.05  # OKS constant of each keypoint, in the middle of COCO's


@dataclass(frozen=True)
class Scenes:
    """Scenes of one size; places of digits that a scene does not have hold -1.

    Attributes:
        images: (N, H, W, 3) uint8.
        labels: (N, H, W) uint8: 0 is background, ``d + 1`` the digit d.
        instances: (N, H, W) uint8: 0 is background, ``i + 1`` the i-th digit of the scene.
        digits: (N, 4) int64, 0 to 9.
        sources: (N, 4) int64, which of scikit-learn's scans each is.
        keypoints_xy: (N, 4, 5, 2) int64, pixels in the order of KEYPOINTS.
        boxes_xywh: (N, 4, 4) int64, left, top, width and height.
    """

    images: np.ndarray
    labels: np.ndarray
    instances: np.ndarray
    digits: np.ndarray
    sources: np.ndarray
    keypoints_xy: np.ndarray
    boxes_xywh: np.ndarray

    @property
    def sha256(self) -> str:
        """Digest of all arrays."""
        digest = hashlib.sha256()
        for name, array in self.arrays().items():
            digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def visibility(self) -> np.ndarray:
        """Return (N, 4, 5): 2 for each keypoint of a digit, else 0."""
        present = np.where(self.digits >= 0, VISIBLE, 0)
        return np.repeat(present[:, :, None], len(KEYPOINTS), axis=2)

    def coco(self) -> dict[str, Any]:
        """Return boxes and keypoints in COCO's format; the area is the number of ink pixels."""
        height, width = self.labels.shape[1:]
        annotations = [
            self._annotation(int(scene), int(place))
            for scene, place in np.argwhere(self.digits >= 0)
        ]
        return {
            "images": [
                {"id": scene, "height": height, "width": width} for scene in range(len(self.images))
            ],
            "categories": [{"id": digit + 1, "name": str(digit)} for digit in range(10)],
            "annotations": [{"id": n, **entry} for n, entry in enumerate(annotations, 1)],
        }

    def _annotation(self, scene: int, place: int) -> dict[str, Any]:
        points = self.keypoints_xy[scene, place]
        triples = np.column_stack([points, np.full(len(points), VISIBLE)])
        return {
            "image_id": scene,
            "category_id": int(self.digits[scene, place]) + 1,
            "keypoints": triples.ravel().tolist(),
            "num_keypoints": len(points),
            "bbox": self.boxes_xywh[scene, place].tolist(),
            "area": int((self.instances[scene] == place + 1).sum()),
            "iscrowd": 0,
        }


def load_scenes(
    split: str,
    *,
    count: int,
    seed: int = 0,
    image_size: int = IMAGE_SIZE,
    cache: Path = CACHE / "scenes",
) -> Scenes:
    """Compose scenes, or read them if they have been composed before.

    Scene i depends on (seed, split, i) alone: a larger set begins with a smaller one's scenes.

    Args:
        split: ``train`` or ``test``; no scan is in both.
        count: Number of scenes.
        seed: Of all draws.
        image_size: Height and width in pixels.
        cache: Folder of composed sets.

    Raises:
        UserError: The split is unknown, a number is too small, or a cached file is damaged.
    """
    if split not in SPLITS:
        raise UserError(f"split {split!r} is unknown; use train or test")
    for name, value, least in (
        ("count", count, 1),
        ("seed", seed, 0),
        ("image_size", image_size, MIN_IMAGE_SIZE),
    ):
        if value < least:
            raise UserError(f"{name} is {value}; scenes need at least {least}")
    scans, digits = read_scans()
    # What the bytes follow from: the digits, the program, and the numbers asked for.
    content = hashlib.sha256(scans.tobytes() + Path(compose.__file__).read_bytes())
    content.update(f"{split} {count} {seed} {image_size}".encode())
    path = cache / f"{split}_{content.hexdigest()[:16]}.npz"
    if path.is_file():
        return _read(path)
    pool = scan_pools(scans, digits)[split]
    key = [seed, SPLITS.index(split)]
    made = [
        compose_scene(scans, digits, pool, image_size, np.random.default_rng([*key, index]))
        for index in range(count)
    ]
    scenes = _stack(made)
    check_keypoints(scenes.keypoints_xy, scenes.visibility(), (image_size, image_size))
    _write(scenes, path)
    return scenes


def read_scans() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's digits: scans (1797, 8, 8) with levels 0 to 16, and digits (1797,)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images.astype(np.int64), bunch.target.astype(np.int64)


def scan_pools(scans: np.ndarray, digits: np.ndarray) -> dict[str, np.ndarray]:
    """Divide the scans as in classification; a training scan that equals a test one is left out.

    Args:
        scans: (N, 8, 8).
        digits: (N,).

    Returns:
        Indices by split.
    """
    is_test = held_out_digits(digits)
    test = {scan.tobytes() for scan in scans[is_test]}
    is_twin = np.array([scan.tobytes() in test for scan in scans])
    return {"train": np.flatnonzero(~is_twin), "test": np.flatnonzero(is_test)}


def _stack(scenes: list[Scene]) -> Scenes:
    def padded(name: str) -> np.ndarray:
        arrays = [getattr(scene, name) for scene in scenes]
        whole = np.full((len(arrays), DIGITS_PER_SCENE[1], *arrays[0].shape[1:]), -1, np.int64)
        for index, array in enumerate(arrays):
            whole[index, : len(array)] = array
        return whole

    return Scenes(
        images=np.stack([scene.image for scene in scenes]),
        labels=np.stack([scene.labels for scene in scenes]),
        instances=np.stack([scene.instances for scene in scenes]),
        digits=padded("digits"),
        sources=padded("sources"),
        keypoints_xy=padded("keypoints_xy"),
        boxes_xywh=padded("boxes_xywh"),
    )


def _read(path: Path) -> Scenes:
    damaged = f"{path} is damaged: remove it, and its scenes are composed again"
    names = [field.name for field in fields(Scenes)]
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > LARGEST_BYTES:
                raise ValueError("unpacked it is larger than any set of scenes")
        with np.load(path, allow_pickle=False) as stored:
            scenes = Scenes(**{name: stored[name] for name in names})
            expected = str(stored["sha256"])
    except Exception as error:  # numpy and zipfile raise many types on damaged bytes
        raise UserError(damaged) from error
    if scenes.sha256 != expected:
        raise UserError(damaged)
    return scenes


def _write(scenes: Scenes, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = np.array(scenes.sha256)
    with whole(path) as partial, partial.open("wb") as file:  # another job never reads half of it
        np.savez_compressed(file, allow_pickle=False, sha256=digest, **scenes.arrays())
