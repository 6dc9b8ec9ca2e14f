"""One Llama-family model on disk, read under Hugging Face names whatever the file format."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ttt_memory.errors import ModelFormatError
from ttt_memory.model.gguf import GGUFFile
from ttt_memory.model.safetensors_folder import SafetensorsFolder
from ttt_memory.model.tokenizer import Vocabulary
from ttt_memory.model.tokenizer_formats import from_folder, from_gguf

_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_BLOCK = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@dataclass(frozen=True)
class LlamaSource:
    """A model as its author published it.

    Attributes:
        path: the file or folder.
        files: the files that hold it; their sizes and times identify it.
        hf_config: `config.json` of Hugging Face's Llama, derived where the format has none.
        tensors: lazily read bf16 tensors under Hugging Face names, half-split RoPE layout.
        vocabulary: reads the tokenizer.
        licence: as the file states it, else `unknown`.
    """

    path: Path
    files: tuple[Path, ...]
    hf_config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    vocabulary: Callable[[], Vocabulary]
    licence: str


def open_llama(path: Path) -> LlamaSource:
    """Open a `.gguf` file or a safetensors folder.

    Raises ModelFormatError if it is neither, or is not a plain Llama-family model.
    """
    if path.is_file() and path.suffix.lower() == ".gguf":
        return _open_gguf(path)
    if path.is_dir():
        folder = SafetensorsFolder(path)
        _check_family(folder.hf_config, path)
        return LlamaSource(
            path=path,
            files=folder.files,
            hf_config=folder.hf_config,
            tensors=_Lazy(folder.names, lambda name: folder.tensor(name).to(torch.bfloat16)),
            vocabulary=lambda: from_folder(path, folder.hf_config),
            licence="unknown",
        )
    raise ModelFormatError(
        f"{path} is neither a .gguf file nor a folder of safetensors.",
        fix="Give a .gguf file, or a folder with config.json, *.safetensors and tokenizer.json.",
        path=str(path),
    )


def _open_gguf(path: Path) -> LlamaSource:
    file = GGUFFile(path)
    hf_config = _gguf_config(file)
    names = {_hf_name(name, path): name for name in file.tensors}
    heads = {"q_proj": hf_config["num_attention_heads"], "k_proj": hf_config["num_key_value_heads"]}

    def read(name: str) -> Tensor:
        tensor = torch.from_numpy(file.tensor(names[name]))
        if found := re.search(r"\.([qk]_proj)\.weight$", name):
            tensor = _half_split(tensor, heads[found.group(1)], path)
        return tensor.to(torch.bfloat16)

    return LlamaSource(
        path=path,
        files=(path,),
        hf_config=hf_config,
        tensors=_Lazy(tuple(names), read),
        vocabulary=lambda: from_gguf(file.metadata, hf_config["vocab_size"]),
        licence=str(file.metadata.get("general.license", "unknown")),
    )


class _Lazy(Mapping[str, Tensor]):
    """Reads a tensor when it is asked for, and refuses values that are not finite."""

    def __init__(self, names: tuple[str, ...], read: Callable[[str], Tensor]) -> None:
        self._names, self._read = names, read

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        tensor = self._read(name)
        if not torch.isfinite(tensor).all():
            raise ModelFormatError(f"The tensor {name!r} holds values that are not finite.")
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _hf_name(name: str, path: Path) -> str:
    if (found := re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)) and found.group(2) in _BLOCK:
        return f"model.layers.{found.group(1)}.{_BLOCK[found.group(2)]}.weight"
    if (found := re.fullmatch(r"(\w+)\.weight", name)) and found.group(1) in _TOP:
        return f"{_TOP[found.group(1)]}.weight"
    raise ModelFormatError(f"The tensor {name!r} does not belong to a plain Llama model.", path=str(path))


def _half_split(weight: Tensor, heads: int, path: Path) -> Tensor:
    """GGUF interleaves the two halves of each head's rotation pairs; put them side by side again. [heads * d, in]."""
    shape = tuple(weight.shape)
    if len(shape) != 2 or shape[0] % (2 * heads):
        raise ModelFormatError(f"A projection of shape {shape} does not fit {heads} heads.", path=str(path))
    return weight.reshape(heads, shape[0] // heads // 2, 2, -1).transpose(1, 2).reshape(shape)


def _gguf_config(file: GGUFFile) -> dict[str, Any]:
    meta = file.metadata
    if (architecture := meta.get("general.architecture")) != "llama":
        raise _foreign(file.path, f"its architecture is {architecture!r}")
    if any(key.startswith("llama.rope.scaling.") and key.endswith(".factor") for key in meta):
        raise _foreign(file.path, "it scales its rotary positions")
    if meta.get("llama.expert_count"):
        raise _foreign(file.path, "it is a mixture of experts")

    def number(key: str, default: float | None = None) -> Any:
        value = meta.get(f"llama.{key}", default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 2**32:
            raise ModelFormatError(f"{file.path} has no usable llama.{key}.", why=repr(value), path=str(file.path))
        return value

    hidden, heads = number("embedding_length"), number("attention.head_count")
    embedding = file.tensors.get("token_embd.weight")
    return {
        "model_type": "llama",
        "hidden_size": hidden,
        "num_hidden_layers": number("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": number("attention.head_count_kv", heads),
        "head_dim": number("attention.key_length", hidden // heads),
        "intermediate_size": number("feed_forward_length"),
        "vocab_size": embedding.shape[0] if embedding and embedding.shape else number("vocab_size"),
        # The file keeps fp32; the model's author wrote a decimal.
        "rms_norm_eps": float(f"{number('attention.layer_norm_rms_epsilon'):.6g}"),
        "rope_theta": float(number("rope.freq_base", 10_000.0)),
        "max_position_embeddings": number("context_length"),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "hidden_act": "silu",
    }


def _check_family(config: Mapping[str, Any], path: Path) -> None:
    if config.get("model_type") != "llama":
        raise _foreign(path, f"its model_type is {config.get('model_type')!r}")
    if config.get("attention_bias") or config.get("mlp_bias"):
        raise _foreign(path, "its projections have biases")
    if config.get("hidden_act", "silu") != "silu":
        raise _foreign(path, f"its activation is {config['hidden_act']!r}")
    scaling = config.get("rope_scaling") or {}
    if scaling.get("rope_type", scaling.get("type", "default")) != "default":
        raise _foreign(path, f"it scales its rotary positions: {json.dumps(scaling)}")


def _foreign(path: Path, why: str) -> ModelFormatError:
    return ModelFormatError(
        f"The model in {path} is not one this package can run.",
        why=why,
        fix="Use a plain Llama-family model: RMSNorm, SwiGLU, rotary positions without scaling, no biases.",
        path=str(path),
    )
