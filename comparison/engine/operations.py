"""What PyTorch's functions are called: one name for one operation, however it is written."""

from typing import Any

from torch.overrides import resolve_name

# Names that are one operation: in place or not, as a method, a function or an operator.
_SAME = {
    "iadd": "add",
    "radd": "add",
    "isub": "sub",
    "imul": "mul",
    "rmul": "mul",
    "itruediv": "div",
    "truediv": "div",
    "rsub": "sub",
    "upsample": "interpolate",
    "clamp_min": "relu",
    "threshold": "relu",
    "flatten": "reshape",
    "view": "reshape",
    "unsqueeze": "reshape",
    "squeeze": "reshape",
}
_SKIPPED = ("__set__", "register_hook", "requires_grad_", "backward", "__deepcopy__")

_OPERATIONS: dict[Any, str] = {}


def operation(func: Any) -> str:
    """Name an operation; empty for what computes nothing, such as reading a shape."""
    try:
        return _OPERATIONS[func]
    except KeyError:
        _OPERATIONS[func] = name = _operation_name(func)
        return name
    except TypeError:
        return ""


def _operation_name(func: Any) -> str:
    full = resolve_name(func) or getattr(func, "__qualname__", "") or ""
    last = full.rpartition(".")[2]
    if last == "__get__":
        attribute = full.split(".")[-2]
        return attribute if attribute in ("data", "T", "mT", "H", "mH", "real", "imag") else ""
    if last in _SKIPPED or last.startswith("has_torch"):
        return ""
    plain = last.strip("_")
    return _SAME.get(plain, plain)
