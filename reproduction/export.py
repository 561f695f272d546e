"""Networks as ONNX files: `python -m reproduction.export --network NAME --out FILE.onnx`.

What is written is the deploy form in float32: folded, eval only, for one image size and any batch
size. The weights are in the file itself. A file is written whole or not at all, after onnx.checker
has passed it, and says which network it holds and the digest of its weights.
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
from torch._subclasses.fake_tensor import FakeTensorMode

from reproduction.checkpoints import load_checkpoint
from reproduction.config import network_config
from reproduction.deploy import DeployForm, fold
from reproduction.durable import write_whole
from reproduction.errors import UserError
from reproduction.networks import build_network

OPSET = 20
BATCH = "batch"
IMAGES = "images"


def export_onnx(
    model: nn.Module,
    example: torch.Tensor,
    path: str | Path,
    *,
    network: str = "",
    batch: int | None = None,
) -> Path:
    """Write the deploy form of a network as an ONNX file, whole or not at all.

    Args:
        model: A network, or its deploy form in float32; it stays as it is.
        example: (B, C, H, W): C, H and W are fixed in the file.
        path: The file to write; its folder must exist.
        network: Name to note in the file.
        batch: The one batch size that the file takes; any unless given.

    Returns:
        The path.

    Raises:
        UserError: The folder is missing, or the network cannot be folded or exported.
    """
    path = Path(path)
    if not path.parent.is_dir() or path.is_dir():
        raise UserError(f"{path} cannot be written: give a file in a folder that exists")
    form = model if isinstance(model, DeployForm) else fold(model)
    if form.dtype != torch.float32:
        raise UserError(f"the deploy form is in {form.dtype}; export one in float32")
    content = _content(form, example, network, batch)
    write_whole(path, content)
    return path


def weights_sha256(model: nn.Module) -> str:
    """Digest the names, shapes and float32 values of a network's state."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _content(form: DeployForm, example: torch.Tensor, network: str, batch: int | None) -> bytes:
    """Return the checked bytes of an ONNX file."""
    import onnx

    # A batch of one would be taken for a constant.
    images = torch.zeros(batch or 2, *example.shape[1:])
    with FakeTensorMode(allow_non_fake_inputs=True):
        form(images)  # what the network does not take ends here, in its own sentence
    proto = _traced(form, images, batch).model_proto
    facts = {
        "network": network,
        "weights_sha256": weights_sha256(form),
        "opset": str(OPSET),
        "precision": "float32",
        "batch": str(batch or "any"),
        "image_size": "x".join(str(side) for side in example.shape[-2:]),
    }
    onnx.helper.set_model_props(proto, facts)
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString()


def _traced(form: DeployForm, images: torch.Tensor, batch: int | None) -> Any:
    """Trace a form; the exporter's chatter is kept back.

    Raises:
        UserError: The exporter cannot express the network.
    """
    sizes = None if batch else ({0: torch.export.Dim(BATCH)},)
    quiet = redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO())
    try:
        with warnings.catch_warnings(), quiet[0], quiet[1]:
            warnings.simplefilter("ignore")
            return torch.onnx.export(
                form,
                (images,),
                input_names=[IMAGES],
                opset_version=OPSET,
                dynamo=True,
                dynamic_shapes=sizes,
                verbose=False,
            )
    except Exception as error:  # the exporter raises many types
        said = str(error).strip().partition("\n")[0]
        raise UserError(
            f"a {type(form.network).__name__} cannot be written as ONNX ({type(error).__name__}: "
            f"{said}): run it in PyTorch"
        ) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; a user's mistake becomes one sentence and exit status 2."""
    parser = argparse.ArgumentParser(prog="python -m reproduction.export", description=__doc__)
    parser.add_argument("--network", required=True, help="official name, e.g. cls_hrnet_w18")
    parser.add_argument("--classes", type=int, help="the official number unless given")
    parser.add_argument("--weights", help="weights file; random weights of seed 0 unless given")
    parser.add_argument(
        "--image-size", type=int, nargs="+", help="side, or H W; the network's own unless given"
    )
    parser.add_argument("--batch", type=int, help="the one batch size of the file; any by default")
    parser.add_argument("--out", required=True, help="the ONNX file to write")
    try:
        print(_export(parser.parse_args(arguments)))
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _export(given: argparse.Namespace) -> Path:
    size = given.image_size or network_config(given.network).image_size
    height, width = size[0], size[-1]
    if len(size) > 2 or min(height, width) < 1 or (given.batch or 1) < 1:
        raise UserError(
            f"image size {size} and batch {given.batch}: give one or two numbers of "
            "pixels and a batch, all at least 1"
        )
    torch.manual_seed(0)
    model = build_network(given.network, num_classes=given.classes)
    if given.weights:
        load_checkpoint(model, given.weights)
    else:
        print("note: no --weights, so that the weights are random", file=sys.stderr)
    example = torch.zeros(1, 3, height, width)
    return export_onnx(model, example, given.out, network=given.network, batch=given.batch)


if __name__ == "__main__":
    sys.exit(main())
