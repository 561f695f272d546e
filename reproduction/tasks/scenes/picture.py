"""Draw scenes above their labels: `python -m reproduction.tasks.scenes.picture OUT.png`.

They are those that studies train on; ``docs/scenes.png`` was made by it.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from reproduction.errors import UserError
from reproduction.tasks.scenes.dataset import NUM_CLASSES, SPLITS, Scenes, load_scenes
from reproduction.tasks.scenes.plans import SCENE_PX

ENLARGED = 3
DOT_PX = 3
BACKGROUND = (30, 30, 30)


def draw_scenes(scenes: Scenes, count: int = 6) -> Image.Image:
    """Put the first scenes side by side, above their label maps with boxes and keypoints.

    Args:
        scenes: At least one.
        count: Scenes at most.
    """
    columns = [_draw_scene(scenes, index) for index in range(min(count, len(scenes.images)))]
    return Image.fromarray(np.concatenate(columns, axis=1))


def _draw_scene(scenes: Scenes, index: int) -> np.ndarray:
    colors = [ImageColor.getrgb(f"hsl({36 * digit}, 65%, 50%)") for digit in range(NUM_CLASSES - 1)]
    palette = np.array([BACKGROUND, *colors], dtype=np.uint8)
    image, label_map = (
        array.repeat(ENLARGED, axis=0).repeat(ENLARGED, axis=1)
        for array in (scenes.images[index], palette[scenes.labels[index]])
    )
    drawn = Image.fromarray(label_map)
    pen = ImageDraw.Draw(drawn)
    for place in np.flatnonzero(scenes.digits[index] >= 0):
        left, top, width, height = (ENLARGED * int(n) for n in scenes.boxes_xywh[index, place])
        pen.rectangle((left, top, left + width - 1, top + height - 1), outline="gray")
        for x, y in ENLARGED * scenes.keypoints_xy[index, place] + ENLARGED // 2:
            pen.ellipse((x - DOT_PX, y - DOT_PX, x + DOT_PX, y + DOT_PX), fill="white")
    return np.concatenate([image, np.asarray(drawn)])


def main(arguments: list[str] | None = None) -> int:
    """Write the picture; 2 if it cannot be drawn or written."""
    parser = argparse.ArgumentParser(prog="reproduction.tasks.scenes.picture", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=6)
    options = parser.parse_args(arguments)
    count, seed = options.count, options.seed
    try:
        scenes = load_scenes(options.split, count=count, seed=seed, image_size=SCENE_PX)
        draw_scenes(scenes, count).save(options.out)
    except (UserError, OSError, ValueError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
