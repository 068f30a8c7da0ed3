"""A command's view of one stack: its project, backend, settings and secrets."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from pathlib import Path

from .backend import Backend
from .passphrase import MISSING_PHRASE, Secrets, phrase_from
from .problems import CommandFailed
from .project import Project, Settings

NOT_FOUND = 6  # the exit code when there is no such stack


class Session:
    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.project = Project(folder, environment)
        self.backend = Backend(self.project.backend_url, self.project.name)
        self._secrets: Secrets | None = None
        self._settings: Settings | None = None
        self._lock = threading.RLock()
        self.stack = ""

    def choose(self, stack: str) -> None:
        """Names the stack that the command is about: the one given, else the selected one. It must exist."""
        name = stack or self.project.selected
        if not name:
            raise CommandFailed(
                "no stack selected; please use `pulumi stack select` or `pulumi stack init` to choose one"
            )
        name = self.backend.name(name)
        if not self.backend.exists(name):
            raise CommandFailed(f"no stack named '{name}' found", NOT_FOUND)
        self.stack = name

    @property
    def settings(self) -> Settings:
        if self._settings is None:
            self._settings = self.project.settings(self.stack)
        return self._settings

    @property
    def secrets(self) -> Secrets:
        """The stack's secrets; a salt is made, and kept in the settings, where neither settings nor checkpoint has
        one.
        """
        with self._lock:
            if self._secrets is None:
                latest = None
                if not self.settings.data.get("encryptionsalt") and self.backend.exists(self.stack):
                    latest = self.backend.load(self.stack)
                self._secrets = self.project.secrets(self.stack, latest) or self.new_secrets()
            return self._secrets

    def new_secrets(self) -> Secrets:
        phrase = phrase_from(self.project.environment)
        if phrase is None:
            raise CommandFailed(MISSING_PHRASE)
        secrets = Secrets.new(phrase)
        settings = self.settings
        settings.data["encryptionsalt"] = secrets.salt
        settings.save()
        return secrets

    def unlock_soon(self) -> None:
        """Starts making the key beside: it takes about as long as loading gRPC. `unlock` tells what goes wrong."""

        def make() -> None:
            with contextlib.suppress(CommandFailed):
                self.secrets.unlock()

        threading.Thread(target=make, daemon=True).start()

    def unlock(self) -> None:
        """Proves the passphrase before anything is done."""
        try:
            self.secrets.unlock()
        except CommandFailed as error:
            raise CommandFailed(
                f"getting stack configuration: get stack secrets manager: {error}", error.code
            ) from None
