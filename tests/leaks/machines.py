"""The machines: all that can happen, on stores in memory and on databases."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import ClassVar

from structlog.testing import CapturingLogger

from tests.leaks.answering import Answering
from tests.leaks.life import Life


class Machine(Answering):
    """On stores in memory."""

    steps: ClassVar[int] = 0
    told: ClassVar[Counter[str]] = Counter()


class MachineOnSqlite(Answering):
    """On databases that all apps open."""

    steps: ClassVar[int] = 0
    told: ClassVar[Counter[str]] = Counter()

    async def begin(self, lines: CapturingLogger) -> Life:
        self.folder = tempfile.TemporaryDirectory()
        return Life(lines, Path(self.folder.name))

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()
