"""WordPiece against the reference tokenizer: the same ids at the same characters."""

import argparse
import inspect
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from ttt_memory.artifacts import artifact
from ttt_memory.errors import ModelFormatError
from ttt_memory.notepad.embedders.wordpiece import WordPiece

QUIET = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _old(character):
    """Known to Unicode 3.2: the reference's tables of categories are older than Python's."""
    return unicodedata.ucd_3_2_0.category(character) not in {"Cn", "Co"} and (
        unicodedata.ucd_3_2_0.category(character) == unicodedata.category(character)
    )


TEXTS = st.text(st.characters(exclude_categories=("Cs",)).filter(_old), max_size=80)
WORDS = "The the CAFÉ naïve don't U.S. 3.14 $5 日本語 İstanbul ΣΑΣ ß ﬁ 한국 кот e\u0301 \x00 \t \n \ufffd 🙂 a\u00adb"
PIECES = st.lists(st.sampled_from([" ", *WORDS.split(" ")]), max_size=25).map("".join)


@pytest.fixture(scope="module")
def vocabulary(minilm):
    lines = artifact("minilm").file("vocab.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
    return {word: index for index, word in enumerate(lines)}


@pytest.fixture(scope="module")
def pair(vocabulary):
    reference = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    reference.normalizer = normalizers.BertNormalizer()
    reference.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return WordPiece(vocabulary), reference


def same(pair, text):
    ours, reference = pair
    expected = reference.encode(text, add_special_tokens=False)
    found = ours.tokenize(text)
    assert [token for token, _, _ in found] == expected.ids
    assert [(start, end) for _, start, end in found] == expected.offsets


@QUIET
@given(TEXTS)
def test_any_text(pair, text):
    same(pair, text)


@QUIET
@given(PIECES)
def test_accents_case_scripts_and_controls(pair, text):
    same(pair, text)


@pytest.mark.parametrize("text", ["", " ", "a" * 101, "a" * 100, "x" * 5000 + " y", "[CLS] [UNK]", "##ing", "\x00\x01"])
def test_edges(pair, text):
    same(pair, text)


def test_real_source_code(pair):
    same(pair, inspect.getsource(argparse))


@QUIET
@given(TEXTS | PIECES)
def test_spans_ascend_and_quote_the_text(pair, text):
    spans = [(start, end) for _, start, end in pair[0].tokenize(text)]
    assert spans == sorted(spans)
    assert all(0 <= start < end <= len(text) for start, end in spans)


def test_a_vocabulary_without_its_control_tokens_is_refused():
    with pytest.raises(ModelFormatError, match="UNK"):
        WordPiece({"a": 0})
