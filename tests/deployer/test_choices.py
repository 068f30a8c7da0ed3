"""What `down` may interrupt, and what an owner has chosen."""

from __future__ import annotations

import pytest

from deployer.errors import RefusedError, UsageError
from deployer.owner_choice import chosen
from deployer.results import check_idle, finished


def test_down_refuses_while_a_job_runs_unless_it_is_aborted() -> None:
    jobs = [{"id": "j1", "state": "FINISHED"}, {"id": "j2", "state": "RUNNING"}]
    with pytest.raises(RefusedError, match="j2"):
        check_idle(jobs, abort=False)
    assert check_idle(jobs, abort=True) == ["j2"]
    assert finished(jobs) == ["j1"]


def test_an_owner_chooses_once() -> None:
    first = chosen(None, {"cloud": "aws", "region": "eu-west-1", "size": None}, "site-2")
    again = chosen(first.document(), {"size": "m7i.xlarge", "cloud": None}, "site-2")
    assert (again.cloud, again.region, again.size) == ("aws", "eu-west-1", "m7i.xlarge")
    with pytest.raises(UsageError, match="which cloud"):
        chosen(None, {}, "site-2")
    with pytest.raises(UsageError, match="which region"):
        chosen(None, {"cloud": "azure"}, "site-2")
    with pytest.raises(UsageError, match="oracle is no cloud"):
        chosen(None, {"cloud": "oracle"}, "site-2")
