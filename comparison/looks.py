"""How the sides look in every figure: the same colors, markers and lines, whatever is drawn."""

from typing import Any

COLORS = {"paper": "#7a7f85", "reference": "#1f63b4", "reproduction": "#e07b16"}
MARKERS = {"paper": "o", "reference": "s", "reproduction": "^"}
DASHES: dict[str, Any] = {"reference": "", "reproduction": (3, 1.2)}
COLUMN_IN = 3.33
WIDTHS = {"reference": 1.9, "reproduction": 0.8}  # equal curves show as one on the other
SHADE = "#e8eaed"
DARK = "#3c4043"
# Arms whose speed is compared, beside the two above.
ARM_COLORS = {
    **COLORS,
    "timm": "#7fa3d8",
    "fast": "#a8201a",
    "deploy": "#a8201a",
    "folded": "#caa02c",
    "openvino": "#2f7d4f",
    "onnxruntime": "#7a4fa3",
    "torch_compile": "#3c4043",
    "cuda": "#3c4043",
}
ARM_MARKERS = {
    **MARKERS,
    "timm": "D",
    "fast": "v",
    "deploy": "P",
    "folded": "<",
    "openvino": "o",
    "onnxruntime": "X",
    "torch_compile": "*",
    "cuda": "p",
}
