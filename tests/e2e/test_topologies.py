"""The topologies of examples/figure-1 deploy from the very files that users get, and finish a job."""

from __future__ import annotations

import pytest
import yaml
from digits_job import ROOT, data_folder, job_folder
from e2e_world import World

FIGURES = ROOT / "examples" / "figure-1"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "server_cloud"), [("azure-server.yml", "azure"), ("aws-server.yml", "aws")], ids=["azure", "aws"]
)
def test_one_server_three_sites_on_aws_and_one_on_azure_finish_a_job(
    fresh: World, file: str, server_cloud: str
) -> None:
    fresh.write(yaml.safe_load((FIGURES / file).read_text()))
    done = fresh.json("up", "--yes").ok().last
    sites = ["aws-1", "aws-2", "aws-3", "azure-1"]
    assert sorted(done["registered"]) == sites
    clouds = {machine["name"]: machine["cloud"] for machine in fresh.sandbox.machines()}
    assert clouds == {"server": server_cloud, "aws-1": "aws", "aws-2": "aws", "aws-3": "aws", "azure-1": "azure"}
    for number, site in enumerate(sites):
        folder = data_folder(fresh.folder / site / "digits", number)
        fresh.run("cp", str(folder), f"{site}:/srv/data/digits").ok()
    told = fresh.run("job", "submit", str(job_folder(fresh.folder / "job")), "--wait").ok()
    assert "FINISHED" in told.out
    last = fresh.json("down", "--yes").ok().last
    assert (last["left"], last["deleted"]) == (0, last["expected"])
    assert fresh.inventory() == []
    assert list((fresh.fed / "results").glob("*/model.safetensors"))
