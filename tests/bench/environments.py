"""One virtual environment for each peer, built from pinned and hashed requirements and kept for next time."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
CACHE: Final = ROOT / ".bench"
PEERS: Final = Path(__file__).resolve().parent / "peers"


class InstallError(RuntimeError):
    """A peer's environment could not be built; the message ends with what the installer said."""


def python_of(peer: str) -> Path:
    """Say where the peer's interpreter is, or will be."""
    return CACHE / peer / "bin" / "python"


def is_ready(peer: str) -> bool:
    """Tell whether the peer's environment holds what its requirements ask for now."""
    stamp = _stamp(peer)
    return stamp.exists() and stamp.read_text() == _fingerprint(peer)


def build(peer: str) -> None:
    """Build the peer's environment anew and remember what it was built from."""
    create_cache()
    shutil.rmtree(CACHE / peer, ignore_errors=True)
    uv = _uv()
    venv.create(CACHE / peer, symlinks=True, with_pip=uv is None)
    _run([*_installer(peer, uv), "--require-hashes", "-r", str(_requirements(peer))], peer)
    _stamp(peer).write_text(_fingerprint(peer))


def create_cache() -> None:
    """Make the folder for environments and scratch files, ignored by git."""
    (CACHE / "scratch").mkdir(parents=True, exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n")


def _installer(peer: str, uv: str | None) -> list[str]:
    if uv is None:
        return [str(python_of(peer)), "-m", "pip", "install", "--quiet"]
    return [uv, "pip", "install", "--quiet", "--python", str(python_of(peer))]


def _uv() -> str | None:
    """Find uv beside this interpreter or on the path; without it pip does the same, more slowly."""
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else shutil.which("uv")


def _run(command: list[str], peer: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InstallError(f"cannot build the environment of {peer}:\n{done.stderr.strip()[-2000:]}")


def _requirements(peer: str) -> Path:
    return PEERS / peer / "requirements.txt"


def _stamp(peer: str) -> Path:
    return CACHE / peer / "built-from"


def _fingerprint(peer: str) -> str:
    digest = hashlib.sha256(_requirements(peer).read_bytes()).hexdigest()
    return f"python {sys.version_info.major}.{sys.version_info.minor} sha256 {digest}"
