"""What goes into a memory and what comes out of it. All values are immutable."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Mode = Literal["hybrid", "weights", "notepad"]
AnswererName = Literal["extract", "generate"]


def _utc(moment: datetime) -> datetime:
    """Naive times are taken as UTC; everything is kept in UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


Moment = Annotated[datetime, AfterValidator(_utc)]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class Document(_Value):
    """A text to remember.

    Attributes:
        text: the text, kept verbatim.
        metadata: JSON values, usable in `where` filters.
        observed_at: when the content was true or was said; defaults to the time of ingestion.
        stream: name of the conversation or log this text continues; None for a document of its own.
        sequence: place in the stream. The same place with the same text is the same append; None takes the next place.
        origin: who wrote it; `model` marks a model's own words.
    """

    text: str
    metadata: dict[str, Any] = Field(default_factory=dict)
    observed_at: Moment | None = None
    stream: str | None = None
    sequence: int | None = None
    origin: Literal["user", "model"] = "user"


class Receipt(_Value):
    """What became of one ingested document. Given after commit, never before.

    Attributes:
        document_id: random id of the document.
        created: False where the same content was there already.
        tokens: predicted tokens of the document.
        position: place in the tenant's ledger.
        learned: whether the fast weights have read it.
        losses: mean loss of each mini-batch before its update, nats per token.
        surprise: mean loss over the document before its updates, nats per token; None if not learned.
        skipped_steps: inner steps skipped because they were not finite.
        seconds: wall time of this call.
    """

    document_id: str
    created: bool
    tokens: int
    position: int
    learned: bool
    losses: tuple[float, ...] = ()
    surprise: float | None = None
    skipped_steps: int = 0
    seconds: float = 0.0


class Citation(_Value):
    """A verbatim quote: `source[start:end] == text`, offsets in characters."""

    document_id: str
    start: int
    end: int
    text: str
    score: float


class Passage(_Value):
    """A hit of `search`: `source[start:end] == text`, offsets in characters; higher scores are better."""

    document_id: str
    start: int
    end: int
    text: str
    score: float
    metadata: dict[str, Any] = Field(default_factory=dict)


class Message(_Value):
    """One message of a chat, as it is sent to a model."""

    role: Literal["system", "user", "assistant"]
    content: str


class Considered(_Value):
    """A sentence that the extractive answerer looked at: `source[start:end] == text`.

    Attributes:
        score: what it was ranked by.
        similarity: to the question, by the embedder: -1 to 1.
        overlap: share of the question's terms that it holds, by rarity: 0 to 1.
        quoted: whether it became part of the answer.
    """

    document_id: str
    start: int
    end: int
    text: str
    score: float
    similarity: float
    overlap: float
    quoted: bool


class Prompt(_Value):
    """What an answer was made from; `ask(..., explain=True)` gives it with the answer, and nothing keeps it.

    Attributes:
        answerer: who answered.
        messages: exactly as sent to the model; empty where sentences are quoted.
        passages: what the model or the quoting had before it, best first, with scores.
        considered: sentences that were weighed against each other to be quoted, best first.
        signals: numbers that `confidence` was computed from.
    """

    answerer: str
    messages: tuple[Message, ...] = ()
    passages: tuple[Passage, ...] = ()
    considered: tuple[Considered, ...] = ()
    signals: dict[str, float] = Field(default_factory=dict)


class Claim(_Value):
    """One statement of a written answer, `answer.text[start:end] == text`, held against the quoted passages.

    Attributes:
        score: 0 to 1: how well the best place of the passages bears it out, by words and by likeness.
        supported: whether that is enough, and every name and number in it stands in the passages or in the question.
        missing: names and numbers that stand in neither.
        citation: which of the answer's citations bears it out best; None where none does.
    """

    start: int
    end: int
    text: str
    score: float
    supported: bool
    missing: tuple[str, ...] = ()
    citation: int | None = None


class Contributions(_Value):
    """What each memory gave to an answer: shares that sum to 1, or both 0 where nothing was found."""

    notepad: float
    weights: float


class Answer(_Value):
    """Reply to `ask`.

    Attributes:
        text: the answer; with the extractive answerer, verbatim sentences of the first citations.
        citations: quotes that support it, best first; always empty in `mode="weights"`.
        mode: the mode asked for.
        grounded: True where the text is supported by the citations: it is a quote, or each of its claims is supported.
        confidence: estimated probability that the answer holds what was asked for; calibrated on four sets of questions
            (benchmarks/results/answers.json), in `mode="weights"` a mere likelihood.
        contributions: what each memory gave.
        learned_through: ledger position that the weights had read when answering.
        timings: seconds by stage.
        notes: what the reader must know, such as claims that nothing supports, or weights that could not be used.
        claims: statements of a written answer, each held against the passages; empty for quotes and closed book.
        prompt: with `explain=True`: what the answer was made from.
    """

    text: str
    citations: tuple[Citation, ...]
    mode: Mode
    grounded: bool
    confidence: float
    contributions: Contributions
    learned_through: int
    timings: dict[str, float] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    prompt: Prompt | None = None


class DocumentInfo(_Value):
    """A live document as listed; `text` only from `get`."""

    id: str
    position: int
    characters: int
    tokens: int
    learn: bool
    learned: bool
    surprise: float | None
    metadata: dict[str, Any]
    observed_at: datetime
    ingested_at: datetime
    stream: str | None = None
    sequence: int | None = None
    origin: str = "user"
    text: str | None = None


class Snapshot(_Value):
    """A named point of the ledger.

    Attributes:
        digest: of the fast weights there; None where they must be replayed first (see `rebuilt_from`).
        rebuilt_from: id of the snapshot this one replaces, because a document it held was forgotten.
    """

    id: str
    label: str | None
    position: int
    documents: int
    digest: str | None
    created_at: datetime
    rebuilt_from: str | None = None


class ForgetReport(_Value):
    """What `forget` removed and what the replay cost."""

    documents: tuple[str, ...]
    replayed_tokens: int
    dropped_checkpoints: int
    rebuilt_snapshots: tuple[str, ...]
    digest: str
    seconds: float


class Estimate(_Value):
    """What an operation would cost, before anything is written. `seconds` follows this machine's measured speed."""

    documents: int
    tokens: int
    seconds: float
    bytes: int


class Stats(_Value):
    """State of one tenant's memory; `backend` is where its fast weights were computed."""

    tenant: str
    documents: int
    detached_documents: int
    passages: int
    snapshots: int
    checkpoints: int
    tokens: int
    learned_tokens: int
    position: int
    learned_through: int
    relearning: bool
    digest: str
    state_bytes: int
    text_bytes: int
    store_bytes: int
    model: str
    model_fingerprint: str
    embedder: str
    backend: dict[str, str]


class Finding(_Value):
    """One thing that `verify` found wrong."""

    check: str
    subject: str
    detail: str


class VerifyReport(_Value):
    """Result of `verify`: `ok`, the checks that ran, and what was wrong.

    `replayed` is None without replay, else `exact` (same backend, same digest) or `tolerance` (another backend: loss on
    a fixed probe text within 0.005 nats).
    """

    ok: bool
    checks: tuple[str, ...]
    findings: tuple[Finding, ...]
    replayed: Literal["exact", "tolerance"] | None = None
    digest: str


class Progress(NamedTuple):
    """Passed to `progress` callbacks: `done` of `total` units (tokens, passages or bytes) of a stage."""

    stage: str
    done: int
    total: int
    document: int
    loss: float | None


ProgressCallback = Callable[[Progress], None]
Source = str | Path | Document
