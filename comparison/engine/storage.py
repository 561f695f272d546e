"""Copies of tensors within a memory budget: what does not fit lies in a temporary file.

The file has no name once it is open, so nothing is left behind however the process ends.
"""

import ctypes
import mmap
import os
import tempfile
import weakref
from pathlib import Path
from typing import Any, NamedTuple

import torch

from reproduction.errors import UserError

MIB = 2**20
BUDGET_MIB = 512  # of memory for copies
ALIGNED = 64  # bytes


class Spilled(NamedTuple):
    """Where a tensor lies in the file: offset in bytes, shape and type."""

    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype


class Store:
    """Keeps copies of tensors and gives them back to the bit.

    What stays in memory lies in one stretch of its own: between the activations of a run, it
    would keep the allocator from giving their memory back.

    Args:
        memory_bytes: How much may stay in memory; the rest is written to a temporary file, in
            ``TMPDIR`` or where the system keeps large temporary files.
    """

    def __init__(self, memory_bytes: int) -> None:
        self._memory = mmap.mmap(-1, max(memory_bytes, ALIGNED))
        self._size = memory_bytes
        self._used = 0
        self._file: int | None = None
        self._end = 0

    @property
    def spilled_bytes(self) -> int:
        """Return how much was written to the file."""
        return self._end

    def keep(self, tensor: torch.Tensor) -> torch.Tensor | Spilled:
        """Copy a tensor and return a handle for `read`.

        Raises:
            UserError: The disk is full.
        """
        tensor = tensor.detach()
        size = tensor.numel() * tensor.element_size()
        if not size:
            return tensor.clone()
        if size > self._size - self._used:
            return self._write(tensor.contiguous(), size)
        flat = torch.frombuffer(
            self._memory, dtype=tensor.dtype, count=tensor.numel(), offset=self._used
        )
        self._used += -(-size // ALIGNED) * ALIGNED
        return flat.view(tensor.shape).copy_(tensor)

    def read(self, kept: torch.Tensor | Spilled) -> torch.Tensor:
        """Return what was kept; a tensor from the file is a fresh copy."""
        if isinstance(kept, torch.Tensor):
            return kept
        assert self._file is not None
        tensor = torch.empty(kept.shape, dtype=kept.dtype)
        view, done = memoryview(_bytes(tensor)), 0
        while done < len(view):
            done += os.preadv(self._file, [view[done:]], kept.offset + done)
        return tensor

    def _open(self, folder: Path) -> int:
        file, path = tempfile.mkstemp(dir=folder)
        os.unlink(path)
        weakref.finalize(self, os.close, file)
        return file

    def _write(self, tensor: torch.Tensor, size: int) -> Spilled:
        kept = Spilled(self._end, tuple(tensor.shape), tensor.dtype)
        folder = temporary_folder()
        try:
            if self._file is None:
                self._file = self._open(folder)
            view, done = memoryview(_bytes(tensor.cpu())), 0
            while done < size:
                done += os.pwrite(self._file, view[done:], self._end + done)
        except OSError as error:
            raise UserError(
                f"recorded tensors outgrow the memory budget, and {folder} took "
                f"{self._end / MIB:.0f} MiB of them only ({error.strerror}): name a folder with "
                "room in TMPDIR, raise budget_mib, or give smaller inputs"
            ) from error
        self._end += size
        return kept


def give_back_memory() -> None:
    """Give freed memory back to the system, where the C library offers that (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def temporary_folder() -> Path:
    """Return where large temporary files go: ``TMPDIR``, else /var/tmp, which is no memory disk."""
    named = os.environ.get("TMPDIR")
    if named:
        return Path(named)
    return Path("/var/tmp") if os.path.isdir("/var/tmp") else Path(tempfile.gettempdir())


def _bytes(tensor: torch.Tensor) -> Any:
    return tensor.reshape(-1).view(torch.uint8).numpy()
