"""Hugging Face model folders: `config.json` with one or many `*.safetensors`."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ttt_memory.errors import ModelFormatError

_IDENTITY_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
)


class SafetensorsFolder:
    """A folder of weights, read tensor by tensor. Raises ModelFormatError for anything malformed or missing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hf_config = _modern(self._json("config.json"))
        self._where = self._index()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors."""
        return tuple(self._where)

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """Every file that decides what the model computes."""
        others = [self.path / name for name in _IDENTITY_FILES if (self.path / name).is_file()]
        return (*others, *sorted(set(self._where.values())))

    def tensor(self, name: str) -> Tensor:
        """One tensor in the file's own dtype."""
        try:
            with safe_open(self._where[name], framework="pt") as file:
                tensor: Tensor = file.get_tensor(name)
                return tensor
        except (SafetensorError, OSError) as error:
            raise self._bad(f"tensor {name!r}: {error}") from error

    def _index(self) -> dict[str, Path]:
        if (self.path / "model.safetensors.index.json").is_file():
            listed = self._json("model.safetensors.index.json").get("weight_map")
            if not isinstance(listed, dict):
                raise self._bad("the index has no weight_map")
            where = {str(name): self._inside(str(file)) for name, file in listed.items()}
        else:
            where = {name: file for file in sorted(self.path.glob("*.safetensors")) for name in self._keys(file)}
        if not where:
            raise self._bad("it holds no *.safetensors")
        return {name: file for name, file in where.items() if not name.endswith("rotary_emb.inv_freq")}

    def _keys(self, file: Path) -> list[str]:
        try:
            with safe_open(file, framework="pt") as opened:
                return list(opened.keys())
        except (SafetensorError, OSError) as error:
            raise self._bad(f"{file.name}: {error}") from error

    def _inside(self, name: str) -> Path:
        file = self.path / name
        if Path(name).name != name or not file.is_file():
            raise self._bad(f"the index names {name!r}, which is not in the folder")
        return file

    def _json(self, name: str) -> dict[str, Any]:
        try:
            values = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise self._bad(f"{name}: {error}") from error
        if not isinstance(values, dict):
            raise self._bad(f"{name} does not hold a JSON object")
        return values

    def _bad(self, why: str) -> ModelFormatError:
        return ModelFormatError(
            f"{self.path} is not a model folder this package can read.",
            why=why,
            fix="It needs config.json, *.safetensors (with their index if there are several) and tokenizer.json.",
            path=str(self.path),
        )


def _modern(config: dict[str, Any]) -> dict[str, Any]:
    """Newer files keep the rotary settings in `rope_parameters`; show them under the older names too."""
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict):
        return config
    older: dict[str, Any] = {} if "rope_theta" not in rope else {"rope_theta": rope["rope_theta"]}
    return older | {"rope_scaling": rope} | config
