"""Mat files give what SciPy reads from them; damaged ones, on which SciPy dies, a sentence."""

import io
import struct

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from reproduction.tasks.matfile import read_arrays

KINDS = ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")


def written(arrays: dict[str, np.ndarray], compress: bool) -> bytes:
    """Return a mat file, as SciPy writes it."""
    file = io.BytesIO()
    savemat(file, arrays, do_compression=compress)
    return file.getvalue()


@pytest.mark.parametrize("compress", [False, True])
def test_arrays_are_what_scipy_reads(compress: bool) -> None:
    rng = np.random.default_rng(0)
    arrays = {kind: rng.integers(0, 100, (3, 4, 2)).astype(kind) for kind in KINDS}
    arrays |= {"scalar": np.array(7.5), "empty": np.zeros((0, 3)), "flags": np.eye(2) > 0}
    arrays |= {"a_long_name_of_an_array": np.arange(5.0), "text": np.array("passed over")}
    content = written(arrays, compress)
    expected = loadmat(io.BytesIO(content))
    names = tuple(name for name in arrays if name != "text")
    found = read_arrays(content, names)
    assert sorted(found) == sorted(names)
    for name, array in found.items():
        assert array.dtype == expected[name].dtype, name
        assert np.array_equal(array, expected[name]), name


def test_numbers_are_widened_from_how_they_are_stored() -> None:
    """MATLAB stores whole doubles in fewer bytes."""
    content = bytearray(written({"a": np.array([[1.0, 2.0]])}, compress=False))
    place = content.index(struct.pack("<II", 9, 16))
    content[place:] = struct.pack("<HHBBxx", 2, 2, 1, 2)
    struct.pack_into("<I", content, 132, len(content) - 136)
    found = read_arrays(bytes(content), ("a",))["a"]
    assert found.dtype == np.float64 and found.tolist() == [[1.0, 2.0]]
    assert np.array_equal(loadmat(io.BytesIO(content))["a"], found)


def test_numbers_stored_in_an_unknown_way_are_refused() -> None:
    content = bytearray(written({"a": np.ones((4, 5), np.uint16)}, compress=False))
    content[content.index(struct.pack("<II", 4, 40))] = 255
    with pytest.raises(ValueError, match="in the unknown way 255"):
        read_arrays(bytes(content), ("a",))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c[:100], "no mat file of MATLAB 5 to 7"),
        (lambda c: c[:-9], "cut off"),
        (lambda c: c.replace(struct.pack("<ii", 4, 5), struct.pack("<ii", -4, -5)), "shape"),
        (lambda c: c.replace(struct.pack("<ii", 4, 5), struct.pack("<ii", 1 << 30, 5)), "shape"),
    ],
)
def test_what_does_not_fit_is_told(change: object, told: str) -> None:
    content = written({"a": np.ones((4, 5), np.uint16)}, compress=False)
    with pytest.raises(ValueError, match=told):
        read_arrays(change(content), ("a",))  # type: ignore[operator]
