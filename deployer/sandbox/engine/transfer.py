"""`pulumi stack export` and `stack import`: a stack's state as a file that may be edited."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from .flags import Line
from .passphrase import Secrets
from .problems import CommandFailed
from .session import Session
from .state import Snapshot, integrity_error
from .values import SECRET, SIGNATURE, from_checkpoint, to_export


def export(session: Session, line: Line) -> int:
    session.choose(line.get("stack"))
    latest = session.backend.load(session.stack)
    if line.has("show-secrets"):
        latest = _exported(latest, session)
    text = json.dumps({"version": 3, "deployment": latest}, indent=4, ensure_ascii=False) + "\n"
    if path := line.get("file"):
        Path(path).write_text(text)
    else:
        sys.stdout.write(text)
    return 0


def _exported(value: Any, session: Session) -> Any:
    if isinstance(value, dict):
        if value.get(SIGNATURE) == SECRET:
            return to_export(from_checkpoint(value, session.secrets.decrypt))
        return {k: _exported(v, session) for k, v in value.items()}
    return [_exported(v, session) for v in value] if isinstance(value, list) else value


def import_state(session: Session, line: Line) -> int:
    session.choose(line.get("stack"))
    text = Path(line.get("file")).read_text() if line.get("file") else sys.stdin.read()
    try:
        data = json.loads(text)
        deployment = data.get("deployment") or {}
    except (ValueError, AttributeError) as error:
        raise CommandFailed(f"could not deserialize deployment: {error}") from None
    session.unlock()
    secrets = _import_secrets(session, deployment)
    try:
        snapshot = Snapshot.from_json(deployment, secrets.decrypt)
    except (KeyError, TypeError, ValueError) as error:
        raise CommandFailed(f"could not deserialize deployment: {error!r}") from None
    for resource in snapshot.resources:
        stack = resource.urn.removeprefix("urn:pulumi:").split("::", 1)[0]
        if stack != session.stack and not line.has("force"):
            raise CommandFailed(f"resource '{resource.urn}' is from a different stack ({stack} != {session.stack})")
    if (problem := integrity_error(snapshot.resources)) and not line.has("force"):
        raise CommandFailed(f"could not import deployment: state file contains errors: {problem}")
    lock = session.backend.lock(session.stack)
    try:
        own = session.secrets
        session.backend.save(session.stack, snapshot.to_json(own.encrypt, own.state))
    finally:
        lock.unlink(missing_ok=True)
    print("Import complete.")
    return 0


def _import_secrets(session: Session, deployment: dict[str, Any]) -> Secrets:
    """Ciphertexts of the imported state are of its own salt, which may be another than the stack's."""
    salt = ((deployment.get("secrets_providers") or {}).get("state") or {}).get("salt")
    own = session.secrets
    if not salt or salt == own.salt:
        return own
    other = session.project.secrets(session.stack, deployment)
    return other if other is not None else own
