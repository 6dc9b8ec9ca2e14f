"""Fast weights that a stop cannot lose: kept beside the result while a measurement runs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ttt_memory.model.state import FastWeights


class SavedStates:
    """A folder with one file of fast weights per slot, each named by what it was made of.

    Args:
        folder: made at the first save; `clear` removes it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def once(self, slot: str, key: dict[str, Any], work: Callable[[], FastWeights]) -> FastWeights:
        """The state in `slot` if it was made of `key`, else what `work` gives, which takes its place."""
        if (found := self.find(slot, key)) is not None:
            return found
        state = work()
        path, name = self._path(slot), json.dumps(key, sort_keys=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        save_file({k: v.contiguous() for k, v in state.tensors().items()}, unfinished, metadata={"key": name})
        os.replace(unfinished, path)
        return state

    def find(self, slot: str, key: dict[str, Any]) -> FastWeights | None:
        """The state in `slot` if it was made of `key`."""
        return _load(self._path(slot), json.dumps(key, sort_keys=True))

    def clear(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, slot: str) -> Path:
        return self._folder / f"{slot}.safetensors"


def _load(path: Path, name: str) -> FastWeights | None:
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("key") != name:
                return None
            return FastWeights.from_tensors({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError):
        return None
