"""The default model's tokenizer, ours and the reference implementation of the same vocabulary."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from ttt_memory.artifacts import BASE_MODEL, artifact
from ttt_memory.model.gguf import GGUFFile
from ttt_memory.model.tokenizer import BytePairTokenizer
from ttt_memory.model.tokenizer_formats import from_gguf


@pytest.fixture(scope="session")
def smollm_metadata(smollm2_available):
    published = artifact(BASE_MODEL)
    return GGUFFile(published.file(published.members[0].filename)).metadata


@pytest.fixture(scope="session")
def smollm_tokenizer(smollm_metadata):
    return BytePairTokenizer(from_gguf(smollm_metadata, 49_152))


@pytest.fixture(scope="session")
def smollm_reference(smollm_metadata):
    vocabulary = {token: i for i, token in enumerate(smollm_metadata["tokenizer.ggml.tokens"])}
    merges = [tuple(merge.split(" ")) for merge in smollm_metadata["tokenizer.ggml.merges"]]
    reference = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    reference.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return reference
