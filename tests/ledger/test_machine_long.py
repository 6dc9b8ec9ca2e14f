"""Random histories against a plain model: lists of documents, nothing of branches, flags or SQL."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.ledger.helpers import add, checkpoint, texts
from ttt_memory.ledger import Ledger, Point


class History(RuleBasedStateMachine):
    """`live` and every snapshot are lists of document ids; `known` has every document that still exists.

    Ids are random, so hypothesis draws places in lists that are kept in order of creation.
    """

    ledger: Ledger
    serial = 0

    def __init__(self) -> None:
        super().__init__()
        History.serial += 1
        self.name = f"tenant {History.serial}"
        self.tenant = self.ledger.tenant(self.name)
        self.known: dict[str, dict[str, Any]] = {}
        self.live: list[str] = []
        self.snapshots: dict[str, list[str]] = {}
        self.checkpoints: dict[str, list[str]] = {}
        self.points: list[tuple[Point, list[str]]] = [(self.tenant.head().point, [])]
        self.last = 0

    @rule(text=st.sampled_from("abcdefgh"), learn=st.booleans())
    def append(self, text: str, learn: bool) -> None:
        row = add(self.tenant, text, learn=learn)
        assert row.created == (text not in [self.known[id]["text"] for id in self.live])
        if row.created:
            assert row.position == self.last + 1
            self.last += 1
            self.known[row.id] = {"text": text, "learn": learn}
            self.live.append(row.id)
            self.points.append((row.point, list(self.live)))
        else:
            assert row.id in self.live

    @rule()
    def snapshot(self) -> None:
        self.snapshots[self.tenant.create_snapshot().id] = list(self.live)

    @rule()
    def store_state(self) -> None:
        row = checkpoint(self.tenant, self.tenant.head().point)
        self.checkpoints[row.id] = list(self.live)

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data())
    def restore_a_snapshot(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(list(self.snapshots)))
        self.tenant.restore(self.tenant.resolve_snapshot(id).point)
        self.live = list(self.snapshots[id])

    @rule(data=st.data())
    def restore_any_point(self, data: st.DataObject) -> None:
        point, held = data.draw(st.sampled_from(self.points))
        self.tenant.restore(point)
        self.live = list(held)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        ids = data.draw(st.lists(st.sampled_from(list(self.known)), min_size=1, max_size=2, unique=True))
        learned = {id for id in ids if self.known[id]["learn"]}
        before = self.tenant.head()
        result = self.tenant.forget(ids)
        after = self.tenant.head()
        dirty = {id for id, held in self.checkpoints.items() if learned & set(held)}
        assert result.dropped_checkpoints == len(dirty)
        assert (result.earliest_position is not None) == bool(learned & set(self.live))
        assert after.relearning == (before.relearning or bool(learned & set(self.live)))
        assert after.epoch == before.epoch + bool(learned)
        for id in dirty:
            del self.checkpoints[id]
        rebuilt = {row.rebuilt_from: row.id for row in self.tenant.snapshots() if row.id in result.rebuilt_snapshots}
        held_one = [id for id, held in self.snapshots.items() if set(ids) & set(held)]
        assert set(rebuilt) == set(held_one)
        for old in held_one:
            self.snapshots[rebuilt[old]] = self.snapshots.pop(old)
        for id in ids:
            del self.known[id]
            assert self.tenant.forgotten(id)
        for held in [
            self.live,
            *self.snapshots.values(),
            *self.checkpoints.values(),
            *(held for _, held in self.points),
        ]:
            held[:] = [id for id in held if id in self.known]

    @rule()
    def gc(self) -> None:
        kept = set(self.live).union(*self.snapshots.values())
        assert set(self.tenant.gc(timedelta(0))) == set(self.known) - kept
        self.known = {id: value for id, value in self.known.items() if id in kept}
        self.checkpoints = {id: held for id, held in self.checkpoints.items() if set(held) <= kept}
        for _, held in self.points:
            held[:] = [id for id in held if id in kept]

    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        point, held = data.draw(st.sampled_from(self.points))
        copy = self.tenant.copy_to(f"{self.name} copy", point=point)
        assert texts(copy) == [self.known[id]["text"] for id in held]
        assert copy.verify() == []
        copy.drop()

    @invariant()
    def documents_are_those_of_the_model(self) -> None:
        rows = self.tenant.documents()
        assert [row.id for row in rows] == self.live
        assert texts(self.tenant) == [self.known[id]["text"] for id in self.live]
        counts = self.tenant.counts()
        assert (counts.documents, counts.detached) == (len(self.live), len(self.known) - len(self.live))
        owners = self.tenant.passage_vectors().document_ids
        assert set(owners) == set(self.live)

    @invariant()
    def snapshots_and_checkpoints_are_those_of_the_model(self) -> None:
        for row in self.tenant.snapshots():
            assert [item.id for item in self.tenant.documents(point=row.point)] == self.snapshots[row.id]
            assert row.documents == len(self.snapshots[row.id])
        assert {row.id for row in self.tenant.checkpoints()} == set(self.checkpoints)
        best = self.tenant.best_checkpoint(self.tenant.head().point, "m")
        if best is not None:
            held = self.checkpoints[best.id]
            assert held == self.live[: len(held)]
        # A state stored right at a document that is live must be found, or a later one.
        live_positions = {row.position for row in self.tenant.documents()}
        usable = [row.position for row in self.tenant.checkpoints() if row.position in live_positions]
        assert (0 if best is None else best.position) >= max(usable, default=0)

    def teardown(self) -> None:
        assert self.tenant.verify() == []
        self.tenant.drop()


def test_random_histories(ledger: Ledger) -> None:
    machine = type("Machine", (History,), {"ledger": ledger})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=150,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate], database=None,  # shrinking a history on a database takes minutes
        ),
    )
