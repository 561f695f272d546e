"""Run a job's notebook by papermill; the executed copy is written whole or not at all.

The command line is papermill's own: ``python -m workflow.execute INPUT OUTPUT -p NAME VALUE ...``.
"""

import os
import secrets
from pathlib import Path

from papermill.__main__ import papermill
from papermill.iorw import LocalHandler, papermill_io

from workflow import checkpoints


class WholeFiles(LocalHandler):
    """Papermill's access to local files, with writes that a kill cannot cut in half."""

    def write(self, buf: str, path: str) -> None:
        """Write a notebook beside its place and move it there."""
        place = Path(path)
        partial = place.with_name(f".{place.name}.{secrets.token_hex(4)}.partial")
        try:
            super().write(buf, str(partial))
            os.replace(partial, place)
        finally:
            partial.unlink(missing_ok=True)


def main() -> None:
    """Run papermill's command line, after what other source left is out of the way."""
    checkpoints.prepare_job()
    papermill_io.reset()
    papermill_io.register("local", WholeFiles())
    papermill(prog_name="papermill")


if __name__ == "__main__":
    main()
