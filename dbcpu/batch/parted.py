"""A manifest where nothing can be appended to: parts while a run goes on, one object when it has ended."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from dbcpu.batch.manifest import Manifest

if TYPE_CHECKING:
    from dbcpu.batch.object_store import ObjectStore

_SECONDS_BETWEEN_PARTS = 10.0  # of work that a kill can cost
_LARGEST_PART = 4 << 20  # bytes


class PartedManifest(Manifest):
    """The manifest in an object store, with a copy on this machine.

    What is added is put as an object `NAME.parts/00000001.jsonl` and so on every few seconds. At the end of a run the
    whole is put as NAME, and only then the parts go: whenever a run is killed, NAME and its parts together are right.

    Args:
        store: that holds it.
        name: of it.
        settings: as in `Manifest`.

    Raises:
        OutputError: it cannot be read.
    """

    def __init__(self, store: ObjectStore, name: str, settings: str) -> None:
        self._store = store
        self._name = name
        self._folder = tempfile.TemporaryDirectory(prefix="dbcpu-")
        self._parts = store.names(f"{name}.parts")
        local = Path(self._folder.name) / "manifest.jsonl"
        with local.open("wb") as stream:
            stream.writelines(store.manifest_lines(name))
        super().__init__(local, settings)
        self._saved = self._end
        self._saved_at = time.monotonic()

    def keep(self) -> None:
        """As `Manifest.keep`: put what was added since the last part."""
        unsaved = self._end - self._saved
        if unsaved >= _LARGEST_PART or (unsaved and time.monotonic() - self._saved_at >= _SECONDS_BETWEEN_PARTS):
            self._save()

    def finish(self) -> None:
        """As `Manifest.finish`."""
        super().finish()
        self._store.write_file(self._name, self._path)
        self._store.remove(self._parts)
        self._parts = []
        self._saved = self._end

    def _save(self) -> None:
        number = 1 + max((int(Path(part).stem) for part in self._parts), default=0)
        part = f"{self._name}.parts/{number:08d}.jsonl"
        self._store.write(part, os.pread(self._descriptor, self._end - self._saved, self._saved))
        self._parts.append(part)
        self._saved, self._saved_at = self._end, time.monotonic()

    def close(self) -> None:
        """As `Manifest.close`."""
        super().close()
        self._folder.cleanup()
