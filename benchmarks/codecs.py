"""What each codec makes of a model: size beside the plain one, speed in both directions, largest error.

    python benchmarks/codecs.py --model-mib 64 --json

The model is random float32; the base of deltas is the same model before small random changes. Speeds are in MB of the
plain model a second, with files in a temporary folder and nothing synced. `plain` is a copy of the file.
Keys of the JSON (last line): codec -> ratio, encode_mb_s, decode_mb_s, max_error.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from fl_runtime.codecs.decode import decode
from fl_runtime.codecs.encode import encode
from fl_runtime.codecs.spec import chosen, parse_codecs
from fl_runtime.models.tensors import TensorFile, write
from fl_runtime.models.tensors import encode as tensors_of
from fl_runtime.names import FEATURES

CASES = {
    "cast fp16": ["cast"],
    "cast bf16": [{"type": "cast", "dtype": "bf16"}],
    "quantize8": ["quantize8"],
    "quantize4": ["quantize4"],
    "zstd": ["zstd"],
    "delta zstd": ["delta", "zstd"],
    "delta quantize8": ["delta", "quantize8"],
    "delta topk 1 %": ["delta", "topk"],
    "delta topk 1 % quantize8 zstd": ["delta", "topk", "quantize8", "zstd"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model-mib", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rng = np.random.default_rng(1)
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before = {f"w{n}": rng.standard_normal(1 << 18, np.float32) * np.float32(0.05) for n in range(args.model_mib)}
        after = {
            key: value + np.float32(1e-3) * rng.standard_normal(len(value), np.float32) for key, value in before.items()
        }
        write(folder / "base", *tensors_of(before))
        write(folder / "model", *tensors_of(after))
        size = (folder / "model").stat().st_size
        begun = time.perf_counter()
        shutil.copyfile(folder / "model", folder / "copy")
        speed = size / (time.perf_counter() - begun) / 1e6
        rows["plain"] = {"ratio": 1.0, "encode_mb_s": speed, "decode_mb_s": speed, "max_error": 0.0}
        for case, kinds in CASES.items():
            codecs = chosen(parse_codecs(kinds, case), "results", FEATURES)
            begun = time.perf_counter()
            about = encode(folder / "model", codecs, folder / "wire", base=folder / "base", base_id="ab")
            encoded = time.perf_counter()
            if not about["form"]:
                continue
            decode(folder / "wire", folder / "back", 1 << 40, folder / "base", "ab")
            done = time.perf_counter()
            back = TensorFile(folder / "back")
            rows[case] = {
                "ratio": (folder / "wire").stat().st_size / size,
                "encode_mb_s": size / (encoded - begun) / 1e6,
                "decode_mb_s": size / (done - encoded) / 1e6,
                "max_error": max(float(np.abs(back.flat(key) - value).max()) for key, value in after.items()),
            }
    if args.json:
        print(json.dumps(rows))
        return
    print(f"{'codec':32} {'ratio':>8} {'encode':>10} {'decode':>10} {'max error':>11}")
    for case, row in rows.items():
        speeds = f"{row['encode_mb_s']:8.0f}/s {row['decode_mb_s']:8.0f}/s"
        print(f"{case:32} {row['ratio']:8.4f} {speeds} {row['max_error']:11.2e}")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
