"""Networks as ONNX files: `python -m reproduction.export --network NAME --out FILE.onnx`.

What is written is the deploy form: folded, eval only, any batch size, one image size. The weights
are stored in the file itself. A file is written whole or not at all, after onnx.checker has passed
it.
"""

import argparse
import hashlib
import io
import sys
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reproduction.checkpoints import load_checkpoint
from reproduction.deploy import DeployForm, fold
from reproduction.errors import UserError
from reproduction.networks import build_network

OPSET = 20
BATCH = "batch"
IMAGES = "images"


def export_onnx(
    model: nn.Module, example: torch.Tensor, path: str | Path, *, network: str = ""
) -> Path:
    """Write the deploy form of a network as an ONNX file, whole or not at all.

    Args:
        model: A network, or a deploy form of one in float32.
        example: (B, C, H, W), B at least 2; only H and W are fixed in the file.
        path: The file to write; its folder must exist.
        network: Name to note in the file.

    Returns:
        The path.

    Raises:
        UserError: The folder is missing, or the network cannot be folded or exported.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise UserError(f"folder {path.parent} does not exist; make it, or give another --out")
    form = model if isinstance(model, DeployForm) else fold(model)
    content = _content(form, example, network)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _content(form: DeployForm, example: torch.Tensor, network: str) -> bytes:
    """Return the checked bytes of an ONNX file."""
    import onnx

    proto = _traced(form, example).model_proto
    facts = {
        "network": network,
        "weights_sha256": weights_sha256(form),
        "opset": str(OPSET),
        "precision": "float32",
        "image_size": "x".join(str(side) for side in example.shape[-2:]),
    }
    onnx.helper.set_model_props(proto, facts)
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString()


def _traced(form: DeployForm, example: torch.Tensor) -> Any:
    sizes = {0: torch.export.Dim(BATCH, min=1)}
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        return torch.onnx.export(
            form,
            (example,),
            input_names=[IMAGES],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=(sizes,),
            verbose=False,
        )


def weights_sha256(model: nn.Module) -> str:
    """Digest all names and values of a network's state."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; a user's mistake becomes one sentence and exit status 2."""
    parser = argparse.ArgumentParser(prog="python -m reproduction.export", description=__doc__)
    parser.add_argument("--network", required=True, help="official name, e.g. cls_hrnet_w18")
    parser.add_argument("--weights", help="weights file; random weights unless given")
    parser.add_argument("--image-size", type=int, nargs="+", default=[224], help="H, or H W")
    parser.add_argument("--batch", type=int, default=2, help="batch of the example")
    parser.add_argument("--out", required=True, help="the ONNX file to write")
    given = parser.parse_args(arguments)
    try:
        model = build_network(given.network)
        if given.weights:
            load_checkpoint(model, given.weights)
        height, width = given.image_size[0], given.image_size[-1]
        example = torch.zeros(given.batch, 3, height, width)
        print(export_onnx(model, example, given.out, network=given.network))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
