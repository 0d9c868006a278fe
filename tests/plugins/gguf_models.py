"""GGUF files of encoders, made of the weights of all-MiniLM-L6-v2: an embedder, and a reranker with a made-up head."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from gguf import MODEL_ARCH, GGMLQuantizationType, GGUFWriter, PoolingType, TokenType, get_tensor_name_map, quants
from safetensors.numpy import load_file

from ringwall_minilm.files import bundled_folder

LAYERS: Final = 6
FLOAT_ONLY: Final = ("position_embd.weight", "token_types.weight")
"""What llama.cpp adds to 32-bit floats, and can only if it is of them too."""

Tensor = npt.NDArray[np.float32]


def write_encoder(
    path: Path,
    *,
    pooling: PoolingType | None = PoolingType.MEAN,
    head: Mapping[str, Tensor] | None = None,
    type: GGMLQuantizationType = GGMLQuantizationType.F32,
    float_only: tuple[str, ...] = FLOAT_ONLY,
    vocabulary: bool = True,
) -> Path:
    """The encoder with this pooling and these tensors of a classifier beside it, its matrices of this type."""
    writer = GGUFWriter(path, "bert")
    _add_shape(writer)
    if pooling is not None:
        writer.add_pooling_type(pooling)
    if vocabulary:
        _add_vocabulary(writer)
    else:
        writer.add_tokenizer_model("no_vocab")
    for name, tensor in (*_encoder().items(), *(head or {}).items()):
        if tensor.ndim > 1 and name not in float_only and tensor.shape[-1] % 32 == 0:
            writer.add_tensor(name, quants.quantize(tensor, type), raw_dtype=type)
        else:
            writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _encoder() -> dict[str, Tensor]:
    names = get_tensor_name_map(MODEL_ARCH.BERT, LAYERS)
    found: dict[str, Tensor] = {}
    for name, tensor in load_file(bundled_folder() / "model.safetensors").items():
        new = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if new and "pooler" not in name and "position_ids" not in name:
            found[new] = tensor.astype(np.float32)
    return found


def _add_shape(writer: GGUFWriter) -> None:
    writer.add_context_length(512)
    writer.add_embedding_length(384)
    writer.add_feed_forward_length(1536)
    writer.add_block_count(LAYERS)
    writer.add_head_count(12)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_vocab_size(30_522)
    writer.add_token_type_count(2)


def _add_vocabulary(writer: GGUFWriter) -> None:
    """WordPiece as llama.cpp wants it: what begins a word has a mark, what continues one has none."""
    vocabulary: dict[str, int] = json.loads((bundled_folder() / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    pieces = sorted(vocabulary, key=vocabulary.__getitem__)
    special = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    writer.add_tokenizer_model("bert")
    writer.add_token_list([p if p in special else p[2:] if p.startswith("##") else f"\u2581{p}" for p in pieces])
    writer.add_token_types([TokenType.CONTROL if p in special else TokenType.NORMAL for p in pieces])
    writer.add_bos_token_id(vocabulary["[CLS]"])
    writer.add_eos_token_id(vocabulary["[SEP]"])
    writer.add_sep_token_id(vocabulary["[SEP]"])
    writer.add_unk_token_id(vocabulary["[UNK]"])
    writer.add_pad_token_id(vocabulary["[PAD]"])
    writer.add_mask_token_id(vocabulary["[MASK]"])
