"""Processes are told by what they began with, also in the instant in which they become another program."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fl_runtime import processes

linux_only = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="no /proc")


@linux_only
def test_a_process_that_has_just_begun_is_never_taken_for_one_without_a_mark() -> None:
    mark, missed = f"FEDSPAN_TEST={os.getpid()}", 0
    for _ in range(200):
        with subprocess.Popen(["sleep", "60"], env={**os.environ, "FEDSPAN_TEST": str(os.getpid())}) as child:
            try:
                missed += mark.encode() not in processes.environment(child.pid)
            finally:
                child.kill()
    assert missed == 0


@linux_only
def test_what_bears_a_mark_is_found_and_nothing_else() -> None:
    with subprocess.Popen(["sleep", "60"], env={"PATH": os.environ["PATH"], "FEDSPAN_TEST": "one"}) as child:
        try:
            assert processes.marked(lambda entry: entry == b"FEDSPAN_TEST=one") == [child.pid]
            assert processes.marked(lambda entry: entry == b"FEDSPAN_TEST=on") == []
        finally:
            child.kill()


@linux_only
@pytest.mark.parametrize("environ", [{}, {"A": "1"}])
def test_a_process_that_has_no_environment_is_told_at_once(environ: dict[str, str]) -> None:
    with subprocess.Popen([os.path.realpath("/bin/sleep"), "60"], env=environ) as child:
        try:
            assert processes.environment(child.pid) == [f"{name}={value}".encode() for name, value in environ.items()]
        finally:
            child.kill()


def test_what_is_gone_or_was_never_there_has_no_environment() -> None:
    with subprocess.Popen(["true"]) as child:
        pass
    assert processes.environment(child.pid) == []
