"""docs/errors.md is what the code says."""

from __future__ import annotations

from pathlib import Path

from deployer.errors_page import known, page

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"


def test_the_page_is_made_from_the_code() -> None:
    assert PAGE.read_text() == page(), "python -m deployer.errors_page > docs/errors.md"


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [error.exit_code for error in known()]
    assert len(set(codes)) == len(codes)
