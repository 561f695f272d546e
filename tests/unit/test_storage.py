import os
from pathlib import Path

import pytest
import torch

from comparison.engine.storage import MIB, Spilled, Store, temporary_folder
from reproduction import UserError


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("memory", [0, MIB])
def test_what_is_kept_comes_back_to_the_bit(dtype: torch.dtype, memory: int) -> None:
    store = Store(memory)
    tensors = [(torch.randn(3, 4, 5) * 100).to(dtype).transpose(0, 1), torch.tensor(7).to(dtype)]
    kept = [store.keep(tensor) for tensor in tensors]
    for tensor, handle in zip(tensors, kept, strict=True):
        assert torch.equal(store.read(handle), tensor)
        assert store.read(handle).dtype == dtype
    assert bool(store.spilled_bytes) == (memory == 0)


def test_a_copy_does_not_follow_what_is_written_in_place_afterwards() -> None:
    for memory in (0, MIB):
        store, tensor = Store(memory), torch.ones(10)
        kept = store.keep(tensor)
        tensor.mul_(2)
        assert torch.equal(store.read(kept), torch.ones(10))


def test_memory_is_used_first_and_the_file_beyond_it() -> None:
    store = Store(100 * 8)
    first, second = store.keep(torch.zeros(90).double()), store.keep(torch.ones(20).double())
    assert isinstance(first, torch.Tensor)
    assert isinstance(second, Spilled)
    assert store.spilled_bytes == 160
    assert torch.equal(store.read(second), torch.ones(20).double())
    assert store.keep(torch.empty(0, 3)).shape == (0, 3)


def test_the_file_has_no_name_and_lies_where_tmpdir_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    store = Store(0)
    store.keep(torch.ones(5))
    assert temporary_folder() == tmp_path
    assert not list(tmp_path.iterdir())


def test_a_full_disk_gets_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(UserError, match=r"No space left .* TMPDIR"):
        Store(0).keep(torch.ones(5))


def test_a_folder_that_does_not_exist_gets_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    with pytest.raises(UserError, match="TMPDIR"):
        Store(0).keep(torch.ones(5))
