"""An app as the command line names it: `package.module:attribute`, found from the present folder."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from ringwall.app import App
from ringwall.errors import ConfigurationError, RingwallError


def app_named(name: str) -> App:
    """Import the app `module:attribute`. Raises `ConfigurationError` if there is none."""
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ConfigurationError(f"no app {name!r}", expected="MODULE:NAME, as in `main:app`")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(import_module(module), attribute)
    except RingwallError:
        raise
    except Exception as error:  # whatever the module does when it is imported
        raise ConfigurationError(f"no app {name!r}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    if not isinstance(found, App):
        raise ConfigurationError(f"{name!r} is a {type(found).__name__}", expected="a `ringwall.App`")
    return found


__all__ = ["app_named"]
