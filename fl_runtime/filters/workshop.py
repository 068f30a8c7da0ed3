"""The parent's end of the process in which filters and codecs run: started when needed, once more when it died."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

from fl_runtime import processes
from fl_runtime.blobs import BlobStore
from fl_runtime.blobs.described import described
from fl_runtime.errors import DiskFullError, FlError

log = logging.getLogger("fedspan.filters")


class WorkshopError(FlError):
    """It could not be done; the text is fit for the server."""


class Workshop:
    """One child, one request at a time. It sees none of the job's environment and ends with us."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None
        self._closed = False

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Do it; everything it writes is ours to keep or to throw away.

        Raises:
            DiskFullError: it found no room for what it writes.
            WorkshopError: it failed, or its process was ended twice.
        """
        with self._lock:
            reply = self._once(request)
            if reply is None:  # an idle child may end just now; a killed one, too
                reply = self._once(request)
        if reply is None:
            raise WorkshopError(
                "The process of the filters was ended", why="the job is over" if self._closed else "twice, by somebody"
            )
        if reply.get("full"):
            raise DiskFullError(
                "The disk is full",
                why=f"the filters or codecs of {self._name} found no room: {reply['error']}",
                next_step="free disk space: df -h",
            )
        if "error" in reply:
            raise WorkshopError(str(reply["error"]))
        return reply

    def _once(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        if self._closed:
            return None
        child = self._child
        if child is None or child.poll() is not None:
            child = self._child = self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(json.dumps(request) + "\n")
            child.stdin.flush()
            line = child.stdout.readline()
        except (OSError, ValueError):
            line = ""
        if not line.endswith("\n"):
            self._end(child)
            return None
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "fl_runtime.filters.run"],
            cwd="/",  # nobody puts a module there
            env=processes.job_environment({"OMP_NUM_THREADS": "1"}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def _end(self, child: subprocess.Popen[str]) -> None:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what could not be flushed
                    log.debug("%s: its pipe was full", self._name)

    def close(self) -> None:
        """End the child, whatever it does."""
        self._closed = True
        child = self._child
        if child is not None and child.poll() is None:
            child.kill()
        with self._lock:
            if child is not None:
                self._end(child)


def describe(blobs: BlobStore, blob: bytes | None) -> dict[str, str] | None:
    """A blob for a request to the process of filters and codecs."""
    return None if blob is None else described(blobs, blob)
