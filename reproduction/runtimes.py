"""What runs a deploy form: PyTorch itself, its compiler, ONNX Runtime, OpenVINO, a CUDA device.

All are called alike: float32 images in, float32 outputs out, PyTorch tensors on both sides. The
runtimes read and write the tensors' own memory. Which one is used where nobody asks for one was
measured and is committed in `runtimes.toml` (`python -m reproduction.runtime_choice`); it is never
decided at run time. No runtime reports anything to its makers.
"""

import hashlib
import importlib.util
import os
import shutil
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
from reproduction.export import BATCH, IMAGES, export_onnx

RUNTIMES = ("eager", "torch_compile", "onnxruntime", "openvino", "cuda")
PRECISIONS = ("float32", "bfloat16")
CHOICE = Path(__file__).with_name("runtimes.toml")
FROM_FILE = ("onnxruntime", "openvino")
_COMPILERS = {"darwin": "clang++"}  # what PyTorch's inductor calls, unless CXX names another
_HINTS = {"float32": "f32", "bfloat16": "bf16"}  # OpenVINO's words

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
    if runtime == "torch_compile":
        compiler = os.environ.get("CXX") or _COMPILERS.get(sys.platform, "g++")
        found = shutil.which(compiler)
        return "" if found else f"torch.compile needs the C++ compiler {compiler}, which is missing"
    if runtime in FROM_FILE and not _is_installed(runtime):
        return f"the package {runtime} is not installed; requirements.lock lists it"
    if runtime == "onnxruntime" and precision == "bfloat16":
        return "ONNX Runtime has no bfloat16 convolution for processors; use float32 or openvino"
    if runtime == "openvino" and precision == "bfloat16":
        has = "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return "" if has else "this processor has no bfloat16 arithmetic; use float32"
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
        model: A network, or its deploy form in float32; it stays as it is.
        example: (B, C, H, W) float32: only its shape matters.
        runtime: One of `RUNTIMES`.
        precision: ``float32`` or ``bfloat16``: the arithmetic inside.
        threads: Threads of ONNX Runtime and OpenVINO, by default PyTorch's number. The others
            have PyTorch's.

    Returns:
        A function from images of that shape to the output, or the tuple of outputs, in float32.

    Raises:
        UserError: The runtime or precision cannot be used here; says why.
    """
    _require(runtime, precision)
    if runtime in FROM_FILE:
        with tempfile.TemporaryDirectory() as folder:
            path = export_onnx(model, example, Path(folder) / "network.onnx")
            return load_file(path, example, runtime, precision=precision, threads=threads)
    form = fold(model.network if isinstance(model, DeployForm) else model, precision)
    make = {"eager": _eager, "torch_compile": _compiled, "cuda": _on_accelerator}[runtime]
    return _for_shape_of(example, make(form, example))


def load_file(
    path: Path,
    example: torch.Tensor,
    runtime: str,
    *,
    precision: str = "float32",
    threads: int | None = None,
) -> Predict:
    """Prepare an exported file, as `load` does with a network, in a runtime that reads files.

    Raises:
        UserError: The runtime or precision cannot be used here, or reads no files.
    """
    _require(runtime, precision)
    if runtime not in FROM_FILE:
        raise UserError(f"runtime {runtime} reads no file; use {' or '.join(FROM_FILE)}")
    threads = threads or torch.get_num_threads()
    if runtime == "openvino":
        return _for_shape_of(example, _openvino(path, example, _HINTS[precision], threads))
    return _for_shape_of(example, _onnxruntime(path, example, threads))


def deploy(model: nn.Module, example: torch.Tensor, precision: str = "float32") -> Predict:
    """Prepare a network in the runtime that was measured to be the fastest.

    Args:
        model: A network, or its deploy form in float32.
        example: (B, C, H, W) float32: only its shape matters.
        precision: ``float32`` or ``bfloat16``.

    Raises:
        UserError: That runtime cannot be used here; says why.
    """
    return load(model, example, chosen(precision), precision=precision)


def chosen(precision: str) -> str:
    """Return the runtime that the committed table has for a precision."""
    if precision not in PRECISIONS:
        raise UserError(f"precision {precision!r} is unknown; use {' or '.join(PRECISIONS)}")
    return tomllib.loads(CHOICE.read_text(encoding="utf-8"))["chosen"][precision]


def choice_sha256() -> str:
    """Return the SHA-256 of the committed table of `chosen`."""
    return hashlib.sha256(CHOICE.read_bytes()).hexdigest()


def _require(runtime: str, precision: str) -> None:
    if reason := unavailable(runtime, precision):
        raise UserError(f"runtime {runtime} in {precision} cannot be used: {reason}")


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _for_shape_of(example: torch.Tensor, run: Predict) -> Predict:
    """Refuse images of another shape or type than what a runtime was prepared for."""
    shape = example.shape

    def predict(images: torch.Tensor) -> Outputs:
        if images.shape != shape or images.dtype != torch.float32:
            raise UserError(
                f"images are {images.dtype} of shape {tuple(images.shape)}; this was prepared for "
                f"torch.float32 of shape {tuple(shape)}: load it again for these images"
            )
        return run(images)

    return predict


def _eager(form: nn.Module, example: torch.Tensor) -> Predict:
    return torch.inference_mode()(form)


def _compiled(form: nn.Module, example: torch.Tensor) -> Predict:
    """Compile with the weights as constants; it takes minutes for a whole network."""
    from torch._inductor import config

    run = torch.inference_mode()(torch.compile(form))
    with config.patch(freezing=True):
        run(torch.zeros_like(example))
    return run


def _on_accelerator(form: nn.Module, example: torch.Tensor) -> Predict:
    """Compile for a CUDA device; ``max-autotune`` replays the whole network as a CUDA graph."""
    run = torch.inference_mode()(torch.compile(form.to("cuda"), mode="max-autotune"))

    def predict(images: torch.Tensor) -> Outputs:
        outputs = run(images.to("cuda", non_blocking=True))
        if isinstance(outputs, torch.Tensor):
            return outputs.to(images.device, copy=True)  # the graph writes there again
        return tuple(output.to(images.device, copy=True) for output in outputs)

    return predict


def _onnxruntime(path: Path, example: torch.Tensor, threads: int) -> Predict:
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_free_dimension_override_by_name(BATCH, example.shape[0])
    # Idle threads must not keep a core from what runs next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    shapes = {output.name: tuple(output.shape) for output in session.get_outputs()}
    binding = session.io_binding()

    def predict(images: torch.Tensor) -> Outputs:
        images = images.detach().contiguous()
        outputs = [torch.empty(shape) for shape in shapes.values()]
        binding.bind_input(IMAGES, "cpu", 0, np.float32, images.shape, images.data_ptr())
        for name, y in zip(shapes, outputs, strict=True):
            binding.bind_output(name, "cpu", 0, np.float32, y.shape, y.data_ptr())
        session.run_with_iobinding(binding)
        return _one_or_tuple(outputs)

    return predict


def _core() -> Any:
    """Return OpenVINO's core, without its telemetry.

    `import openvino` alone reports to its makers, through the package openvino_telemetry, and
    keeps quiet where that package is missing: so it is made to be missing in this process.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino.Core()


def _openvino(path: Path, example: torch.Tensor, hint: str, threads: int) -> Predict:
    """Compile; a batch that all threads can share is cut, one part for each (2-4 % faster)."""
    core = _core()
    import openvino

    batch = len(example)
    parts = 1 if batch % threads else threads
    network = core.read_model(path)
    network.reshape([batch // parts, *example.shape[1:]])
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": hint,  # by itself it takes bfloat16 where there is some
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": parts,
    }
    compiled = core.compile_model(network, "CPU", settings)
    requests = [compiled.create_infer_request() for _ in range(parts)]
    shapes = [(batch, *tuple(output.shape)[1:]) for output in compiled.outputs]

    def predict(images: torch.Tensor) -> Outputs:
        outputs = [torch.empty(shape) for shape in shapes]
        tensors = (images.detach().contiguous(), *outputs)
        cut = [tensor.chunk(parts) for tensor in tensors]
        for number, request in enumerate(requests):
            x, *ys = (openvino.Tensor(t[number].numpy(), shared_memory=True) for t in cut)
            request.set_input_tensor(x)
            for index, y in enumerate(ys):
                request.set_output_tensor(index, y)
            request.start_async()
        for request in requests:
            request.wait()
        return _one_or_tuple(outputs)

    return predict


def _one_or_tuple(outputs: list[torch.Tensor]) -> Outputs:
    return outputs[0] if len(outputs) == 1 else tuple(outputs)
