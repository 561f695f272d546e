"""Error measures between two tensors of one shape: pure functions, each with an example.

They are relative to the reference, so that one bound serves tensors of any scale. What they mean
for a verdict is decided in `comparison.engine.verdict`.
"""

import math

import torch

PART = 2**21  # entries of a tensor that are worked on at once
_BITS = {torch.float64: torch.int64, torch.float32: torch.int32}


def l2_error(reference: torch.Tensor, candidate: torch.Tensor) -> float:
    """Return |candidate - reference| / |reference| in the Euclidean norm.

    >>> l2_error(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 5.0]))
    0.2
    """
    return ratio(norm(candidate - reference), norm(reference))


def cosine(reference: torch.Tensor, candidate: torch.Tensor) -> float:
    """Return the cosine between two tensors, from their norms and that of their difference.

    Ratios of norms neither underflow nor meet an absolute epsilon, in which tiny gradients would
    be lost. Two zeros have cosine 1, one zero 0.

    >>> cosine(torch.tensor([1e-30, 0.0]), torch.tensor([1e-30, 0.0]))
    1.0
    >>> round(cosine(torch.tensor([3.0, 4.0]), torch.tensor([4.0, 3.0])), 6)
    0.96
    """
    return cosine_of_norms(norm(reference), norm(candidate), norm(candidate - reference))


def largest(tensor: torch.Tensor) -> float:
    """Return the largest magnitude in a tensor: 0 if it is empty, NaN if a NaN is in it.

    >>> largest(torch.tensor([1.0, -3.0]))
    3.0
    """
    if not tensor.numel():
        return 0.0
    low, high = (bound.item() for bound in tensor.aminmax())
    return math.nan if math.isnan(low) else float(max(-low, high))


def difference_sizes(reference: torch.Tensor, candidate: torch.Tensor) -> tuple[float, float]:
    """Return the largest magnitude and the Euclidean norm of candidate - reference.

    The difference is taken in parts, so that it never stands in memory whole.

    >>> difference_sizes(torch.tensor([1.0, 2.0]), torch.tensor([4.0, -2.0]))
    (4.0, 5.0)
    """
    theirs, ours = reference.reshape(-1).split(PART), candidate.reshape(-1).split(PART)
    parts = (b - a for a, b in zip(theirs, ours, strict=True))
    sizes = [(largest(part), norm(part)) for part in parts]
    return max(size for size, _ in sizes), math.hypot(*(length for _, length in sizes))


def same_bits(reference: torch.Tensor, candidate: torch.Tensor) -> bool:
    """Tell whether two tensors are the same to the bit: -0 is not 0, NaN is itself.

    >>> same_bits(torch.tensor([0.0]), torch.tensor([-0.0]))
    False
    """
    if reference.shape != candidate.shape or reference.dtype != candidate.dtype:
        return False
    bits = _BITS.get(reference.dtype, reference.dtype)
    return torch.equal(reference.contiguous().view(bits), candidate.contiguous().view(bits))


def ratio(error: float, size: float) -> float:
    """Divide an error by a size; no error is none, an error beside nothing is infinite."""
    if error == 0:
        return 0.0
    return error / size if size else math.inf


def finite(value: float) -> float | None:
    """Return a number for a record, None for one that JSON does not have."""
    return value if math.isfinite(value) else None


def norm(tensor: torch.Tensor) -> float:
    """Return the Euclidean norm, summed in float64: squares of tiny gradients underflow below."""
    return torch.linalg.vector_norm(tensor, dtype=torch.float64).item()


def cosine_of_norms(reference: float, candidate: float, difference: float) -> float:
    """Return the cosine from both norms and that of the difference."""
    if not (reference and candidate):
        return 1.0 if reference == candidate else 0.0
    ratio, distance = reference / candidate, difference / candidate
    return (ratio**2 + 1 - distance**2) / (2 * ratio)
