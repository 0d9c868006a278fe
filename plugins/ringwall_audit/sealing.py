"""AES-256-GCM for what a journal seals."""

from __future__ import annotations

import base64
import binascii
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ringwall.deployment.sealing import Sealer, new_alias
from ringwall_audit.keystore import Keys, SqliteKeys, SubjectKey

_DAY: Final = 86400
_NONCE: Final = 12  # bytes, as the mode wants it; drawn anew for each text


class AesSealer(Sealer):
    """Seals with AES-256-GCM, under keys that `keys` holds. Keys are never kept beside them: a destroyed one is gone.

    `now` is Unix time, which says what day it is.
    """

    def __init__(self, keys: Keys, *, now: Callable[[], float] = time.time) -> None:
        self._keys, self._now = keys, now

    @classmethod
    def at(cls, path: str | Path) -> AesSealer:
        """With the keys in an SQLite file. Raises `StoreError`."""
        return cls(SqliteKeys(path))

    async def alias(self, subject: str) -> str:
        day = self._today()
        key = await self._keys.of(subject, day)
        if key is None:
            secret = AESGCM.generate_key(256)
            key = await self._keys.put(SubjectKey(new_alias(subject), subject, day, secret))
        return key.alias

    async def subjects(self, aliases: Collection[str]) -> Mapping[str, str]:
        return {key.alias: key.subject for key in await self._keys.get(aliases)} if aliases else {}

    async def seal(self, alias: str, texts: Sequence[tuple[bytes, bytes]]) -> list[str] | None:
        cipher = await self._cipher(alias)
        return None if cipher is None else [_sealed(cipher, text, about) for text, about in texts]

    async def open(self, alias: str, sealed: Sequence[tuple[str, bytes]]) -> list[bytes | None] | None:
        cipher = await self._cipher(alias)
        return None if cipher is None else [_opened(cipher, text, about) for text, about in sealed]

    async def held(self, *, subject: str | None = None, before: float | None = None) -> list[str]:
        return await self._keys.aliases(subject=subject, before=None if before is None else int(before // _DAY))

    async def destroy(self, aliases: Collection[str]) -> None:
        await self._keys.destroy(aliases)

    async def close(self) -> None:
        await self._keys.close()

    def _today(self) -> int:
        return int(self._now() // _DAY)

    async def _cipher(self, alias: str) -> AESGCM | None:
        keys = await self._keys.get([alias])
        return AESGCM(keys[0].secret) if keys else None


def _sealed(cipher: AESGCM, text: bytes, about: bytes) -> str:
    nonce = os.urandom(_NONCE)
    return base64.b64encode(nonce + cipher.encrypt(nonce, text, about)).decode()


def _opened(cipher: AESGCM, sealed: str, about: bytes) -> bytes | None:
    try:
        raw = base64.b64decode(sealed, validate=True)
        return cipher.decrypt(raw[:_NONCE], raw[_NONCE:], about)
    except (InvalidTag, ValueError, binascii.Error):
        return None
