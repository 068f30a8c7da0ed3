"""No row of a site's data is found on the server's disk, in the job's bundle, or on another site."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from digits_job import data_folder, job_folder
from e2e_world import SPEC, World, copy_of

pytestmark = pytest.mark.slow


def files_with(folder: Path, needles: list[bytes]) -> list[Path]:
    """Files below a folder that hold one of the byte strings."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            if any(needle in content for needle in needles):
                found.append(path)
    return found


@pytest.fixture(scope="module")
def trained(world: World) -> World:
    """A server and two sites that have trained on data that each has alone."""
    spec = copy_of(SPEC)
    spec["sites"]["site-1"]["data"] = {"digits": "/srv/data/digits"}
    spec["sites"]["site-2"] = {**spec["sites"]["site-1"], "region": "eu-west-1"}
    world.write(spec)
    world.run("up", "--yes").ok()
    for number, site in enumerate(spec["sites"]):
        world.run("cp", str(data_folder(world.folder / site / "digits", number)), f"{site}:/srv/data/digits").ok()
    world.run("job", "submit", str(job_folder(world.folder / "job")), "--wait").ok()
    return world


def test_a_row_is_found_only_where_it_was_put(trained: World) -> None:
    # a machine's disk and its state volume, which lies elsewhere so that it outlives the machine
    roots = {machine["name"]: Path(machine["root"]) for machine in trained.sandbox.machines()}
    disks = {name: [root, (root / "var/lib/fedspan").resolve()] for name, root in roots.items()}
    assert all(folder.is_dir() for folders in disks.values() for folder in folders)
    # numpy's file is not compressed, so a row stands in it as its bytes: the search would find it elsewhere too
    rows = {
        site: [row.tobytes() for row in np.load(trained.folder / site / "digits" / "digits.npz")["x"]]
        for site in ("site-1", "site-2")
    }
    for site, needles in rows.items():
        where = {name for name, folders in disks.items() for folder in folders if files_with(folder, needles)}
        assert where == {site}, f"rows of {site} lie on {where}"
    everything = [row for needles in rows.values() for row in needles]
    assert files_with(trained.folder / "job", everything) == []


def test_a_job_that_asks_for_data_that_a_site_has_not_is_refused_by_that_site(trained: World) -> None:
    folder = job_folder(trained.folder / "another")
    (folder / "job.yml").write_text((folder / "job.yml").read_text().replace("[digits]", "[digits, genomes]"))
    refused = trained.run("job", "submit", str(folder), "--wait")
    assert refused.code == 12
    assert "genomes" in refused.out + refused.err


def test_results_are_fetched_before_anything_is_deleted(trained: World) -> None:
    trained.run("down", "--yes").ok()
    assert list((trained.fed / "results").glob("*/model.safetensors"))
    assert trained.inventory() == []
