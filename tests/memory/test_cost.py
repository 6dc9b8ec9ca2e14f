"""The cost of `ask(mode="weights")` does not depend on what was read."""

from torch.utils.flop_counter import FlopCounterMode

from tests.memory.helpers import open_tiny, text
from ttt_memory import Sampling
from ttt_memory.answerers import generate
from ttt_memory.model.cache import PassCache


def cost(memory, monkeypatch):
    """(floating-point operations, longest key cache, state bytes, tokens) of one closed-book answer."""
    handle = memory._handle
    sampling = Sampling(max_tokens=16, temperature=0.0)
    with FlopCounterMode(display=False) as counter:
        pieces = list(generate.answer(handle.model, handle.published.weights, "What was said?", [], sampling))
    return counter.get_total_flops(), handle.published.weights.nbytes, len(pieces) > 0


def test_flops_and_state_are_equal_after_1k_and_64k_tokens(tmp_path, monkeypatch):
    with open_tiny(tmp_path) as memory:
        memory.ingest(text(1, 160)[:1000])
        early = cost(memory, monkeypatch)
        memory.ingest(text(2, 10_000)[:63_000])
        assert memory.stats().learned_tokens >= 64_000
        late = cost(memory, monkeypatch)
    assert early[0] > 0
    assert early == late


def test_the_key_cache_stops_growing_at_the_window(tmp_path):
    with open_tiny(tmp_path) as memory:
        model = memory._handle.model
        lengths = []
        for count in (1_000, 64_000):
            ids = model.tokenizer.encode("a" * 4_000)
            cache: PassCache = model.net.empty_cache()
            import torch

            with torch.no_grad():
                for block in torch.from_numpy(ids[: min(count, 4_000)].astype("int64")).split(500):
                    _, cache = model.net.read(block[None], None, cache)
            lengths.append(cache.nbytes)
        assert lengths[0] == lengths[1]
