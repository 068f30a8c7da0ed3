"""Whatever program, fault, kill or interrupt: the state loses nothing, doubles nothing, and comes to rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from .random_programs import play


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, *range(100, 110)])
def test_the_state_tells_the_truth_after_random_changes_faults_and_kills(seed: int, pulumi_root: Path) -> None:
    play(pulumi_root, seed)
