"""The project and the stack's settings: Pulumi.yaml, Pulumi.STACK.yaml, and which stack is selected."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .passphrase import Secrets, phrase_from
from .problems import CommandFailed

_ENDINGS = (".yaml", ".yml", ".json")


def _load(path: Path) -> dict[str, Any]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    data = yaml.load(path.read_text(), Loader=loader)  # noqa: S506 - both are safe loaders
    if data is not None and not isinstance(data, dict):
        raise CommandFailed(f"could not read {path}: it is not a mapping")
    return data or {}


@dataclass
class Settings:
    """A stack's settings file: its configuration and the salt of its secrets."""

    path: Path
    data: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, stack: str) -> Settings:
        for ending in _ENDINGS:
            path = folder / f"Pulumi.{stack}{ending}"
            if path.exists():
                return cls(path, _load(path))
        return cls(folder / f"Pulumi.{stack}.yaml")

    @property
    def config(self) -> dict[str, Any]:
        return self.data.get("config") or {}

    def save(self) -> None:
        import yaml

        if self.path.suffix == ".json":
            text = json.dumps(self.data, indent=4) + "\n"
        else:
            text = yaml.safe_dump(self.data, sort_keys=False, allow_unicode=True)
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        temporary.write_text(text)
        os.replace(temporary, self.path)


class Project:
    """The project of a working folder, with the environment in which the command runs."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.folder, self.data = _find(folder)
        self.name = str(self.data.get("name", ""))

    @property
    def backend_url(self) -> str:
        """Where the state lies: by the environment, the project, the last login, else the home folder."""
        if url := self.environment.get("PULUMI_BACKEND_URL"):
            return url
        if url := (self.data.get("backend") or {}).get("url"):
            return str(url)
        credentials = self.home / "credentials.json"
        if credentials.exists() and (url := json.loads(credentials.read_text()).get("current")):
            return str(url)
        return "file://~"

    @property
    def home(self) -> Path:
        return Path(self.environment.get("PULUMI_HOME") or Path.home() / ".pulumi")

    def settings(self, stack: str) -> Settings:
        return Settings.read(self.folder, stack)

    def secrets(self, stack: str, checkpoint: Mapping[str, Any] | None) -> Secrets | None:
        """The stack's secrets by the salt of its settings, else of its checkpoint; None when neither has one."""
        salt = self.settings(stack).data.get("encryptionsalt")
        if not salt:
            provider = (checkpoint or {}).get("secrets_providers") or {}
            salt = (provider.get("state") or {}).get("salt")
        return Secrets(str(salt), phrase_from(self.environment)) if salt else None

    # -- the selected stack ----------------------------------------------------------------------------------------
    @property
    def _selection(self) -> Path:
        digest = hashlib.sha1(str(self.folder / "Pulumi.yaml").encode(), usedforsecurity=False).hexdigest()
        return self.home / "workspaces" / f"{self.name}-{digest}-workspace.json"

    @property
    def selected(self) -> str:
        path = self._selection
        return str(json.loads(path.read_text()).get("stack", "")) if path.exists() else ""

    def select(self, stack: str) -> None:
        path = self._selection
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps({"stack": stack}))
        os.replace(temporary, path)


def _find(folder: Path) -> tuple[Path, dict[str, Any]]:
    folder = folder.resolve()
    for candidate in (folder, *folder.parents):
        for ending in _ENDINGS:
            path = candidate / f"Pulumi{ending}"
            if path.exists():
                return candidate, _load(path)
    raise CommandFailed(
        f"no Pulumi.yaml project file found (searching upwards from {folder}). "
        "If you have not created a project yet, use `pulumi new` to do so"
    )
