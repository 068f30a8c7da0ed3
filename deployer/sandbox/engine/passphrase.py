"""Secrets by passphrase, in Pulumi's own format, so that a stack may move between this engine and the real one.

A stack's salt is `v1:BASE64(8 bytes):v1:NONCE:CIPHERTEXT`, the last part being the word "pulumi" encrypted, which
says whether a passphrase is right. The key is PBKDF2-HMAC-SHA256 over passphrase and salt, 1,000,000 rounds; values
are AES-256-GCM with a nonce of 12 bytes.
"""

from __future__ import annotations

import base64
import hashlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .problems import CommandFailed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ROUNDS = 1_000_000
_PROOF = "pulumi"
MISSING_PHRASE = (
    "passphrase must be set with PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE environment variables"
)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Secrets:
    """Encrypts and decrypts a stack's secrets. The key is made when it is first needed: that takes a quarter of a
    second.
    """

    def __init__(self, salt: str, phrase: str | None) -> None:
        self.salt, self._phrase = salt, phrase
        self._cipher: AESGCM | None = None
        self._lock = threading.Lock()

    @classmethod
    def new(cls, phrase: str) -> Secrets:
        raw = os.urandom(8)
        secrets = cls(f"v1:{_b64(raw)}", phrase)
        secrets._cipher = _cipher(phrase, raw)
        secrets.salt = f"v1:{_b64(raw)}:{secrets.encrypt(_PROOF)}"
        return secrets

    @property
    def state(self) -> dict[str, object]:
        """What the checkpoint says of the secrets."""
        return {"type": "passphrase", "state": {"salt": self.salt}}

    def unlock(self) -> AESGCM:
        """Makes the key and proves it on the salt; a wrong passphrase is an error."""
        with self._lock:
            return self._cipher or self._prove()

    def _prove(self) -> AESGCM:
        if self._phrase is None:
            raise CommandFailed(MISSING_PHRASE)
        version, raw, proof = self.salt.split(":", 2)
        if version != "v1":
            raise CommandFailed(f"unknown version of the stack's encryption salt: {version}")
        cipher = _cipher(self._phrase, base64.b64decode(raw))
        try:
            right = _open(cipher, proof) == _PROOF
        except ValueError:
            right = False
        if not right:
            raise CommandFailed("incorrect passphrase")
        self._cipher = cipher
        return cipher

    def encrypt(self, text: str) -> str:
        cipher, nonce = self.unlock(), os.urandom(12)
        return f"v1:{_b64(nonce)}:{_b64(cipher.encrypt(nonce, text.encode(), None))}"

    def decrypt(self, text: str) -> str:
        return _open(self.unlock(), text)


def _cipher(phrase: str, salt: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(hashlib.pbkdf2_hmac("sha256", phrase.encode(), salt, ROUNDS, 32))


def _open(cipher: AESGCM, text: str) -> str:
    """Raises ValueError when the text can't be opened with this key."""
    from cryptography.exceptions import InvalidTag

    version, nonce, sealed = text.split(":")
    if version != "v1":
        raise ValueError(f"unknown version of a ciphertext: {version}")
    try:
        return cipher.decrypt(base64.b64decode(nonce), base64.b64decode(sealed), None).decode()
    except InvalidTag:
        raise ValueError("the ciphertext was made with another key") from None


def phrase_from(environment: Mapping[str, str]) -> str | None:
    """The passphrase that the environment gives, itself or in a file; None when it gives none."""
    if "PULUMI_CONFIG_PASSPHRASE" in environment:
        return environment["PULUMI_CONFIG_PASSPHRASE"]
    if path := environment.get("PULUMI_CONFIG_PASSPHRASE_FILE"):
        try:
            return Path(path).read_text().strip()
        except OSError as error:
            raise CommandFailed(f"unable to open file {path}: {error.strerror}") from None
    return None
