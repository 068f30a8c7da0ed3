"""Everything big: immutable content on disk, named by the hash of its manifest."""

from fl_runtime.blobs.incoming import Incoming
from fl_runtime.blobs.manifest import Manifest, blob_id, of_bytes, of_file
from fl_runtime.blobs.store import BLOB_SCHEMA, BlobStore

__all__ = ["BLOB_SCHEMA", "BlobStore", "Incoming", "Manifest", "blob_id", "of_bytes", "of_file"]
