"""One tenant, opened: its ledger, model, notepad and learner, kept in step with what other processes write."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from ttt_memory.errors import ClosedError, ConflictError, ModelMismatchError, NotFoundError, TenantNotFoundError
from ttt_memory.lane import check_interrupt, embedding_lane
from ttt_memory.learner import Learner
from ttt_memory.ledger.ledger import Ledger
from ttt_memory.model.registry import DEFAULT_MODEL, load_model
from ttt_memory.notepad.embedders import load_embedder
from ttt_memory.notepad.notepad import Notepad
from ttt_memory.notepad.terms import TERMS_VERSION
from ttt_memory.settings import Settings
from ttt_memory.states import Published, StateCache
from ttt_memory.types import ProgressCallback

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ttt_memory.ledger.records import Head
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

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors [N, dimensions]; see `Embedder.embed`."""

        def job() -> Generator[None, None, NDArray[np.float32]]:
            return self._embedder.embed(texts)
            yield  # makes this a generator: the job has no step but its end

        return self._lane.run(job())


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

    Writers hold `writing()`. Readers take `published` and the notepad as they are, after `sync()`.
    """

    def __init__(
        self, ledger: SharedLedger, tenant: TenantLedger, model: LoadedModel, embedder: Embedder, *, wait: bool
    ) -> None:
        self._epoch, self._version = -1, -1  # followed below
        self._shared = ledger.take()
        self.ledger = ledger.ledger
        self.tenant, self.model, self.embedder, self.wait = tenant, model, embedder, wait
        self.notepad = Notepad(tenant, embedder)
        self.learner = self._new_learner()
        self._lock = threading.RLock()
        self._closed = False
        self._follow(tenant.head())

    @property
    def published(self) -> Published:
        """The newest state; immutable."""
        return self.learner.published

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

    def adopt(self, model: LoadedModel, spec: str | Path) -> None:
        """Change to another model: the ledger forgets every state, and everything is to be relearned."""
        self.tenant.begin_rederive(model_pin(model, spec))
        self.model = model
        self.learner = self._new_learner()
        self.reload()

    def _new_learner(self) -> Learner:
        tokens = Settings.from_env().checkpoint_tokens
        return Learner(self.tenant, self.model, checkpoint_tokens=tokens, cache=_states)

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
                    if self.clean(self.tenant.head()):
                        self.learner.close()
            finally:
                self._closed = True
                self._shared.drop()

    def beside(self, tenant: TenantLedger) -> Handle:
        """Another tenant of the same store, opened with the same model."""
        return Handle(self._shared, tenant, self.model, self.embedder, wait=self.wait)

    def _follow(self, head: Head) -> None:
        if head.epoch != self._epoch:
            self.learner.load(head)
            self.notepad.refresh()
        elif head.version != self._version:
            self.notepad.refresh()
        self._epoch, self._version = head.epoch, head.version


def open_handle(
    url: str, tenant: str, *, model: str | Path | None, embedder: str | None, wait: bool, rederive: bool
) -> Handle:
    """Open a store and a tenant in it, with the model and embedder that the tenant is pinned to.

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
            rows.begin_rederive(model_pin(loaded, model))
        embed = load_embedder(embedder or _pinned_embedder(head) or ("hash" if loaded.name == "tiny" else "minilm"))
        if head.embedder is None:
            rows.pin_embedder(_index_pin(embed))
        elif head.embedder != _index_pin(embed):
            raise ModelMismatchError(
                f"This memory's passages were embedded by {_pinned_embedder(head)!r}, not by {embed.name!r}.",
                why=f"vectors and terms of {head.embedder!r} cannot be compared with those of {_index_pin(embed)!r}",
                fix=f"Open it with embedder={_pinned_embedder(head)!r}.",
            )
        return Handle(SharedLedger(ledger), rows, loaded, LaneEmbedder(embed), wait=wait)
    except BaseException:
        ledger.close()
        raise


def model_pin(model: LoadedModel, spec: str | Path | None) -> dict[str, str]:
    """What a tenant remembers of its model."""
    return {"name": model.name, "spec": str(spec or model.name), "fingerprint": model.fingerprint}


def _index_pin(embedder: Embedder) -> str:
    """What a tenant remembers of how its passages were indexed: by meaning, and by words."""
    return f"{embedder.name} {embedder.fingerprint} terms-{TERMS_VERSION}"


def _pinned_embedder(head: Head) -> str | None:
    return head.embedder.split()[0] if head.embedder else None
