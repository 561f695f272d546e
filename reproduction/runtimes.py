"""What runs a deploy form: PyTorch itself, its compiler, ONNX Runtime, OpenVINO, a CUDA device.

All are called alike: float32 images in, float32 outputs out, PyTorch tensors on both sides. Inputs
and outputs are handed over without copies. Which one is used where nobody asks for one was
measured and is committed in `runtimes.toml`; it is never decided at run time.
"""

import importlib.util
import sys
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reproduction.deploy import DeployForm, fold
from reproduction.errors import UserError
from reproduction.export import IMAGES, export_onnx

RUNTIMES = ("eager", "torch_compile", "onnxruntime", "openvino", "cuda")
PRECISIONS = ("float32", "bfloat16")
FILE = Path(__file__).with_name("runtimes.toml")
EXPORTED = ("onnxruntime", "openvino")  # these run an ONNX file
_OV_PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}

Outputs = torch.Tensor | tuple[torch.Tensor, ...]
Predict = Callable[[torch.Tensor], Outputs]


def unavailable(runtime: str, precision: str = "float32") -> str:
    """Say in one sentence why a runtime cannot be used here; empty if it can.

    Raises:
        UserError: The runtime or the precision is unknown.
    """
    if runtime not in RUNTIMES:
        raise UserError(f"runtime {runtime!r} is unknown; use one of {', '.join(RUNTIMES)}")
    if precision not in PRECISIONS:
        raise UserError(f"precision {precision!r} is unknown; use {' or '.join(PRECISIONS)}")
    if runtime == "cuda":
        return "" if torch.cuda.is_available() else "this machine has no CUDA device"
    if runtime in EXPORTED and importlib.util.find_spec(runtime) is None:
        return f"{runtime} is not installed; install the packages of requirements.lock"
    if runtime == "onnxruntime" and precision == "bfloat16":
        return "ONNX Runtime has no bfloat16 convolution for this processor; use float32"
    if runtime == "openvino" and precision == "bfloat16":
        capabilities = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return "" if "BF16" in capabilities else "this processor has no bfloat16; use float32"
    return ""


def load(
    model: nn.Module,
    example: torch.Tensor,
    runtime: str,
    *,
    precision: str = "float32",
    threads: int | None = None,
) -> Predict:
    """Prepare a network for prediction on images of one shape.

    Args:
        model: A network, or its deploy form in float32.
        example: (B, C, H, W) float32: the shape that will be run.
        runtime: One of `RUNTIMES`.
        precision: ``float32`` or ``bfloat16``: the arithmetic inside.
        threads: Threads of the processor; PyTorch's number unless given. PyTorch's own runtimes
            always use PyTorch's.

    Returns:
        A function from images of that shape to the output, or the tuple of outputs, in float32.

    Raises:
        UserError: The runtime or precision cannot be used here; says why.
    """
    reason = unavailable(runtime, precision)
    if reason:
        raise UserError(f"runtime {runtime} with {precision} cannot be used: {reason}")
    threads = threads or torch.get_num_threads()
    if runtime in EXPORTED:
        with tempfile.TemporaryDirectory() as folder:
            path = export_onnx(model, example, Path(folder) / "network.onnx")
            return load_file(path, example, runtime, precision=precision, threads=threads)
    form = fold(_network(model), precision)
    if runtime == "torch_compile":
        return _compiled(form)
    return _on_accelerator(form, example) if runtime == "cuda" else _eager(form)


def load_file(
    path: Path,
    example: torch.Tensor,
    runtime: str,
    *,
    precision: str = "float32",
    threads: int,
) -> Predict:
    """Prepare an ONNX file for prediction, as `load` does with a network."""
    if runtime == "openvino":
        return _openvino(path, example, precision, threads)
    return _onnxruntime(path, example, threads)


def deploy(model: nn.Module, example: torch.Tensor, precision: str = "float32") -> Predict:
    """Prepare a network in the runtime that the committed measurement chose."""
    return load(model, example, chosen(precision), precision=precision)


def chosen(precision: str) -> str:
    """Return the runtime that the committed table has for a precision."""
    return tomllib.loads(FILE.read_text(encoding="utf-8"))["chosen"][precision]


def _network(model: nn.Module) -> nn.Module:
    return model.network if isinstance(model, DeployForm) else model


def _eager(form: nn.Module) -> Predict:
    def predict(images: torch.Tensor) -> Outputs:
        with torch.inference_mode():
            return form(images)

    return predict


def _compiled(form: nn.Module) -> Predict:
    import torch._inductor.config as inductor

    with inductor.patch(freezing=True):
        return _eager(torch.compile(form))


def _on_accelerator(form: nn.Module, example: torch.Tensor) -> Predict:
    """Compile for a CUDA device; "max-autotune" records CUDA graphs."""
    run = _eager(torch.compile(form.to("cuda"), mode="max-autotune"))

    def predict(images: torch.Tensor) -> Outputs:
        return run(images.to("cuda", non_blocking=True))

    return predict


def _onnxruntime(path: Path, example: torch.Tensor, threads: int) -> Predict:
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_free_dimension_override_by_name("batch", example.shape[0])
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    shapes = {output.name: tuple(output.shape) for output in session.get_outputs()}
    binding = session.io_binding()

    def predict(images: torch.Tensor) -> Outputs:
        images = _checked(images, example)
        outputs = [torch.empty(shape) for shape in shapes.values()]
        binding.bind_input(IMAGES, "cpu", 0, np.float32, images.shape, images.data_ptr())
        for name, y in zip(shapes, outputs, strict=True):
            binding.bind_output(name, "cpu", 0, np.float32, y.shape, y.data_ptr())
        session.run_with_iobinding(binding)
        return _alone_or_tuple(outputs)

    return predict


def _core() -> Any:
    """Return OpenVINO's core, its telemetry left out.

    Importing openvino reports the import to its makers. It does without where the package
    openvino_telemetry cannot be imported, so that is what it finds.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino.Core()


def _openvino(path: Path, example: torch.Tensor, precision: str, threads: int) -> Predict:
    core = _core()
    import openvino

    model = core.read_model(path)
    model.reshape(list(example.shape))
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": _OV_PRECISIONS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
    }
    compiled = core.compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()
    shapes = [tuple(output.shape) for output in compiled.outputs]

    def predict(images: torch.Tensor) -> Outputs:
        images = _checked(images, example)
        outputs = [torch.empty(shape) for shape in shapes]
        request.set_input_tensor(openvino.Tensor(images.numpy(), shared_memory=True))
        for index, y in enumerate(outputs):
            request.set_output_tensor(index, openvino.Tensor(y.numpy(), shared_memory=True))
        request.infer()
        return _alone_or_tuple(outputs)

    return predict


def _checked(images: torch.Tensor, example: torch.Tensor) -> torch.Tensor:
    if images.shape != example.shape or images.dtype != torch.float32:
        raise UserError(
            f"images are {images.dtype} of shape {tuple(images.shape)}; this was prepared for "
            f"torch.float32 of shape {tuple(example.shape)}: load it again for this shape"
        )
    return images.detach().contiguous()


def _alone_or_tuple(outputs: list[torch.Tensor]) -> Outputs:
    return outputs[0] if len(outputs) == 1 else tuple(outputs)
