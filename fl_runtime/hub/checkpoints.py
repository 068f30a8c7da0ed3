"""The last and the best model of a job, where a person finds them: `jobs/JOB/checkpoints/{last,best}.safetensors`, each
with a readable JSON beside it. Large ones are links to their blobs, which live as long as they are the last or best."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fl_runtime.blobs import BlobStore
from fl_runtime.errors import ProtocolError
from fl_runtime.models.tensors import TensorFile
from fl_runtime.names import iso


def write(folder: Path, name: str, blobs: BlobStore, blob: bytes, about: Mapping[str, Any], at: float) -> None:
    """Put the checkpoint `name` in place of the former one; done again for the same blob, it costs nothing.

    Args:
        about: round, metrics, and what else a reader should know.
    """
    target, text = folder / f"{name}.safetensors", folder / f"{name}.json"
    with contextlib.suppress(OSError, ValueError):
        if json.loads(text.read_text()).get("blob") == blob.hex() and target.exists():
            return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    inline = blobs.inline(blob)
    partial = folder / f".{name}.partial"
    partial.unlink(missing_ok=True)
    if inline is not None:
        partial.write_bytes(inline)
    else:
        partial.symlink_to(os.path.relpath(blobs.path(blob), folder))
    tensors = {}
    with contextlib.suppress(ProtocolError), TensorFile(inline if inline is not None else blobs.path(blob)) as file:
        tensors = {key: {"dtype": tensor.dtype, "shape": list(tensor.shape)} for key, tensor in file.tensors.items()}
    document = {**about, "blob": blob.hex(), "at": iso(at), "tensors": tensors}
    os.replace(partial, target)
    partial.write_text(json.dumps(document, indent=2) + "\n")
    os.replace(partial, text)
