"""Tiny folders in the layouts of the real data sets: images of a few pixels, drawn by seed."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

PERSON = {"category_id": 1, "iscrowd": 0}


def write_image(path: Path, width: int = 40, height: int = 30, seed: int = 0) -> Path:
    """Write an image; jpg or png by its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_labels(path: Path, labels: np.ndarray) -> Path:
    """Write a label map as png."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels.astype(np.uint8)).save(path)
    return path


def keypoints(count: int, annotated: int, seed: int = 0) -> list[float]:
    """Return COCO's triples, of which the first are annotated, within 40 x 30 pixels."""
    points = np.random.default_rng(seed).integers(0, 30, (count, 2))
    visible = np.where(np.arange(count) < annotated, 2, 0)
    return np.column_stack([points * (visible > 0)[:, None], visible]).ravel().tolist()


def coco(folder: Path, persons: int = 3) -> Path:
    """Make train and val of 2017: `persons` in two images, one without keypoints, one crowd."""
    for split in ("train", "val"):
        files = [f"{number:012d}.jpg" for number in (7, 9)]
        for seed, name in enumerate(files):
            write_image(folder / "images" / f"{split}2017" / name, seed=seed)
        people = [
            {
                **{**PERSON, "id": n + 1, "image_id": (7, 9)[n % 2], "num_keypoints": 12},
                **{"bbox": [2.0 + n, 1.0, 20.0, 25.0], "keypoints": keypoints(17, 12, n)},
                "area": 300.0,
            }
            for n in range(persons)
        ]
        empty = {**people[0], "id": 90, "num_keypoints": 0, "keypoints": [0] * 51}
        crowd = {**people[0], "id": 91, "iscrowd": 1}
        content = {
            "images": [
                {"id": number, "file_name": name, "width": 40, "height": 30}
                for number, name in zip((7, 9), files, strict=True)
            ],
            "categories": [{"id": 1, "name": "person", "keypoints": [f"k{n}" for n in range(17)]}],
            "annotations": [*people, empty, crowd],
        }
        path = folder / "annotations" / f"person_keypoints_{split}2017.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return folder


def mpii(folder: Path, persons: int = 2) -> Path:
    """Make train and valid of persons in one image each, and gt_valid.mat."""
    points = np.random.default_rng(0).integers(1, 30, (persons, 16, 2)).astype(float)
    visible = np.ones((persons, 16), int)
    visible[0, 3], points[0, 3] = 0, -1
    entries = []
    for n in range(persons):
        write_image(folder / "images" / f"{n:09d}.jpg", seed=n)
        entries.append(
            {
                **{"image": f"{n:09d}.jpg", "center": [20.0, 15.0], "scale": 0.15},
                **{"joints": points[n].tolist(), "joints_vis": visible[n].tolist()},
            }
        )
    (folder / "annot").mkdir(parents=True, exist_ok=True)
    for split in ("train", "valid"):
        (folder / "annot" / f"{split}.json").write_text(json.dumps(entries))
    content = {
        "pos_gt_src": points.transpose(1, 2, 0),
        "jnt_missing": 1 - visible.T,
        "headboxes_src": np.tile(np.array([[[5.0], [5.0]], [[8.0], [9.0]]]), (1, 1, persons)),
    }
    savemat(folder / "annot" / "gt_valid.mat", content)
    return folder


def faces(folder: Path, name: str, landmarks: int, count: int = 3) -> Path:
    """Make train, valid and test of a set of landmarks."""
    size = ["box_size"] if name == "aflw" else []
    header = ["image_name", "scale", *size, "center_w", "center_h"]
    header += [f"original_{n}_{axis}" for n in range(landmarks) for axis in "xy"]
    lines = [",".join(header)]
    for n in range(count):
        points = np.random.default_rng(n).uniform(2, 28, 2 * landmarks).round(2)
        write_image(folder / "images" / "a" / f"{n}.jpg", seed=n)
        box = [0.14, *([24.0] if size else []), 18.0, 15.0]
        lines.append(",".join([f"a/{n}.jpg", *(f"{value}" for value in [*box, *points])]))
    for split in ("train", "valid", "test"):
        text = "\n".join(lines) + "\n"
        (folder / f"face_landmarks_{name}_{split}.csv").write_text(text)
    return folder


def cityscapes(folder: Path) -> Path:
    """Make two images of train and one of val, with raw labels 0 to 33."""
    for split, city, count in (("train", "ulm", 2), ("val", "bonn", 1)):
        for n in range(count):
            shot = f"{city}_00000{n}_000019"
            place = Path(split) / city
            write_image(folder / "leftImg8bit" / place / f"{shot}_leftImg8bit.png", 64, 32, n)
            labels = np.arange(32 * 64).reshape(32, 64) // 60 % 34
            write_labels(folder / "gtFine" / place / f"{shot}_gtFine_labelIds.png", labels)
            write_labels(folder / "gtFine" / place / f"{shot}_gtFine_color.png", labels)
    return folder


def equal_names(folder: Path, places: dict[str, tuple[str, str]], top: int) -> Path:
    """Make ADE20K's or LIP's folders, with two images of labels 0 to `top` each."""
    for images, labels in places.values():
        for n in range(2):
            write_image(folder / images / f"{n:08d}.jpg", seed=n)
            numbers = np.arange(30 * 40).reshape(30, 40) % (top + 1)
            write_labels(folder / labels / f"{n:08d}.png", numbers)
    return folder


def context(folder: Path) -> Path:
    """Make PASCAL-Context: 70 labels, of which every one from 5 to 63 is a class."""
    names = [f"thing {n}" for n in range(1, 71)]
    names[4] = "table"  # what the list of classes calls diningtable
    chosen = ["diningtable", *(name.replace(" ", "") for name in names[5:63])]
    (folder / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
    (folder / "trainval").mkdir(exist_ok=True)
    for file, lines in (("labels.txt", names), ("59_labels.txt", chosen)):
        text = "".join(f"{n}: {name}\n" for n, name in enumerate(lines, 1))
        (folder / file).write_text(text)
    for split, number in (("train", "2008_000002"), ("val", "2008_000003")):
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text(f"{number}\n")
        write_image(folder / "JPEGImages" / f"{number}.jpg")
        labels = np.arange(30 * 40, dtype=np.uint16).reshape(30, 40) % 70 + 1
        savemat(folder / "trainval" / f"{number}.mat", {"LabelMap": labels})
    return folder
