"""Every error names the next command: read from the code itself, and said in the words of whoever gets it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import deployer.errors
from deployer.owner_words import owners_next
from startup_kits.errors import KitError, SpecError
from startup_kits.example import example
from startup_kits.kit import Kit
from startup_kits.passphrase import PassphraseSource
from startup_kits.provision import provision
from startup_kits.spec import load_spec
from startup_kits.workspace import Workspace

ROOT = Path(__file__).parents[2]
ERRORS = {*deployer.errors.__all__}
FOLDERS = ("deployer", "deployer/cli", "deployer/ssh", "deployer/settle", "deployer/demo", "startup_kits")

COMPLETED = {
    "startup_kits/kit.py": "Kit.open and Kit.verify add the participant and the next step",
    "startup_kits/signing.py": "called by Kit.verify, which adds both",
    "startup_kits/certificates.py": "called by Kit.open and Kit.verify, which add both",
    "deployer/poc.py": "development's own federation of processes",
}


def raised_without_next_step() -> Iterator[str]:
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).glob("*.py")):
            name = file.relative_to(ROOT).as_posix()
            if name in COMPLETED:
                continue
            for node in ast.walk(ast.parse(file.read_text())):
                if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call):
                    continue
                called = node.exc.func
                if not isinstance(called, ast.Name) or called.id not in ERRORS - {"Interrupted"}:
                    continue
                if not any(word.arg == "next_step" for word in node.exc.keywords):
                    yield f"{name}:{node.lineno}"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """site-1's kit, as it was provisioned."""
    (tmp_path / "federation.yml").write_text(example())
    workspace = Workspace.find(tmp_path)
    source = PassphraseSource(workspace.passphrase_path, environ={"FEDSPAN_PASSPHRASE": "only for this test"})
    return provision(workspace, load_spec(workspace.spec_path), source).kits["site-1"]


def test_whatever_is_raised_names_a_next_step() -> None:
    assert list(raised_without_next_step()) == []


@pytest.mark.parametrize("harm", ["a link at the root", "a link in local", "startup is no YAML", "no signature"])
def test_a_refused_kit_is_told_with_its_participant_and_what_to_do(made: Path, harm: str) -> None:
    if harm == "a link at the root":
        (made / "evil").symlink_to("/etc/passwd")
    elif harm == "a link in local":
        (made / "local/data.yml").unlink()
        (made / "local/data.yml").symlink_to("/etc/passwd")
    elif harm == "startup is no YAML":
        (made / "startup/participant.yml").write_text("{")
    else:
        (made / "startup/signature.json").unlink()
    with pytest.raises(KitError) as caught:
        Kit.verify(made)
    assert caught.value.participant == "site-1"
    assert caught.value.next_step


def test_what_is_no_kit_is_told_with_an_example_of_one() -> None:
    with pytest.raises(KitError) as caught:
        Kit.verify("nowhere")
    assert "nowhere is not a startup kit: there is no such folder" in str(caught.value)
    assert "kits/site-1" in str(caught.value.next_step)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("name: digits ", "name: no ", "name: YAML reads yes, no, on, off, true and false without quotes as true"),
        ("region: westeurope", "region: 7", 'server.region: YAML reads it as a number; put quotes round it: "7"'),
        ("  site-2:", "  no:", "has the key no, which YAML reads as true or false"),
        ("version: 1", "version: [1", "is not YAML: expected ',' or ']'"),
    ],
)
def test_yamls_own_traps_are_told_with_their_line_and_the_way_out(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    path = tmp_path / "federation.yml"
    assert old in example()
    path.write_text(example().replace(old, new, 1))
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    assert told in str(caught.value)
    assert f"fedspan -f {path} validate" in str(caught.value.next_step)
    assert ": \n" not in str(caught.value)  # no blank where a list of faults begins


def test_an_owner_reads_the_commands_of_an_owner() -> None:
    kit = Path("/home/b/site-1")
    start, stop = "/home/b/site-1/start.sh --cloud aws", "/home/b/site-1/stop.sh --cloud"

    def words(text: str, log_in: str = "") -> str:
        return owners_next(text, "site-1", kit, "aws", log_in)

    assert words("fedspan up site-1") == start
    assert words("wait until it has ended, then fedspan down site-1") == f"wait until it has ended, then {stop}"
    assert words("set another zone:, size: or region: in federation.yml, or wait, then fedspan up site-1") == (
        f"choose another --zone, --size or --region, or wait, then {start}"
    )
    assert words("fedspan ssh site-1 -- uptime", "ssh u@1.2.3.4") == "ssh u@1.2.3.4 uptime"
    assert words("the server's owner types: fedspan allow site-1 1.2.3.4/32").endswith(
        "fedspan allow site-1 1.2.3.4/32"
    )
