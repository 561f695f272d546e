"""Files that are written whole or not at all, and stay written.

What is written goes to a file of its own beside the target, is forced to the disk, and takes the
target's name in one step. A process that is killed and a machine that loses power leave the old
file or the new one, never half of one, and at most a file that `drop_partials` removes.
"""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a place to write to; it becomes `path` if the block ends without an error.

    Two processes may write the same file at once: each has a place of its own, the last one wins.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        yield partial
        force_to_disk(partial)
        os.replace(partial, path)
        force_to_disk(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write text (as UTF-8) or bytes, whole or not at all.

    Raises:
        OSError: The disk is full or the folder cannot be written; the old file is still there.
    """
    with whole(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def force_to_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # this file system cannot do it for folders
            raise
    finally:
        os.close(handle)


def drop_partials(folder: Path) -> None:
    """Remove what killed processes left in a folder; one that still writes there gets an error."""
    for partial in folder.glob(f".*{PARTIAL}"):
        partial.unlink(missing_ok=True)
