"""What a kit says, in the words of whoever wrote it."""

from __future__ import annotations

from pathlib import Path

import pytest
from federation import TestCA

from fl_runtime.admin import Session
from fl_runtime.agent.policy import check_job
from fl_runtime.errors import KitError, RefusedError
from fl_runtime.job.spec import parse_spec
from fl_runtime.kit import read_kit

JOB = {"name": "job", "script": "train.py", "data": ["digits"]}


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kits")
    ca = TestCA()
    ca.kit(folder / "site-1", "site-1", "site", port=8002)
    ca.kit(folder / "ana@example.org", "ana@example.org", "admin", port=8002, admin_role="lead")
    return folder


def test_missing_data_is_told_by_the_path_of_the_spec_not_of_the_machine_root(
    kits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDSPAN_ROOT", str(tmp_path))
    kit = read_kit(kits / "site-1")
    (kit.path / "local/data.yml").write_text("data: {digits: /srv/data/digits}\n")
    with pytest.raises(RefusedError) as caught:
        check_job(kit, parse_spec(JOB))
    assert "declared at /srv/data/digits, but nothing lies there" in str(caught.value)
    assert caught.value.next_step == "fedspan cp FILE site-1:/srv/data/digits"
    (tmp_path / "srv/data/digits").mkdir(parents=True)
    assert check_job(kit, parse_spec(JOB)) == {"digits": str(tmp_path / "srv/data/digits")}


@pytest.mark.parametrize("scripts", ["[any]", "[train.py]", "[train.Evil, train.py]"])
def test_a_file_that_may_run_as_a_script_may_not_run_as_a_filter(kits: Path, scripts: str) -> None:
    """A script is kept apart; a filter runs as the agent, with whatever the submitter put into that file."""
    kit = read_kit(kits / "site-1")
    spec = parse_spec({"name": "x", "script": "train.py", "filters": {"results": [{"path": "train.Evil"}]}})
    policy = kit.path / "local/policy.yml"
    policy.write_text(f"scripts: {scripts}\n")
    with pytest.raises(RefusedError) as caught:
        check_job(kit, spec)
    assert caught.value.next_step == "local/policy.yml of site-1: job_filters: [train.py]"
    policy.write_text("job_filters: [train.py]\n")
    assert check_job(kit, spec) == {}
    policy.unlink()


def test_a_sites_kit_names_the_admins_kit_that_the_command_needs(kits: Path) -> None:
    with pytest.raises(KitError) as caught:
        Session(kits / "site-1")
    assert "this is a site's" in str(caught.value)
    assert caught.value.next_step == f"the same command with --kit {kits / 'ana@example.org'}"
