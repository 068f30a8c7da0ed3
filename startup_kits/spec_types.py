"""The words of federation.yml as types: each checks itself and says what would be right."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from startup_kits import units
from startup_kits.torch_source import TorchSource, torch_source


def _name(value: str) -> str:
    if not units.NAME.fullmatch(value):
        raise ValueError("2 to 32 small letters, digits and dashes, beginning with a letter, not ending with a dash")
    return value


def _e_mail(value: str) -> str:
    if not units.EMAIL.fullmatch(value):
        raise ValueError("admins are named by e-mail address, such as ana@hospital-a.example")
    return value


def one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _each_once(values: list[str]) -> list[str]:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} is there twice")
    return values


def _quoted_digits(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        octal = f"0{value:o}"  # YAML reads digits after a leading zero as an octal number
        digits = octal if len(octal) == 12 else f"{value:012d}"
        raise ValueError(f'put quotes round it, or leading zeros are lost: "{digits}"')
    return value


def absolute(value: str) -> str:
    if not value.startswith("/") or "\0" in value or ".." in value.split("/"):
        raise ValueError("an absolute path on the site's machine without '..' is wanted, such as /srv/data/digits")
    return value


Name = Annotated[str, AfterValidator(_name)]
Email = Annotated[str, AfterValidator(_e_mail)]
GiB = Annotated[float, BeforeValidator(units.gib)]
Cidr = Annotated[str, BeforeValidator(units.cidr)]
IdleTime = Annotated[int, BeforeValidator(units.idle_time)]
Cidrs = Annotated[list[Cidr], BeforeValidator(one_or_many)]
Host = Annotated[str, BeforeValidator(units.host_name)]
Port = Annotated[int, Field(ge=1, le=65535)]
Words = Annotated[list[str], BeforeValidator(one_or_many), AfterValidator(_each_once)]
Torch = Annotated[TorchSource, BeforeValidator(torch_source)]
AccountId = Annotated[str, BeforeValidator(_quoted_digits), Field(pattern=r"^\d{12}$")]
Areas = Annotated[list[str], BeforeValidator(one_or_many)]
DataPath = Annotated[str, AfterValidator(absolute)]
Jump = Annotated[str, AfterValidator(units.jump)]
HostKeyPolicy = Annotated[str, AfterValidator(units.host_key)]
Proxy = Annotated[str, AfterValidator(units.proxy)]
