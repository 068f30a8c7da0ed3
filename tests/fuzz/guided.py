"""`python guided.py TARGET SECONDS [libFuzzer's options]`: one target, guided by coverage (atheris), from its samples.

Ends with 0 when nothing but our own errors came out; else libFuzzer prints the input, and writes it to a file.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))

with atheris.instrument_imports(include=["fl_runtime", "zipfile", "json"]):
    from targets import TARGETS

from fuzz_world import nothing_unexpected
from samples import samples


def main() -> None:
    name, seconds, *options = sys.argv[1:]
    with nothing_unexpected(), tempfile.TemporaryDirectory(prefix="fedspan-corpus-") as folder:
        for number, sample in enumerate(samples()[name]):
            (Path(folder) / f"sample-{number}").write_bytes(sample)
        limits = [f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=1500", "-max_len=4096", "-verbosity=0"]
        atheris.Setup([sys.argv[0], folder, *limits, *options], lambda data: TARGETS[name](data) and None)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
