"""From federation.yml to signed startup kits: spec, certificates, layout, signing, verification."""
