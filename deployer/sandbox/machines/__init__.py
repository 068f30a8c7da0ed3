"""Emulated machines: one process each, reached by SSH at a loopback address."""
