"""Errors as values: what one says does not depend on where it was raised."""

from __future__ import annotations

import pickle

import pytest

from ringwall.errors import (
    ContextOverflow,
    DocumentWithoutReaders,
    FlowDenied,
    InvalidInput,
    ProviderUnavailable,
    RingwallError,
    WorkerDied,
)


@pytest.mark.parametrize(
    "error",
    [
        InvalidInput("a", expected="b", hint="c"),
        DocumentWithoutReaders("menu.md"),
        ContextOverflow(5, 3, reserved=2),
        ProviderUnavailable("busy", provider="p", retry_after=2.0),
        FlowDenied("no", rule="r"),
        WorkerDied(),
    ],
)
def test_an_error_comes_back_from_another_process_as_it_was(error: RingwallError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.args, vars(again)) == (type(error), str(error), error.args, vars(error))
