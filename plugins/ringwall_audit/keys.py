"""Ed25519 keys, in PEM files."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from ringwall.deployment.checkpoints import Signer, Verifier
from ringwall.errors import ConfigurationError


class PublicKey(Verifier):
    """What whoever verifies holds. Its `id` is the key itself, in hexadecimal."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        self._id = key.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()

    @classmethod
    def load(cls, path: Path) -> PublicKey:
        """Read a PEM file. Raises `ConfigurationError`."""
        try:
            key = load_pem_public_key(path.read_bytes())
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            raise _unusable(path, "public") from error
        if not isinstance(key, Ed25519PublicKey):
            raise _unusable(path, "public")
        return cls(key)

    @property
    def id(self) -> str:
        return self._id

    def verify(self, message: bytes, signature: bytes) -> bool:
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def save(self, path: Path) -> None:
        """Write a PEM file that was not there. Raises `ConfigurationError`."""
        _write_new(path, self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), 0o644)


class SecretKey(Signer):
    """What whoever makes checkpoints holds, and nobody else: not the app, not those who may write to its database."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._verifier = PublicKey(key.public_key())

    @classmethod
    def generate(cls) -> SecretKey:
        """A new key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> SecretKey:
        """Read a PEM file without a password. Raises `ConfigurationError`."""
        try:
            key = load_pem_private_key(path.read_bytes(), None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise _unusable(path, "secret") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise _unusable(path, "secret")
        return cls(key)

    @property
    def verifier(self) -> Verifier:
        return self._verifier

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)

    def save(self, path: Path) -> None:
        """Write both halves to PEM files that were not there, the public one with `.pub` at its end.

        The secret one is readable for its owner only. Raises `ConfigurationError`.
        """
        _write_new(path, self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
        self._verifier.save(path.with_name(f"{path.name}.pub"))


def _unusable(path: Path, half: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path} holds no {half} Ed25519 key",
        expected="a PEM file without a password, as `ringwall audit key` writes it",
        hint="make one with `ringwall audit key`, or name another file",
    )


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:  # noqa: PTH123
            file.write(content)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}", hint="name another file") from error
