"""Vocabularies out of GGUF metadata and Hugging Face files (`tokenizer.json`, or `vocab.json` with `merges.txt`)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ttt_memory.errors import ModelFormatError
from ttt_memory.model.tokenizer import ChatStyle, Vocabulary

_CONTRACTIONS = r"'s|'t|'re|'ve|'m|'ll|'d"
GPT2 = rf"{_CONTRACTIONS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+"
SMOLLM = rf"{_CONTRACTIONS}| ?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+|\s+(?![^\s\p{{N}}])|\s+"
"""GPT-2's with every digit alone: digits are cut out first, so white space before one ends its piece."""
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

_GGUF_PATTERNS = {"smollm": SMOLLM, "gpt-2": GPT2, "llama-bpe": LLAMA3, "qwen2": QWEN2}
_GGUF_CONTROL = 3
_SUPPORTED = "Supported are byte-level BPE tokenizers with the pre-tokenizers of GPT-2, SmolLM, Llama 3 and Qwen 2."
_STOP_STRINGS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "</s>")


def from_gguf(metadata: Mapping[str, Any], vocab_size: int) -> Vocabulary:
    """Vocabulary of a GGUF file. Raises ModelFormatError unless it is byte-level BPE with a known pre-tokenizer."""
    kind, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if kind != "gpt2" or pre not in _GGUF_PATTERNS:
        raise _unsupported(f"the file's tokenizer is {kind!r} with pre-tokenizer {pre!r}")
    tokens: Any = metadata.get("tokenizer.ggml.tokens")
    merges: Any = metadata.get("tokenizer.ggml.merges")
    kinds = metadata.get("tokenizer.ggml.token_type")
    if not _strings(tokens) or not _strings(merges) or kinds is None or len(kinds) != len(tokens):
        raise _unsupported("the file lacks tokens, merges or token types")
    special = {token: i for i, token in enumerate(tokens) if int(kinds[i]) == _GGUF_CONTROL}
    template = metadata.get("tokenizer.chat_template")
    return _vocabulary(
        {token: i for i, token in enumerate(tokens) if token not in special},
        [tuple(merge.split(" ")) for merge in merges],
        special,
        pattern=_GGUF_PATTERNS[pre],
        vocab_size=vocab_size,
        eos=[metadata.get("tokenizer.ggml.eos_token_id")],
        template=template if isinstance(template, str) else "",
    )


def from_folder(folder: Path, hf_config: Mapping[str, Any]) -> Vocabulary:
    """Vocabulary of a Hugging Face model folder. Raises ModelFormatError unless it is a supported byte-level BPE."""
    settings = _json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    template = settings.get("chat_template")
    if not template and (folder / "chat_template.jinja").is_file():
        template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    eos = hf_config.get("eos_token_id")
    common: dict[str, Any] = {
        "vocab_size": hf_config.get("vocab_size"),
        "eos": eos if isinstance(eos, list) else [eos],
        "template": template if isinstance(template, str) else "",
    }
    if not isinstance(common["vocab_size"], int):
        raise _unsupported("config.json has no vocab_size")
    if (folder / "tokenizer.json").is_file():
        return _from_tokenizer_json(_json(folder / "tokenizer.json"), common)
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
        merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
        vocab = _json(folder / "vocab.json")
        special = {token: i for token, i in vocab.items() if re.fullmatch(r"<\|.*\|>|</?s>|<unk>|<pad>", token)}
        plain = {token: i for token, i in vocab.items() if token not in special}
        return _vocabulary(plain, merges, special, pattern=GPT2, **common)
    raise _unsupported(f"{folder} holds neither tokenizer.json nor vocab.json and merges.txt")


def _from_tokenizer_json(values: Mapping[str, Any], common: Mapping[str, Any]) -> Vocabulary:
    model = values.get("model") or {}
    if model.get("type") != "BPE" or model.get("byte_fallback") or not isinstance(model.get("vocab"), dict):
        raise _unsupported(f"tokenizer.json holds a {model.get('type')} model, not byte-level BPE")
    normalizer = values.get("normalizer")
    if normalizer is not None and normalizer.get("type") != "NFC":
        raise _unsupported(f"tokenizer.json has the normalizer {normalizer.get('type')}")
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model.get("merges", ())]
    added = {token["content"]: token["id"] for token in values.get("added_tokens", ())}
    plain = {token: i for token, i in model["vocab"].items() if token not in added}
    return _vocabulary(
        plain, merges, added, pattern=_pattern(values.get("pre_tokenizer")), nfc=normalizer is not None, **common
    )


def _pattern(pre_tokenizer: Mapping[str, Any] | None) -> str:
    """tiktoken's regex for a chain of pre-tokenizers."""
    steps = [] if pre_tokenizer is None else pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    match steps:
        case [{"type": "ByteLevel", **level}] if level.get("use_regex", True) and not level.get("add_prefix_space"):
            return GPT2
        case [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", **level}] if level.get(
            "use_regex", True
        ) and not level.get("add_prefix_space"):
            return SMOLLM
        case [
            {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", **split},
            {"type": "ByteLevel", "use_regex": False, **level},
        ] if not split.get("invert") and not level.get("add_prefix_space"):
            return pattern
    raise _unsupported(f"tokenizer.json has the pre-tokenizers {[step.get('type') for step in steps]}")


def _vocabulary(
    plain: Mapping[str, int],
    merges: Sequence[tuple[str, ...]],
    special: Mapping[str, int],
    *,
    pattern: str,
    vocab_size: int,
    eos: Iterable[Any],
    template: str,
    nfc: bool = False,
) -> Vocabulary:
    """Single bytes first, then the results of the merges in their order: the ranks that make tiktoken merge alike."""
    order = {bytes([byte]): plain.get(character, -1) for character, byte in _ALPHABET.items()}
    for merge in merges:
        if len(merge) != 2:
            raise _unsupported(f"malformed merge {merge!r}")
        result = "".join(merge)
        if result not in plain:
            raise _unsupported(f"the merge {merge!r} makes no token")
        order.setdefault(_to_bytes(result), plain[result])
    style = _style(special)
    stop = {i for i in eos if isinstance(i, int)} | {special[text] for text in _STOP_STRINGS if text in special}
    system = re.search(r"<\|im_start\|>system(?:\\n|\n)([^{}'<]+?)<\|im_end\|>", template)
    return Vocabulary(
        pattern=pattern,
        tokens=tuple(order),
        ids=tuple(order.values()),
        special=dict(special),
        vocab_size=vocab_size,
        stop=tuple(sorted(stop)),
        chat_style=style,
        default_system=system.group(1) if system and style == "chatml" else None,
        nfc=nfc,
        begin=special.get("<|begin_of_text|>") if style == "llama3" else None,
    )


def _style(special: Mapping[str, int]) -> ChatStyle:
    if {"<|im_start|>", "<|im_end|>"} <= set(special):
        return "chatml"
    return "llama3" if {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"} <= set(special) else "plain"


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for the 256 bytes: printable Latin-1 as itself, the rest from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in sorted(printable)} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


_ALPHABET = _byte_alphabet()


def _to_bytes(token: str) -> bytes:
    try:
        return bytes(_ALPHABET[character] for character in token)
    except KeyError as error:
        raise _unsupported(f"the token {token!r} is not written in byte symbols") from error


def _strings(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFormatError(f"Cannot read {path}.", why=str(error), path=str(path)) from error
    if not isinstance(values, dict):
        raise ModelFormatError(f"{path} does not hold a JSON object.", path=str(path))
    return values


def _unsupported(why: str) -> ModelFormatError:
    return ModelFormatError("This model's tokenizer cannot be used.", why=why, fix=_SUPPORTED)
