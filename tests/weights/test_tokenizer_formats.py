"""Vocabularies out of Hugging Face folders: the same ids as `tokenizers`, or a refusal that says what is supported."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from tests.weights.helpers import CORPUS, PRE_TOKENIZERS, byte_level
from ttt_memory.errors import ModelFormatError
from ttt_memory.model.tokenizer import BytePairTokenizer
from ttt_memory.model.tokenizer_formats import from_folder, from_gguf

CONFIG = {"vocab_size": 400, "eos_token_id": 2}
TEXTS = st.text(st.sampled_from("abeht rs\n\t012'!.é日 本_-<|>"), max_size=60) | st.sampled_from(CORPUS)


@pytest.fixture(scope="module", params=PRE_TOKENIZERS)
def pair(request, tmp_path_factory):
    reference = byte_level(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    reference.save(str(folder / "tokenizer.json"))
    return BytePairTokenizer(from_folder(folder, CONFIG)), reference


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS)
def test_ids_are_the_references(pair, text):
    ours, reference = pair
    stripped = text.replace("<|", "")  # there, special strings in data are interpreted; here they are not
    assert ours.encode(stripped).tolist() == reference.encode(stripped).ids
    assert ours.decode(ours.encode(text)) == text


def test_vocab_json_with_merges_txt(tmp_path):
    reference = byte_level("gpt-2")
    reference.model.save(str(tmp_path))
    tokenizer = BytePairTokenizer(from_folder(tmp_path, CONFIG))
    assert tokenizer.stop_tokens == {0, 2}
    for text in CORPUS[:3]:
        assert tokenizer.encode(text).tolist() == reference.encode(text).ids


def test_nfc_normalisation_is_kept(tmp_path):
    reference = byte_level("gpt-2")
    reference.normalizer = normalizers.NFC()
    reference.save(str(tmp_path / "tokenizer.json"))
    tokenizer = BytePairTokenizer(from_folder(tmp_path, CONFIG))
    assert tokenizer.encode("cafe\u0301").tolist() == reference.encode("cafe\u0301").ids


def test_templates_are_chosen_by_the_control_tokens(tmp_path):
    reference = byte_level("llama-bpe")
    controls = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    reference.add_special_tokens(controls)
    values = json.loads(reference.to_str())
    values["added_tokens"] = [t for t in values["added_tokens"] if "im_" not in t["content"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    begin, opening, closing, end = (reference.token_to_id(token) for token in controls)
    tokenizer = BytePairTokenizer(from_folder(tmp_path, {"vocab_size": 404, "eos_token_id": [2]}))
    ids = tokenizer.chat([("user", " hi ")], generation_prompt=True).tolist()
    words = [tokenizer.encode(text).tolist() for text in ("user", "\n\nhi", "assistant", "\n\n")]
    expected = [begin, opening, *words[0], closing, *words[1], end, opening, *words[2], closing, *words[3]]
    assert ids == expected
    assert end in tokenizer.stop_tokens


def test_without_control_tokens_turns_are_plain_lines(tmp_path):
    values = json.loads(byte_level("gpt-2").to_str())
    values["added_tokens"] = []
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    tokenizer = BytePairTokenizer(from_folder(tmp_path, CONFIG))
    ids = tokenizer.chat([("system", "Be brief."), ("user", "Hi")], generation_prompt=True)
    assert tokenizer.decode(ids) == "System: Be brief.\nUser: Hi\nAssistant:"


def _edited(tmp_path, edit):
    values = json.loads(byte_level("smollm").to_str())
    edit(values)
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    return tmp_path


def _set(*path, to):
    def edit(values):
        for key in path[:-1]:
            values = values[key]
        values[path[-1]] = to

    return edit


@pytest.mark.parametrize(
    "edit",
    [
        _set("model", "type", to="WordPiece"),
        _set("model", "byte_fallback", to=True),
        _set("pre_tokenizer", to={"type": "Metaspace"}),
        _set("pre_tokenizer", to=None),
        _set("normalizer", to={"type": "Lowercase"}),
        _set("model", "merges", to=[["a", "no-such-token"]]),
        _set("model", "merges", to=["a b c"]),
        _set("model", "vocab", to={"日本": 5}),
    ],
)
def test_other_tokenizers_are_refused_by_name(tmp_path, edit):
    with pytest.raises(ModelFormatError) as caught:
        from_folder(_edited(tmp_path, edit), CONFIG)
    assert caught.value.why or caught.value.fix


def test_sentencepiece_like_models_are_refused(tmp_path):
    tokenizer = Tokenizer(models.BPE(byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ModelFormatError, match="byte-level"):
        from_folder(tmp_path, CONFIG)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(ModelFormatError, match=r"tokenizer\.json"):
        from_folder(tmp_path, CONFIG)


def test_ids_beyond_the_embedding_are_refused(tmp_path):
    byte_level().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ModelFormatError, match="outside"):
        from_folder(tmp_path, {"vocab_size": 300})


@pytest.mark.parametrize("metadata", [{}, {"tokenizer.ggml.model": "llama"}, {"tokenizer.ggml.model": "gpt2"}])
def test_gguf_files_with_other_tokenizers_are_refused(metadata):
    with pytest.raises(ModelFormatError, match="pre-tokenizer"):
        from_gguf(metadata, 400)
