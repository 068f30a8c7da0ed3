"""A workspace with the README's spec, and ways to change it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from startup_kits.example import example
from startup_kits.passphrase import PassphraseSource
from startup_kits.provision import ProvisionResult, provision
from startup_kits.spec import load_spec
from startup_kits.workspace import Workspace


@pytest.fixture
def write_spec(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str, name: str = "federation.yml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "federation.yml").write_text(example())
    return Workspace.find(tmp_path)


@pytest.fixture
def make(workspace: Workspace) -> Callable[..., ProvisionResult]:
    """Provisions the workspace as a script would: passphrase from the environment, nobody to ask."""

    def run(zip_kits: bool = False, environ: dict[str, str] | None = None) -> ProvisionResult:
        given = {"FEDSPAN_PASSPHRASE": "a long passphrase"} if environ is None else environ
        source = PassphraseSource(workspace.passphrase_path, environ=given)
        return provision(workspace, load_spec(workspace.spec_path), source, zip_kits)

    return run
