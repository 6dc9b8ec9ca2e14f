from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from networks import LLAMA, network

from ttt_memory.errors import InvalidInputError
from ttt_memory.model.config import ModelConfig
from ttt_memory.model.generate import Sampling, _Chooser, _Stream, generate
from ttt_memory.model.loaded import LoadedModel
from ttt_memory.model.tiny import ByteTokenizer, tiny


class Letters(ByteTokenizer):
    """Printable text from a small vocabulary; never stops."""

    stop_tokens = frozenset()

    def decode_bytes(self, ids) -> bytes:  # type: ignore[no-untyped-def]
        return bytes(33 + int(token) % 90 for token in ids)


def model_of(config: ModelConfig = LLAMA) -> LoadedModel:
    net = network(config).requires_grad_(False)
    return LoadedModel("test", net, Letters(), "0", net.dtype)


def test_greedy_text_is_the_argmax_of_one_shot_logits() -> None:
    for config in (LLAMA, replace(LLAMA, window=None)):
        model = model_of(config)
        prompt = np.random.default_rng(0).integers(0, 120, 50)
        state = model.initial_state()
        text = "".join(generate(model, state, prompt, Sampling(max_tokens=30)))
        tokens = torch.from_numpy(prompt)[None]
        for _ in range(30):
            with torch.no_grad():
                logits, _ = model.net(tokens, state, impl="reference")
            tokens = torch.cat((tokens, logits[:, -1:].argmax(-1)), dim=1)
        assert text == model.tokenizer.decode_bytes(tokens[0, 50:]).decode()


def test_a_seed_repeats_itself_and_max_tokens_bounds() -> None:
    model, prompt = model_of(), np.arange(10)
    hot = Sampling(max_tokens=40, temperature=1.5, top_p=0.95, seed=3)
    first, again = ("".join(generate(model, None, prompt, hot)) for _ in range(2))
    other = "".join(generate(model, None, prompt, replace(hot, seed=4)))
    assert first == again != other
    assert len(first) == 40
    assert list(generate(model, None, prompt, Sampling(max_tokens=0)))[-1] == ""


def test_stop_strings_are_never_shown() -> None:
    model, prompt = model_of(), np.arange(10)
    text = "".join(generate(model, None, prompt, Sampling(max_tokens=40)))
    stop = text[11:14]
    pieces = list(generate(model, None, prompt, Sampling(max_tokens=40, stop=(stop, "never"))))
    assert "".join(pieces) == text[: text.index(stop)]


def test_a_stop_string_begun_and_not_finished_is_text() -> None:
    stream = _Stream(("abc",))
    assert [stream.push(b) for b in (b"x", b"a", b"b", b"d", b"ab")] == ["x", "", "", "abd", ""]
    assert stream.finish() == "ab"
    assert not stream.stopped
    stream = _Stream(("ab", "b"))
    assert stream.push(b"aab") == "a"
    assert stream.stopped


def test_characters_are_never_split() -> None:
    stream, data = _Stream(()), "é🙂 ü".encode()
    pieces = [stream.push(data[i : i + 1]) for i in range(len(data))]
    assert "".join(pieces) + stream.finish() == "é🙂 ü"
    assert all("\ufffd" not in piece for piece in pieces)
    cut = _Stream(())
    assert cut.push("🙂".encode()[:2]) + cut.finish() == "\ufffd"


def test_control_returns_between_tokens_and_blocks_of_the_prompt() -> None:
    model = model_of()
    pieces = list(generate(model, None, np.arange(60), Sampling(max_tokens=5)))
    assert len(pieces) == 4 + 5 + 1


def test_stop_tokens_end_the_text() -> None:
    model = tiny()
    head = _Chooser(Sampling())
    assert head(torch.tensor([0.0, 2.0, 1.0])) == 1
    ending = LoadedModel(model.name, model.net, Stopper(), model.fingerprint, model.compute_dtype)
    assert "".join(generate(ending, None, np.arange(5), Sampling(max_tokens=50))) == ""


class Stopper(ByteTokenizer):
    stop_tokens = frozenset(range(259))


def test_top_p_and_the_repetition_penalty() -> None:
    logits = torch.tensor([5.0, 4.9, -10.0, -10.0])
    narrow = _Chooser(Sampling(temperature=1.0, top_p=0.3, seed=0))
    assert {narrow(logits) for _ in range(50)} == {0}
    wide = _Chooser(Sampling(temperature=1.0, top_p=0.99, seed=0))
    assert {wide(logits) for _ in range(50)} == {0, 1}
    penalised = _Chooser(Sampling(repetition_penalty=2.0))
    assert [penalised(logits) for _ in range(2)] == [0, 1]
    negative = _Chooser(Sampling(repetition_penalty=2.0))
    assert [negative(torch.tensor([-1.0, -1.5])) for _ in range(2)] == [0, 1]


@pytest.mark.parametrize(
    "bad",
    [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"max_tokens": -1}, {"repetition_penalty": 0}, {"stop": ("",)}],
)
def test_settings_that_mean_nothing_are_refused(bad: dict) -> None:
    with pytest.raises(InvalidInputError, match="cannot be used"):
        Sampling(**bad)


def test_a_prompt_outside_the_vocabulary_is_refused_and_an_empty_one_is_not() -> None:
    with pytest.raises(InvalidInputError, match="outside the vocabulary"):
        next(generate(tiny(), None, np.array([999])))
    assert isinstance("".join(generate(tiny(), None, np.zeros(0, np.int32), Sampling(max_tokens=3))), str)
