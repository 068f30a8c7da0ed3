"""How bytes travel: TLS, identity, methods, blobs, and the diagnosis when they don't."""
