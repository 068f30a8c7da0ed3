"""Plain data from files of others: what is read, what is refused, and that a few bytes can't fill the memory."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from fl_runtime.errors import JobSpecError
from fl_runtime.job.spec import parse_spec, read_spec
from fl_runtime.plain import MAX_BYTES, check_plain, parse_plain, read_plain


def job(folder: Path, text: str, name: str = "job.yml") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "train.py").write_text("")
    (folder / name).write_text(text)
    return folder


def test_a_job_may_be_described_in_json(tmp_path: Path) -> None:
    as_json = '{"name": "x", "script": "train.py", "config": {"lr": 0.1, "layers": [1, 2]}, "workflow": {"rounds": 2}}'
    as_yaml = "name: x\nscript: train.py\nconfig: {lr: 0.1, layers: [1, 2]}\nworkflow: {rounds: 2}\n"
    assert read_spec(job(tmp_path / "a", as_json, "job.json")) == read_spec(job(tmp_path / "b", as_yaml))


def test_two_descriptions_of_one_job_are_refused(tmp_path: Path) -> None:
    job(tmp_path / "a", "name: x\nscript: train.py\n")
    with pytest.raises(JobSpecError, match=r"job\.yml and job\.json"):
        read_spec(job(tmp_path / "a", "{}", "job.json"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("config: {day: 2024-01-01}", r"config\.day is a date; write it in quotes"),
        ("config: {all: !!set {a, b}}", r"config\.all is a set"),
        ("config: {x: .nan}", r"config\.x is nan"),
        ("config: {[1, 2]: 3}", "keys are words|unhashable|no YAML"),
        ("config: {labels: {0: cat}}", r"config\.labels has the key 0; keys are words: write it in quotes"),
        ("workflow: {rounds: 2, true}", "workflow has the key True"),
        ('config: {x: "\\ud800"}', "no text|character|no YAML|unacceptable"),
        ('script: "train\\0.py"', "no text"),
        ("config: {x: 0x1" + "0" * 40 + "}", "a number of"),
        ("config: &a [*a]", "nested too deeply"),
        ("config: !!python/object/apply:os.system [touch /tmp/owned]", "could not determine a constructor"),
        ("config: " + "[\n" * 5_000, "nested too deeply"),
        ("config: [" + "{a: " * 70 + "1" + "}" * 70 + "]", "nested too deeply"),
        ("x" * (MAX_BYTES + 1), "longer than 1 MiB"),
    ],
)
def test_what_is_no_plain_data_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(JobSpecError, match=said):
        read_spec(job(tmp_path / "job", "name: x\n" + ("" if "script:" in text else "script: train.py\n") + text))


def test_aliases_that_unfold_to_billions_of_values_are_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    began = time.monotonic()
    document = parse_plain("\n".join(lines).encode())
    with pytest.raises(ValueError, match="more than"):
        check_plain(document)
    with pytest.raises(JobSpecError, match="more than"):
        parse_spec({"name": "x", "script": "train.py", "config": document})
    assert time.monotonic() - began < 60  # walked whole, it would take hours


def test_a_list_of_many_long_lists_is_refused_before_it_is_walked() -> None:
    inner = ["x"] * 100_000
    with pytest.raises(ValueError, match="more than"):
        check_plain([inner] * 100_000)


def test_json_and_yaml_that_are_none_are_told(tmp_path: Path) -> None:
    for name, data in (("a.json", b"{"), ("a.yml", b"{"), ("b.yml", b"\xff\xfe\x00"), ("b.json", b'{"a": 1}}')):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=r"\w"):
            read_plain(tmp_path / name)
