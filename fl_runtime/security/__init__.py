"""Names of FLARE that user code imports."""
