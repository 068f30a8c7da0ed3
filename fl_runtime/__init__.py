"""What runs on the participants' machines: hub, agent, jobs, Client API, admin API."""

from __future__ import annotations


def version() -> str:
    """The installed version of fedspan (read when asked: importlib.metadata costs 20 ms)."""
    from importlib import metadata

    try:
        return metadata.version("fedspan")
    except metadata.PackageNotFoundError:
        return "0+unknown"
