"""The forward pass as an ONNX graph, made of what onnxruntime computes fastest on a CPU.

All texts of a batch have the same number of tokens: nothing is padded, and nothing needs a mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from ringwall_minilm.files import LAYERS, Tensor

Precision = Literal["float32", "int8"]

_HEADS: Final = 12
_EPSILON: Final = 1e-12
_CONTRIB: Final = "com.microsoft"
_OPERATORS: Final = {"": 20, _CONTRIB: 1}
_FORMAT: Final = 10
"""Versions of the operators and of the file format that every onnxruntime we allow can read."""

_MOST: Final = 63
"""The largest quantised weight: 7 bits of 8, since a processor without VNNI adds two products in 16."""


@dataclass(slots=True)
class _Graph:
    """Nodes and constants, in the order in which they are added."""

    precision: Precision
    weights: Mapping[str, Tensor]
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def constant(self, array: npt.NDArray[Any]) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, operator: str, *inputs: str, contrib: bool = False, **attributes: Any) -> str:
        name = f"{operator}_{len(self.nodes)}"
        domain = _CONTRIB if contrib else ""
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, domain=domain, **attributes))
        return name

    def linear(self, x: str, name: str) -> str:
        weight, bias = self.weights[f"{name}.weight"].T, self.constant(self.weights[f"{name}.bias"])
        if self.precision == "float32":
            return self.node("Gemm", x, self.constant(weight), bias)
        quantised, scale = _quantised(weight)
        inputs = (x, self.constant(quantised), self.constant(scale), "", bias)
        return self.node("DynamicQuantizeMatMul", *inputs, contrib=True)

    def norm(self, x: str, name: str) -> str:
        scale, bias = (self.constant(self.weights[f"{name}.LayerNorm.{part}"]) for part in ("weight", "bias"))
        return self.node("LayerNormalization", x, scale, bias, epsilon=_EPSILON)


def build(weights: Mapping[str, Tensor], precision: Precision) -> ModelProto:
    """The model: `ids`, int32 by text and token, to one vector of unit length for each text."""
    graph = _Graph(precision, weights)
    x = _embed(graph)
    texts_tokens_width = graph.node("Shape", x)
    x = graph.node("Reshape", x, graph.constant(np.array([-1, weights["embeddings.LayerNorm.bias"].size])))
    for layer in range(LAYERS):
        x = _layer(graph, x, texts_tokens_width, f"encoder.layer.{layer}")
    mean = graph.node("ReduceMean", graph.node("Reshape", x, texts_tokens_width), graph.constant(np.array([1])))
    return _model(graph, graph.node("LpNormalization", graph.node("Squeeze", mean, graph.constant(np.array([1])))))


def _embed(graph: _Graph) -> str:
    """Words and positions; every token is of the first of the two types, so that one is added here."""
    w = graph.weights
    positions = w["embeddings.position_embeddings.weight"] + w["embeddings.token_type_embeddings.weight"][0]
    words = graph.node("Gather", graph.constant(w["embeddings.word_embeddings.weight"]), "ids")
    tokens = graph.node("Shape", "ids", start=1)
    first = graph.node("Slice", graph.constant(positions), graph.constant(np.array([0])), tokens)
    return graph.norm(graph.node("Add", words, first), "embeddings")


def _layer(graph: _Graph, x: str, texts_tokens_width: str, name: str) -> str:
    """Attention and the two linear steps after it; between them each token is a row, whatever text it is of."""
    width = graph.constant(np.array([-1, graph.weights[f"{name}.output.dense.bias"].size]))
    parts = (graph.linear(x, f"{name}.attention.self.{part}") for part in ("query", "key", "value"))
    by_text = [graph.node("Reshape", part, texts_tokens_width) for part in parts]
    seen = graph.node("MultiHeadAttention", *by_text, contrib=True, num_heads=_HEADS)
    seen = graph.linear(graph.node("Reshape", seen, width), f"{name}.attention.output.dense")
    x = graph.norm(graph.node("Add", x, seen), f"{name}.attention.output")
    inner = graph.node("Gelu", graph.linear(x, f"{name}.intermediate.dense"))
    return graph.norm(graph.node("Add", x, graph.linear(inner, f"{name}.output.dense")), f"{name}.output")


def _quantised(weight: Tensor) -> tuple[npt.NDArray[np.int8], Tensor]:
    """Whole numbers, and what one of them stands for, column by column."""
    scale = np.abs(weight).max(axis=0) / np.float32(_MOST)
    return np.round(weight / scale).astype(np.int8), scale


def _model(graph: _Graph, output: str) -> ModelProto:
    ids = helper.make_tensor_value_info("ids", TensorProto.INT32, ["texts", "tokens"])
    vectors = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["texts", None])
    made = helper.make_graph(graph.nodes, "minilm", [ids], [vectors], graph.constants)
    operators = [helper.make_opsetid(domain, version) for domain, version in _OPERATORS.items()]
    return helper.make_model(made, opset_imports=operators, ir_version=_FORMAT)
