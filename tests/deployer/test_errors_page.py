"""docs/errors.md lists exactly the exit codes that the code has."""

from __future__ import annotations

import re
from pathlib import Path

import deployer.errors
from startup_kits.errors import FedspanError

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"


def test_every_error_stands_on_the_page_with_its_code_and_no_other_does() -> None:
    on_page = {name: int(code) for code, name in re.findall(r"^\| (\d+) \| (\w+) \|", PAGE.read_text(), re.MULTILINE)}
    in_code = {
        name: error.exit_code
        for name in deployer.errors.__all__
        if isinstance(error := getattr(deployer.errors, name), type) and error is not FedspanError
    }
    assert on_page == in_code
    assert len(set(in_code.values())) == len(in_code)
