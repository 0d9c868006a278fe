"""LangChain's own standard tests, over the local model seen as a LangChain chat model."""

from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from ringwall.model.langchain import ChatRingwall
from ringwall_llama import LlamaCpp


class OverLlama:
    """What both suites are told of the model."""

    llama: LlamaCpp

    @pytest.fixture(autouse=True)
    def _with_llama(self, llama: LlamaCpp) -> None:
        type(self).llama = llama

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatRingwall

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"provider": self.llama}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        """Short replies: what is tested is their form."""
        return {"temperature": 0, "max_tokens": 64}


class TestUnit(OverLlama, ChatModelUnitTests):
    """The shape of the class."""


on_the_edge = pytest.mark.xfail(
    strict=False,
    raises=AssertionError,
    reason="whether this smallest of models copies the 3 of the question hangs on the last digits of its logits, "
    "which differ between processors' kernels; that its calls parse and fit is tested in test_llama.py",
)


class TestIntegration(OverLlama, ChatModelIntegrationTests):
    """What it does when it is called."""

    @on_the_edge
    def test_tool_calling(self, model: BaseChatModel) -> None:
        super().test_tool_calling(model)

    @on_the_edge
    async def test_tool_calling_async(self, model: BaseChatModel) -> None:
        await super().test_tool_calling_async(model)
