"""Models of a job in the hub's blob store: made as files, kept as blobs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from fl_runtime.errors import JobSpecError
from fl_runtime.models.tensors import TensorFile
from fl_runtime.names import INLINE_LIMIT
from fl_runtime.workflow.link import Link
from fl_runtime.workflow.records import Model


class ModelStore:
    def __init__(self, link: Link, bundle: Path) -> None:
        self._link = link
        self._bundle = bundle

    def new_file(self, size: int = 0) -> Path:
        """A file for a new model of about `size` bytes; it may be a recycled one, so cut it. Then `keep` it."""
        return Path(self._link.ask({"op": "spool", "size": size})[0]["file"])

    def keep(self, path: Path) -> Model:
        """Make a finished file a blob."""
        small = path.read_bytes() if path.stat().st_size <= INLINE_LIMIT else None
        reply, _ = self._link.ask({"op": "blob", "file": str(path)})
        return Model(reply["blob"], small if small is not None else Path(reply["file"]))

    def keep_bytes(self, data: bytes) -> Model:
        """Make at most 64 KiB a blob."""
        reply, _ = self._link.ask({"op": "blob"}, data)
        return Model(reply["blob"], data)

    def initial(self, wanted: Any) -> Model | None:
        """`workflow.model`: a safetensors file of the bundle, or a description; None: the sites begin with theirs.

        Raises:
            JobSpecError: neither of them.
        """
        if wanted is None:
            return None
        path = self.new_file()
        if isinstance(wanted, str):
            source = (self._bundle / wanted).resolve()
            if not source.is_relative_to(self._bundle.resolve()) or not source.is_file():
                raise JobSpecError("workflow.model names no file of the job", why=wanted)
            TensorFile(source)
            shutil.copyfile(source, path)  # cuts, too
        else:
            from fl_runtime.workflow.initial import make

            make(wanted, path)
        return self.keep(path)
