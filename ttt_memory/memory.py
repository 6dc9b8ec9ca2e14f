"""`CompressedMemory`: the public object. Every verb is here; how it is done is in the modules it names."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from ttt_memory import inputs
from ttt_memory.answerers.protocol import Answerer
from ttt_memory.asking import AnswerStream, Question, ask
from ttt_memory.errors import InvalidInputError, RelearningError
from ttt_memory.handle import Handle, open_handle
from ttt_memory.ingesting import ingest, numbered, surprise
from ttt_memory.ledger.records import DocumentRow, SnapshotRow
from ttt_memory.model.fold import score, segments
from ttt_memory.model.registry import load_model
from ttt_memory.notepad.embedders import Embedder, resolve
from ttt_memory.notepad.filters import compile_filter
from ttt_memory.settings import default_url
from ttt_memory.types import (
    Answer,
    AnswererName,
    Document,
    DocumentInfo,
    Estimate,
    ForgetReport,
    Mode,
    Passage,
    ProgressCallback,
    Receipt,
    Snapshot,
    Source,
    Stats,
    VerifyReport,
)

if TYPE_CHECKING:
    from ttt_memory.model.generate import Sampling

Where = Mapping[str, Any]


class CompressedMemory:
    """One tenant's memory: fast weights learned from what it ingested, beside a notepad that quotes it.

    Open it with `CompressedMemory.open`; use it as a context manager or call `close`. All verbs may be called from
    several threads. The tenant is fixed when the memory is opened.
    """

    def __init__(self, handle: Handle, tenant: str, url: str) -> None:
        self._handle, self._tenant, self._url = handle, tenant, url

    # ------------------------------------------------------------------ opening and closing

    @classmethod
    def open(
        cls,
        url: str | None = None,
        *,
        tenant: str = "default",
        model: str | Path | None = None,
        embedder: str | Embedder | None = None,
        on_conflict: Literal["wait", "raise"] = "wait",
        replay: bool = True,
        rederive: bool = False,
        reindex: bool = False,
        progress: ProgressCallback | None = None,
    ) -> Self:
        """Open a memory, creating the store and the tenant where they are new.

        Args:
            url: SQLAlchemy URL of the store; None is a file in the user's data directory.
            tenant: whose memory.
            model: `"smollm2-135m-ttt"` (default), `"smollm2-135m"`, `"tiny"`, a folder or a GGUF file; a memory stays
                with the model it has.
            embedder: `"minilm"` (default), `"hash"` (default beside `model="tiny"`) or an `Embedder` of your own; a
                memory stays with the one it has.
            on_conflict: whether a write that another process overtook waits its turn or raises ConflictError.
            replay: read what a crash left unread before returning; otherwise the next `ingest` does, and the base
                model of a memory that has one is loaded, and checked, by the first verb that needs it.
            rederive: relearn everything with `model` where the memory was learned with another one.
            reindex: embed every passage anew with `embedder` where the memory was written with another one.
            progress: called while replaying or reindexing.

        Raises:
            ModelNotFoundError, ModelMismatchError, StoreError: see errors.py; each says what to do.
        """
        if on_conflict not in ("wait", "raise"):
            raise InvalidInputError(f"Unknown on_conflict {on_conflict!r}.", fix='Use "wait" or "raise".')
        url = url or default_url()
        handle = open_handle(
            url,
            tenant,
            model=model,
            embedder=embedder,
            wait=on_conflict == "wait",
            rederive=rederive,
            reindex=reindex,
            lazy=not replay,
            progress=progress,
        )
        try:
            if replay or rederive:
                with handle.writing():
                    handle.learn(progress)
        except BaseException:
            handle.close()
            raise
        return cls(handle, tenant, url)

    def close(self) -> None:
        """Keep a checkpoint of what was learned and let go of the store. Safe to call twice."""
        self._handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"CompressedMemory(tenant={self._tenant!r}, model={self._handle.model_name!r})"

    @property
    def tenant(self) -> str:
        """Whose memory this is."""
        return self._tenant

    # ------------------------------------------------------------------ writing

    @overload
    def ingest(
        self,
        source: str | Document,
        *,
        metadata: Mapping[str, Any] | None = ...,
        observed_at: datetime | None = ...,
        learn: bool = ...,
        progress: ProgressCallback | None = ...,
    ) -> Receipt: ...
    @overload
    def ingest(
        self,
        source: Path | Iterable[Source],
        *,
        metadata: Mapping[str, Any] | None = ...,
        observed_at: datetime | None = ...,
        learn: bool = ...,
        progress: ProgressCallback | None = ...,
    ) -> Any: ...

    def ingest(
        self,
        source: Source | Iterable[Source],
        *,
        metadata: Mapping[str, Any] | None = None,
        observed_at: datetime | None = None,
        learn: bool = True,
        progress: ProgressCallback | None = None,
    ) -> Receipt | list[Receipt]:
        """Remember text: verbatim in the ledger and notepad, and learned by the fast weights.

        Args:
            source: a str (text), a Path (a file; a folder is several documents), a Document, or an iterable of these.
            metadata: JSON values added to each document's own.
            observed_at: when the content was true; the time of ingestion if None.
            learn: False stores it searchable, and leaves the weights as they are.
            progress: called in this thread after every batch; if it raises, what was committed stays.

        Returns:
            A Receipt, each given after its document's commit; a list of them for an iterable, a folder, or a file of a
            format that is cut into documents (pages, rows, turns).

        Interrupted while learning (Ctrl-C, a crash), the document is kept and its reading is taken up again by the next
        write or the next `open`.

        Raises:
            InvalidDocumentError: empty or not encodable text, metadata that is not JSON.
            ConflictError: the stream has other content at this sequence; or another writer, with on_conflict="raise".
        """
        found = inputs.documents(source, metadata=metadata, observed_at=observed_at)
        receipts = [
            ingest(self._handle, document, learn=learn, progress=numbered(progress, number))
            for number, document in enumerate(found)
        ]
        return receipts[0] if inputs.is_single(source) else receipts

    # ------------------------------------------------------------------ asking

    @overload
    def ask(
        self,
        question: str,
        *,
        mode: Mode = ...,
        stream: Literal[False] = ...,
        limit: int = ...,
        where: Where | None = ...,
        as_of: datetime | None = ...,
        answerer: AnswererName | Answerer = ...,
        sampling: Sampling | None = ...,
        explain: bool = ...,
    ) -> Answer: ...
    @overload
    def ask(
        self,
        question: str,
        *,
        mode: Mode = ...,
        stream: Literal[True],
        limit: int = ...,
        where: Where | None = ...,
        as_of: datetime | None = ...,
        answerer: AnswererName | Answerer = ...,
        sampling: Sampling | None = ...,
        explain: bool = ...,
    ) -> AnswerStream: ...
    def ask(
        self,
        question: str,
        *,
        mode: Mode = "hybrid",
        stream: bool = False,
        limit: int = 5,
        where: Where | None = None,
        as_of: datetime | None = None,
        answerer: AnswererName | Answerer = "extract",
        sampling: Sampling | None = None,
        explain: bool = False,
    ) -> Answer | AnswerStream:
        """Answer from this memory. Never writes.

        Args:
            question: in plain words.
            mode: `"hybrid"` and `"notepad"` answer from quoted passages; `"weights"` is closed book, from the fast
                weights alone: style, jargon and gist, not facts.
            stream: give the pieces as they come; an AnswerStream, whose `answer` is the whole.
            limit: citations at most.
            where: filter on metadata, as in `search`.
            as_of: only what was observed until then.
            answerer: `"extract"` quotes the best supporting sentences; `"generate"` lets the local model write, reading
                the passages with the fast weights (`hybrid`) or without (`notepad`); an `Answerer` object reads the
                passages and writes, such as a model behind an endpoint (ttt_adapters.answerers). What is written is
                held against the passages, claim by claim. `mode="weights"` always lets the local model write.
            sampling: temperature, top-p and the like for an answer that the local model writes.
            explain: give `answer.prompt`, too: the messages as they were sent, or the sentences that were weighed
                against each other, with scores. It is not kept anywhere.

        Raises:
            RelearningError: `mode="weights"` while the weights are rebuilt after `forget`.
            InvalidInputError: an empty question, an unknown mode, a malformed filter.
            EndpointError: the answerer's endpoint gave no answer.
        """
        checked = Question(question, mode, answerer, limit, dict(where) if where else None, as_of, sampling, explain)
        pieces = AnswerStream(ask(self._handle, checked))
        return pieces if stream else pieces.answer

    def search(
        self, query: str, *, limit: int = 5, where: Where | None = None, as_of: datetime | None = None
    ) -> list[Passage]:
        """Passages of the notepad, best first; each quotes its document to the character.

        Args:
            query: words, a sentence, a name or a code.
            limit: passages at most.
            where: e.g. `{"kind": "ticket", "priority": {"$gte": 3}}`; the operators are listed in notepad/filters.py.
            as_of: only documents observed until then.
        """
        self._handle.sync()
        return self._handle.search(query, limit=limit, where=where, as_of=as_of)

    def score(self, text: str) -> float:
        """Mean loss of a text under this memory, nats per token, read with a fresh window and without writes.

        Lower is more familiar. Raises RelearningError while the weights are rebuilt after `forget`.
        """
        document = inputs.check(Document(text=text))
        handle = self._handle
        if not handle.clean(handle.sync()):
            raise RelearningError("The fast weights are being rebuilt after forget.", fix="Wait until relearning ends.")
        weights, model = handle.published.weights, handle.model
        tokens = model.tokenizer.encode(document.text)
        if not len(tokens):
            raise InvalidInputError("The text has no token that this model knows.")
        losses = [
            handle.learner.lane.run(score(model, weights, segment))
            for segment in segments(tokens, tokens[:0], model.config, append=False)
        ]
        return float(sum(loss.sum() for loss in losses) / len(tokens))

    # ------------------------------------------------------------------ documents

    def documents(self, *, where: Where | None = None, limit: int | None = None, after: int = 0) -> list[DocumentInfo]:
        """Live documents in the order of the ledger, without their texts; `after` is a position to go on from."""
        self._handle.sync()
        wanted = compile_filter(where)
        rows = self._handle.tenant.documents(after_position=after, limit=None if where else limit)
        return [self._info(row) for row in rows if wanted(row.metadata)][:limit]

    def get(self, document_id: str) -> DocumentInfo:
        """One document with its text. Raises DocumentNotFoundError."""
        self._handle.sync()
        row = self._handle.tenant.document(document_id)
        return self._info(row, text=self._handle.tenant.text(row.id))

    def forget(
        self,
        document_id: str | Sequence[str] | None = None,
        *,
        where: Where | None = None,
        progress: ProgressCallback | None = None,
    ) -> ForgetReport:
        """Erase documents, and make the fast weights what they would be had they never been read.

        Text, passages, vectors, postings and every cached state that contained them go in one transaction; then the
        weights are replayed from the last clean checkpoint. Interrupted, the text stays erased and the replay is taken
        up by the next `open`. `estimate(forget=...)` tells the cost before.

        Args:
            document_id: one id or several.
            where: instead: every live document whose metadata match; an empty filter is refused.
            progress: called while replaying.

        Raises:
            DocumentNotFoundError: an id is not a live document; then nothing is erased.
        """
        started = time.perf_counter()
        with self._handle.writing():
            ids = self._chosen(document_id, where)
            if not ids:
                return ForgetReport(
                    documents=(), replayed_tokens=0, dropped_checkpoints=0, rebuilt_snapshots=(),
                    digest=self._handle.published.digest, seconds=time.perf_counter() - started,
                )  # fmt: skip
            rows = self._handle.tenant
            result = self._handle.at_head(lambda head: rows.forget(ids, expected_version=head.version))
            self._handle.reload()
            tokens = self._handle.learn(numbered(progress, 0))
            return ForgetReport(
                documents=result.documents,
                replayed_tokens=tokens,
                dropped_checkpoints=result.dropped_checkpoints,
                rebuilt_snapshots=result.rebuilt_snapshots,
                digest=self._handle.published.digest,
                seconds=time.perf_counter() - started,
            )

    # ------------------------------------------------------------------ points in time

    def snapshot(self, label: str | None = None) -> Snapshot:
        """Name this moment. Raises ConflictError where the label is taken."""
        handle = self._handle
        with handle.writing():
            handle.learn()
            checkpoint = handle.learner.checkpoint("snapshot")
            at = handle.published
            row = handle.tenant.create_snapshot(label, point=at.through, digest=at.digest, checkpoint=checkpoint.id)
            return self._snapshot(row)

    def snapshots(self) -> list[Snapshot]:
        """All snapshots, oldest first."""
        self._handle.sync()
        return [self._snapshot(row) for row in self._handle.tenant.snapshots()]

    def restore(self, snapshot: Snapshot | str, *, progress: ProgressCallback | None = None) -> Snapshot:
        """Move the memory to a snapshot, back or forward. Takes a snapshot, its id or its label.

        Documents ingested after it become detached: no verb sees them, and restoring forward to a snapshot that holds
        them brings them back. So take a snapshot first if you may want to return to where you are now.
        """
        handle = self._handle
        with handle.writing():
            row = handle.tenant.resolve_snapshot(_name(snapshot))
            handle.at_head(lambda head: handle.tenant.restore(row.point, expected_version=head.version))
            handle.reload()
            handle.learn(numbered(progress, 0))
            if row.digest is None:  # it was rebuilt without a forgotten document: from now on its weights are known
                kept = handle.learner.checkpoint("snapshot")
                row = handle.tenant.update_snapshot(row.id, digest=kept.digest, checkpoint=kept.id)
            return self._snapshot(row)

    def fork(self, tenant: str, *, at: Snapshot | str | None = None, progress: ProgressCallback | None = None) -> Self:
        """Copy this memory, as it is now or at a snapshot, to a new tenant, and open it.

        Nothing is shared: the copies go their own ways. Raises ConflictError where the tenant exists already.
        """
        handle = self._handle
        with handle.writing():
            handle.learn(numbered(progress, 0))
            point = handle.tenant.resolve_snapshot(_name(at)).point if at is not None else handle.published.through
            copy = handle.tenant.copy_to(tenant, point=point)
            handle.learner.copy_state(copy, point)
        child = type(self)(handle.beside(copy), tenant, self._url)
        try:
            with child._handle.writing():
                child._handle.learn(numbered(progress, 0))
        except BaseException:
            child.close()
            raise
        return child

    def rederive(self, model: str | Path | None = None, *, progress: ProgressCallback | None = None) -> Stats:
        """Relearn everything from the ledger, with another model where one is given.

        Every cached state goes; snapshots keep their place in the ledger and are replayed when restored.
        """
        with self._handle.writing():
            self._handle.adopt(load_model(model) if model else self._handle.model, model)
            self._handle.learn(numbered(progress, 0))
        return self.stats()

    def reindex(self, embedder: str | Embedder | None = None, *, progress: ProgressCallback | None = None) -> Stats:
        """Cut and embed every passage anew, with another embedder where one is given.

        The fast weights stay as they are. `search` and `ask` go on with the old index until the new one is whole; then
        it takes its place in one transaction. Interrupted before that, nothing has changed. Other processes that have
        this memory open get a ModelMismatchError afterwards and open it again.

        Args:
            embedder: `"minilm"`, `"hash"` or an `Embedder`; None is the present one, which mends a damaged index.
            progress: called in this thread, in characters; if it raises, the old index stays.
        """
        with self._handle.writing():
            self._handle.reindex(self._handle.embedder if embedder is None else resolve(embedder), progress)
        return self.stats()

    # ------------------------------------------------------------------ knowing what there is

    def estimate(
        self,
        source: Source | Iterable[Source] | None = None,
        *,
        forget: str | Sequence[str] | None = None,
        where: Where | None = None,
    ) -> Estimate:
        """What `ingest(source)`, or `forget(...)`, would cost. Writes nothing.

        `seconds` follows the speed measured on this machine; `bytes` is what the store would grow by, without
        checkpoints (`stats().state_bytes` each, compressed), or for `forget` the text that would go.
        """
        from ttt_memory.estimating import of_forget, of_ingest

        self._handle.sync()
        if (source is None) == (forget is None and where is None):
            raise InvalidInputError("Estimate one thing: a source to ingest, or documents to forget.")
        if source is not None:
            return of_ingest(self._handle, inputs.documents(source, metadata=None, observed_at=None))
        return of_forget(self._handle, self._chosen(forget, where))

    def stats(self) -> Stats:
        """Sizes, counts and the digest of the fast weights."""
        from ttt_memory.estimating import stats

        return stats(self._handle, self._tenant, self._handle.sync())

    def verify(self, *, replay: bool = False, progress: ProgressCallback | None = None) -> VerifyReport:
        """Check that what is stored is what was written, and that what is derived follows from it.

        Args:
            replay: also fold the whole ledger again from W0 and compare: the digest where the state was computed on
                this backend, else the loss on a fixed probe text within 0.005 nats.
            progress: called while replaying.
        """
        from ttt_memory.verifying import verify

        with self._handle.writing():
            return verify(self._handle, replay=replay, progress=progress)

    def gc(self, *, grace: timedelta = timedelta(days=30)) -> int:
        """Erase documents detached longer than `grace` that no snapshot holds. Returns their number."""
        with self._handle.writing():
            return len(self._handle.tenant.gc(grace))

    def export(self, path: str | Path, *, progress: ProgressCallback | None = None) -> Path:
        """Write this memory, with its snapshots and weights, to one checksummed archive. Never overwrites a file."""
        from ttt_memory.archive import export

        with self._handle.writing():
            return export(self._handle, self._tenant, Path(path), progress)

    @classmethod
    def import_(
        cls,
        path: str | Path,
        url: str | None = None,
        *,
        tenant: str | None = None,
        embedder: str | Embedder | None = None,
        progress: ProgressCallback | None = None,
    ) -> Self:
        """Open an exported memory as a new tenant (by default under its old name) of a store.

        All of it or nothing: interrupted at any moment, even by a crash, the store is as if nothing had been imported.
        Its passages are embedded again: by `embedder`, or by the one that the archive names.

        Raises ConflictError where that tenant has documents or snapshots, CorruptionError where the archive is damaged.
        """
        from ttt_memory.archive_import import import_

        url = url or default_url()
        handle, name = import_(Path(path), url, tenant, embedder, progress)
        return cls(handle, name, url)

    # ------------------------------------------------------------------ helpers

    def _chosen(self, ids: str | Sequence[str] | None, where: Where | None) -> list[str]:
        if (ids is None) == (where is None):
            raise InvalidInputError("Give document ids or a filter, one of the two.")
        rows = self._handle.tenant
        if where is not None:
            if not where:
                raise InvalidInputError("An empty filter would choose every document.", fix="Name what to choose.")
            wanted = compile_filter(where)
            return [row.id for row in rows.documents() if wanted(row.metadata)]
        chosen = [ids] if isinstance(ids, str) else list(dict.fromkeys(ids or ()))
        for document_id in chosen:
            rows.document(document_id)  # raises DocumentNotFoundError before anything is erased
        return chosen

    def _info(self, row: DocumentRow, text: str | None = None) -> DocumentInfo:
        return DocumentInfo(
            id=row.id,
            position=row.position,
            characters=row.characters,
            tokens=row.tokens,
            learn=row.learn,
            learned=row.learned,
            surprise=surprise(row.losses, row.tokens, self._handle),
            metadata=row.metadata,
            observed_at=row.observed_at,
            ingested_at=row.ingested_at,
            stream=row.stream,
            sequence=row.sequence,
            origin=row.origin,
            text=text,
        )

    @staticmethod
    def _snapshot(row: SnapshotRow) -> Snapshot:
        return Snapshot(
            id=row.id,
            label=row.label,
            position=row.position,
            documents=row.documents,
            digest=row.digest,
            created_at=row.created_at,
            rebuilt_from=row.rebuilt_from,
        )


def _name(snapshot: Snapshot | str) -> str:
    return snapshot.id if isinstance(snapshot, Snapshot) else snapshot
