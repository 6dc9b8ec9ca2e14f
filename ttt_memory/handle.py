"""One tenant, opened: its ledger, model, notepad and learner, kept in step with what other processes write."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

from ttt_memory.errors import (
    ClosedError,
    ConflictError,
    ModelMismatchError,
    NotFoundError,
    TenantNotFoundError,
    TTTMemoryError,
)
from ttt_memory.lane import Lane, check_interrupt, embedding_lane
from ttt_memory.learner import Learner
from ttt_memory.ledger.ledger import Ledger
from ttt_memory.model.registry import DEFAULT_MODEL, load_model
from ttt_memory.notepad.embedders import DEFAULT_EMBEDDER, EMBEDDERS, is_remote, resolve
from ttt_memory.notepad.notepad import Notepad
from ttt_memory.notepad.terms import TERMS_VERSION
from ttt_memory.reindexing import switch
from ttt_memory.settings import Settings
from ttt_memory.states import Published, StateCache
from ttt_memory.types import Passage, ProgressCallback

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ttt_memory.ledger.records import CheckpointRow, Head, Point
    from ttt_memory.ledger.tenant import TenantLedger
    from ttt_memory.model.loaded import LoadedModel
    from ttt_memory.notepad.embedders import Embedder

R = TypeVar("R")

_states = StateCache(Settings.from_env().max_state_bytes)


class LaneEmbedder:
    """An embedder that always computes on the embedding lane, whichever thread asks."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder, self._lane = embedder, embedding_lane()
        self.name, self.fingerprint = embedder.name, embedder.fingerprint
        self.dimensions, self.max_tokens = embedder.dimensions, embedder.max_tokens
        self.count_tokens, self.token_spans = embedder.count_tokens, embedder.token_spans
        if read := getattr(embedder, "embed_tokens", None):
            self.embed_tokens = lambda texts: self._run(read, texts)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors [N, dimensions]; see `Embedder.embed`."""
        return self._run(self._embedder.embed, texts)

    def _run(self, call: Callable[[Sequence[str]], R], texts: Sequence[str]) -> R:
        def job() -> Generator[None, None, R]:
            return call(texts)
            yield  # makes this a generator: the job has no step but its end

        return self._lane.run(job())


class Index(NamedTuple):
    """A notepad, the embedder it was made with, and the name the tenant has for the two: replaced together."""

    notepad: Notepad
    embedder: Embedder
    pin: str


class Shape(NamedTuple):
    """What verbs must know of a model that is not loaded: how it reads, and the bytes of its fast weights."""

    segment_tokens: int
    mini_batch: int
    state_bytes: int


class Standing(NamedTuple):
    """The state that readers are served: the last point that it has read, tokens, digest, where it was computed."""

    through: Point
    tokens: int
    digest: str
    backend: Mapping[str, str]


class SharedLedger:
    """A ledger used by a handle and its forks; closed with the last of them (an in-memory store lives that long)."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self._users = ledger, 0
        self._lock = threading.Lock()

    def take(self) -> Self:
        """One more user."""
        with self._lock:
            self._users += 1
        return self

    def drop(self) -> None:
        """One user less."""
        with self._lock:
            self._users -= 1
            last = self._users == 0
        if last:
            self.ledger.close()


class Handle:
    """The parts of an open memory and the rules by which they follow the ledger.

    Writers hold `writing()`. Readers take `published` and the notepad as they are, after `sync()`. The base model is
    loaded by the first use of `learner`, `model` or `published`: finding passages needs none of them.
    """

    def __init__(
        self,
        ledger: SharedLedger,
        tenant: TenantLedger,
        model: LoadedModel | None,
        embedder: Embedder,
        *,
        wait: bool,
    ) -> None:
        self._epoch, self._version = -1, -1  # followed below
        self._shared = ledger.take()
        self.ledger = ledger.ledger
        self.tenant, self.wait = tenant, wait
        self._model = model  # None: the tenant's own, loaded with its first use
        self._learner = self._new_learner() if model else None
        self._shape: Shape | None = None
        self._index = Index(Notepad(tenant, embedder), embedder, index_pin(embedder))
        self._lock = threading.RLock()
        self._closed = False
        self._follow(tenant.head())

    @property
    def notepad(self) -> Notepad:
        """The exact memory."""
        return self._index.notepad

    @property
    def embedder(self) -> Embedder:
        """What the notepad was made with."""
        return self._index.embedder

    @property
    def learner(self) -> Learner:
        """What folds this tenant's documents into its fast weights."""
        if self._learner is None:
            with self._lock:
                if self._learner is None:
                    learner = self._new_learner()
                    learner.load(self.tenant.head())
                    self._learner = learner
        return self._learner

    @property
    def model(self) -> LoadedModel:
        """The base model."""
        return self.learner.model

    @property
    def model_name(self) -> str:
        """Its name, whether it is loaded or not."""
        return self._learner.model.name if self._learner else str((self.tenant.head().model or {})["name"])

    @property
    def published(self) -> Published:
        """The newest state; immutable."""
        return self.learner.published

    @property
    def shape(self) -> Shape:
        """What the tenant remembers of its model's shape; a memory of an older release loads the model to know it."""
        if self._shape is None:  # asked for every document of a listing: read once
            pin = self.tenant.head().model or {}
            known = self._learner is None and all(key in pin for key in Shape._fields)
            self._shape = Shape(*(int(pin[key]) for key in Shape._fields)) if known else model_shape(self.model)
        return self._shape

    def standing(self, head: Head) -> Standing:
        """Which state readers are served and how far it has read, told without the base model where it can be."""
        row = self._best(head) if self._learner is None else None
        at = row or self.published
        point = row.point if row else self.published.through
        if at.segment is None and self.clean(head) and not self._pending(point.position):
            point = head.point
        return Standing(point, at.tokens, at.digest, self.learner.backend if at.backend is None else at.backend)

    def settled(self) -> CheckpointRow | None:
        """The checkpoint that holds the head's weights as they are, if there is one and nothing is left to read."""
        head = self.tenant.head()
        row = None if head.relearning else self._best(head)
        return None if row is None or row.segment is not None or self._pending(row.position) else row

    def _best(self, head: Head) -> CheckpointRow | None:
        return self.tenant.best_checkpoint(head.point, str((head.model or {}).get("fingerprint")))

    def _pending(self, position: int) -> bool:
        return bool(self.tenant.documents(after_position=position, learn_only=True, limit=1))

    def clean(self, head: Head) -> bool:
        """Whether the published weights may be shown: nothing forgotten is in them."""
        return not head.relearning and head.epoch == self._epoch

    def sync(self) -> Head:
        """Follow what others wrote, as far as that needs no replay. For readers; never waits for a writer."""
        self.check_open()
        head = self.tenant.head()
        if (head.epoch != self._epoch or head.version != self._version) and self._lock.acquire(blocking=False):
            try:
                self._follow(head)
            finally:
                self._lock.release()
        return head

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold this handle's write lock, in step with the ledger."""
        with self._lock:
            self.check_open()
            self._follow(self.tenant.head())
            yield

    def at_head(self, write: Callable[[Head], R]) -> R:
        """Run a compare-and-swap write against the newest head; again, where another writer was first and we wait.

        Needs `writing()`. Raises ConflictError of the first attempt where the memory was opened not to wait.
        """
        pause = 0.001
        while True:
            head = self.tenant.head()
            self._follow(head)
            try:
                return write(head)
            except ConflictError as error:
                if not self.wait or "expected_version" not in error.context:
                    raise
            check_interrupt()
            time.sleep(pause)
            pause = min(0.2, pause * 2)

    def learn(self, progress: ProgressCallback | None = None) -> int:
        """Bring the weights up to the head and end a relearning. Returns the tokens read. Needs `writing()`."""
        tokens = 0
        while True:
            try:
                tokens += self.learner.catch_up(progress)
                head = self.tenant.head()
                if head.epoch == self._epoch:
                    if head.relearning:
                        self.learner.checkpoint()
                        self.tenant.finish_relearning(head.epoch)
                        self._version = self.tenant.head().version
                    return tokens
            except (NotFoundError, ConflictError):
                # Another process may have forgotten or restored what was being read; anything else is a real error.
                if self.tenant.head().epoch == self._epoch:
                    raise
            self._follow(self.tenant.head())

    def reload(self) -> None:
        """After a rewrite of the ledger (forget, restore): drop what is derived and load it anew."""
        self._follow(self.tenant.head())

    def search(self, query: str, **options: Any) -> list[Passage]:
        """Passages of the notepad, also while the index is exchanged; see `Notepad.search`."""
        while True:
            index = self._index
            hits = index.notepad.search(query, **options)
            if self.tenant.head().embedder == index.pin:
                return hits
            with self._lock:  # exchanged meanwhile: by this handle, which has a new one at once, or by another process
                self._follow(self.tenant.head())

    def reindex(self, embedder: Embedder, progress: ProgressCallback | None) -> None:
        """Cut and embed every passage anew, then change over to the new index. Needs `writing()`."""
        new = on_lane(embedder)
        pin = index_pin(new)
        switch(self.tenant, new, pin, Lane(1), progress, wait=self.wait)
        self._index = Index(Notepad(self.tenant, new), new, pin)
        self._follow(self.tenant.head())

    def adopt(self, model: LoadedModel, spec: str | Path | None) -> None:
        """Change to a model, opened from `spec` (None: as the present one): everything is to be relearned."""
        kept = self.tenant.head().model
        self.tenant.begin_rederive(model_pin(model, spec or (kept["spec"] if kept else None)))
        self._model = model
        self._learner = self._new_learner()
        self.reload()

    def _new_learner(self) -> Learner:
        tokens = Settings.from_env().checkpoint_tokens
        model = self._model or _open_model(self.tenant, None, rederive=False)
        return Learner(self.tenant, model, checkpoint_tokens=tokens, cache=_states)

    def check_open(self) -> None:
        """Raise ClosedError once `close` was called."""
        if self._closed:
            raise ClosedError("This memory is closed.", fix="Open it again with CompressedMemory.open(...).")

    def close(self) -> None:
        """Keep what was learned since the last checkpoint and let go of the database. Safe to call twice."""
        with self._lock:
            if self._closed:
                return
            try:
                # Rewritten by another process, or dropped: then there is nothing to keep.
                with contextlib.suppress(ConflictError, TenantNotFoundError):
                    if self._learner and self.clean(self.tenant.head()):
                        self._learner.close()
            finally:
                self._closed = True
                self._shared.drop()

    def abandon(self) -> None:
        """Let go of the database and keep nothing: the tenant is about to be dropped."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._shared.drop()

    def beside(self, tenant: TenantLedger) -> Handle:
        """Another tenant of the same store, opened with the same model."""
        return Handle(self._shared, tenant, self.model, self.embedder, wait=self.wait)

    def _follow(self, head: Head) -> None:
        if head.embedder != self._index.pin:
            raise _other_embedder(head.embedder or "nothing", self._index.pin)
        if head.epoch != self._epoch:
            self._shape = None  # of another model, where everything is relearned with one
            if self._learner:
                self._learner.load(head)
            self.notepad.refresh()
        elif head.version != self._version:
            self.notepad.refresh()
        self._epoch, self._version = head.epoch, head.version


def open_handle(
    url: str,
    tenant: str,
    *,
    model: str | Path | None,
    embedder: str | Embedder | None,
    wait: bool,
    rederive: bool,
    reindex: bool = False,
    lazy: bool = False,
    progress: ProgressCallback | None = None,
) -> Handle:
    """Open a store and a tenant in it, with the model and embedder that the tenant is pinned to.

    With `lazy`, a tenant that has a model gets it loaded, and checked, by the first verb that needs it.

    Raises:
        ModelMismatchError: the model or embedder on this machine is not the one the memory was written with.
        ModelNotFoundError: the pinned model is not on this machine.
        StoreError: the database cannot be used.
    """
    ledger = Ledger.open(url)
    try:
        rows = ledger.tenant(tenant)
        head = rows.head()
        pin = head.model
        deferred = lazy and pin is not None and not rederive and model in (None, pin["spec"])
        loaded = None if deferred else _open_model(rows, model, rederive=rederive)
        name = loaded.name if loaded else (pin or {})["name"]
        embed = _embedder(embedder, head.embedder, "hash" if name == "tiny" else DEFAULT_EMBEDDER)
        index = index_pin(embed)
        if head.embedder is None:
            rows.pin_embedder(index)
        elif head.embedder != index:
            if not reindex:
                raise _other_embedder(head.embedder, index)
            switch(rows, embed, index, Lane(1), progress, wait=wait)
        return Handle(SharedLedger(ledger), rows, loaded, embed, wait=wait)
    except BaseException:
        ledger.close()
        raise


@contextlib.contextmanager
def importing(url: str, tenant: str, *, model: str | Path, embedder: str | Embedder) -> Iterator[Handle]:
    """A handle on a tenant that nobody sees, to be filled; at the end it gets its name, or on any exception it goes.

    A process that dies inside leaves nothing that can be seen: the next opening of the store removes the rest.

    Raises:
        ConflictError: the name is a tenant's that has documents or snapshots.
        ModelNotFoundError, StoreError: as `open_handle`.
    """
    ledger = Ledger.open(url)
    shared = SharedLedger(ledger).take()
    try:
        rows = ledger.begin_import(tenant)
        try:
            embed = _embedder(embedder, None, DEFAULT_EMBEDDER)
            rows.pin_embedder(index_pin(embed))
            handle = Handle(shared, rows, _open_model(rows, model, rederive=False), embed, wait=True)
            try:
                with handle.writing():
                    yield handle
                    rows.end_import(tenant)
                    handle.learner.load(rows.head())
            except BaseException:
                handle.abandon()
                raise
        except BaseException:
            with contextlib.suppress(TTTMemoryError):
                rows.drop()
            raise
    finally:
        shared.drop()


def _open_model(rows: TenantLedger, model: str | Path | None, *, rederive: bool) -> LoadedModel:
    """The model that was given, else the tenant's own, else the default; the tenant keeps the first one it has."""
    pin = rows.head().model
    loaded = load_model(model or (pin["spec"] if pin else DEFAULT_MODEL))
    if pin is None:
        rows.pin_model(model_pin(loaded, model))
    elif pin["fingerprint"] != loaded.fingerprint:
        if not rederive:
            raise ModelMismatchError(
                f"This memory was learned with the model {pin['name']!r}, not with {loaded.name!r} as it is here.",
                why=f"fingerprint {pin['fingerprint'][:12]} is not {loaded.fingerprint[:12]}",
                fix="Open it without model=, or relearn it: CompressedMemory.open(..., model=..., rederive=True), "
                "or memory.rederive(model=...) on a handle that is open.",
                pinned=pin,
                fingerprint=loaded.fingerprint,
            )
        rows.begin_rederive(model_pin(loaded, model or pin["spec"]))
    return loaded


def model_pin(model: LoadedModel, spec: str | Path | None) -> dict[str, Any]:
    """What a tenant remembers of its model."""
    pin = {"name": model.name, "spec": str(spec or model.name), "fingerprint": model.fingerprint}
    return pin | model_shape(model)._asdict()


def model_shape(model: LoadedModel) -> Shape:
    """The shape of a loaded model."""
    return Shape(model.config.segment_tokens, model.config.inner.mini_batch, model.initial_state().nbytes)


def index_pin(embedder: Embedder) -> str:
    """What a tenant remembers of how its passages were indexed: by meaning, and by words."""
    return f"{embedder.name} {embedder.fingerprint} terms-{TERMS_VERSION}"


def on_lane(embedder: Embedder) -> Embedder:
    """The embedder as a memory uses it: on its lane, unless it waits for a network instead of computing."""
    return embedder if is_remote(embedder) or isinstance(embedder, LaneEmbedder) else LaneEmbedder(embedder)


def _embedder(given: str | Embedder | None, pinned: str | None, default: str) -> Embedder:
    """The embedder that was given, else the pinned one, else the default."""
    name = pinned.split()[0] if pinned else default
    if given is None and name not in EMBEDDERS:
        raise ModelMismatchError(
            f"This memory's passages were embedded by {name!r}, which has to be given.",
            why="it is not one of the embedders that this package loads by name",
            fix=f"Open it with embedder=..., or index it anew: {_REINDEX}",
            pinned=pinned,
        )
    return on_lane(resolve(given if given is not None else name))


_REINDEX = (
    'CompressedMemory.open(..., embedder="minilm", reindex=True), memory.reindex(embedder=...) on a handle that is '
    "open, or `ttt-memory reindex --embedder minilm`."
)


def _other_embedder(pinned: str, present: str) -> ModelMismatchError:
    name, here = (pin.partition(" ")[0] for pin in (pinned, present))
    other = f"{here!r}" if here != name else "the same one as it is here"
    return ModelMismatchError(
        f"This memory's passages were embedded by {name!r}, not by {other}.",
        why=f"vectors and terms of {pinned!r} cannot be compared with those of {present!r}",
        fix=f"Open it with embedder={name!r}, or index it anew: {_REINDEX}",
        pinned=pinned,
        embedder=present,
    )
