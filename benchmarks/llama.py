"""llama.cpp on the same GGUF, the same token ids and the same number of threads, for comparison."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from ttt_memory.artifacts import BASE_MODEL, artifact
from ttt_memory.errors import ModelNotFoundError


@dataclass(frozen=True)
class Rates:
    """Tokens per second of one prompt and of the tokens fed one by one behind it."""

    prefill: float
    decode: float


class LlamaCpp:
    """One context of llama.cpp.

    Decoding is fed given tokens one by one, without sampling, which favours llama.cpp slightly: ours chooses them.

    Args:
        threads: for prompts and for single tokens.
        context: tokens it can hold.
        flash: its flash attention.
        repack: let it keep weights in another layout (AMX tiles and the like), its default.
    """

    def __init__(self, threads: int, context: int, *, flash: bool, repack: bool) -> None:
        import llama_cpp

        source = artifact(BASE_MODEL)
        if not source.present:
            raise ModelNotFoundError("The GGUF file is not on this machine.", fix="ttt-memory model pull")
        if not repack:
            _without_repacking(llama_cpp.llama_cpp)
        self._llama: Any = llama_cpp.Llama(
            model_path=str(source.file(source.members[0].filename)),
            n_ctx=context,
            n_batch=512,
            n_ubatch=512,
            n_threads=threads,
            n_threads_batch=threads,
            flash_attn=flash,
            verbose=False,
        )

    def rates(self, prompt: np.ndarray, following: np.ndarray) -> Rates:
        """Read `prompt` from nothing, then `following` token by token."""
        self._llama.reset()
        started = time.perf_counter()
        self._llama.eval(prompt.tolist())
        read = time.perf_counter()
        for token in following.tolist():
            self._llama.eval([token])
        done = time.perf_counter()
        return Rates(len(prompt) / (read - started), len(following) / (done - read))

    def close(self) -> None:
        """Free it."""
        self._llama.close()


def installed() -> bool:
    """Whether llama-cpp-python is there (`pip install 'ttt-memory[bench]'`)."""
    return importlib.util.find_spec("llama_cpp") is not None


def repacking_works() -> bool:
    """Whether llama.cpp survives its own default on this machine, tried in a process of its own.

    On processors with AMX some builds crash at the first prompt (ggml-org/llama.cpp issue 20824).
    """
    return subprocess.run([sys.executable, __file__], check=False, capture_output=True).returncode == 0


def _without_repacking(bindings: Any) -> None:
    defaults = bindings.llama_model_default_params

    def changed() -> Any:
        parameters = defaults()
        parameters.use_extra_bufts = False
        return parameters

    bindings.llama_model_default_params = changed


if __name__ == "__main__":
    probe = LlamaCpp(1, 256, flash=False, repack=True)
    probe.rates(np.arange(100, 200), np.arange(100, 102))
