"""Everything big: immutable content on disk, named by the hash of its manifest."""

from fl_runtime.blobs.incoming import Incoming
from fl_runtime.blobs.manifest import Manifest, blob_id, of_bytes, of_file
from fl_runtime.blobs.shelf import BLOB_SCHEMA, UNLINK_AFTER_S, Staged
from fl_runtime.blobs.store import BlobStore

__all__ = [
    "BLOB_SCHEMA",
    "UNLINK_AFTER_S",
    "BlobStore",
    "Incoming",
    "Manifest",
    "Staged",
    "blob_id",
    "of_bytes",
    "of_file",
]
