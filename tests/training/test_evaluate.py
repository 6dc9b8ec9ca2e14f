"""The measurements on the tiny model: what each name computes, resumption, bad input."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from ttt_training.evaluate import compare as positions
from ttt_training.evaluate import measurements
from ttt_training.evaluate.__main__ import main
from ttt_training.evaluate.books import books
from ttt_training.evaluate.long_reading import LongReading
from ttt_training.evaluate.needles import hide
from ttt_training.evaluate.progress import Progress
from ttt_training.evaluate.reading import drain, losses
from ttt_training.evaluate.saved_state import SavedStates
from ttt_training.evaluate.subjects import NAMES, subjects, variant
from ttt_training.evaluate.weights_file import load_weights

from tests.needs import need
from ttt_memory.errors import InvalidInputError, ModelFormatError
from ttt_memory.model.fold import Segment, read, score, segments
from ttt_memory.model.tiny import tiny

NONE = np.zeros(0, np.int32)
WORDS = "the river stone walks under light and green old house sings to my you never where cold winter boat".split()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight texts of about 5,000 characters (tokens of the tiny model)."""
    path = tmp_path_factory.mktemp("data") / "toy.jsonl"
    drawn = np.random.default_rng(5)
    texts = [" ".join(drawn.choice(WORDS, 1000)) for _ in range(8)]
    path.write_text("".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts)))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that differ from the base in W0 and in the rates, as training leaves them."""
    net, generator = tiny().net, torch.Generator().manual_seed(1)
    tensors = {
        name: value.detach() + 0.05 * torch.randn(value.shape, generator=generator)
        for name, value in net.named_parameters()
        if "w0_" in name or name == "inner_rates"
    }
    path = tmp_path_factory.mktemp("weights") / "final.safetensors"
    save_file(tensors, path)
    return path


def ids(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, count).astype(np.int32)


def run(*arguments: Any) -> int:
    return main([str(argument) for argument in arguments])


def test_a_base_without_writes_scores_as_the_fold_does_segment_by_segment() -> None:
    model, tokens = tiny(), ids(1300)
    (swa,) = subjects("swa", model)
    cut = segments(tokens, NONE, model.config, append=False)
    theirs = np.concatenate([drain(score(model, None, piece)) for piece in cut])
    np.testing.assert_array_equal(losses(swa, tokens), theirs)


def test_writing_reads_as_the_product_does_before_each_write(trained: Path) -> None:
    model, tokens = tiny(), ids(900)
    (ttt,) = subjects("ttt", model, weights=load_weights(trained, tiny()))
    state, steps = ttt.model.initial_state(), []
    for piece in segments(tokens, NONE, ttt.model.config, append=False):
        state = drain(read(ttt.model, state, piece), steps.append)
    steps = [step for step in steps if step is not None]
    found = losses(ttt, tokens)
    assert found[0] == np.float32(steps[0].loss)
    assert found.mean() == pytest.approx(sum(s.loss * s.tokens for s in steps) / len(tokens))
    first = drain(score(ttt.model, ttt.model.initial_state(), Segment(NONE, tokens[:128])))
    assert found[:128].mean() == pytest.approx(first.mean(), abs=1e-5)  # nothing was written before the first 128


def test_wider_windows_see_what_the_narrow_one_does_not() -> None:
    """A text whose second part repeats the first at a distance between the two windows, and one beyond both."""
    model, tokens = tiny(), ids(600)
    assert model.config.window == 64
    changed = tokens.copy()
    changed[400] = (changed[400] + 1) % 256
    for name, reach in (("swa", 64), ("swa4x", 256), ("full", 600)):
        (subject,) = subjects(name, model)
        differs = np.flatnonzero(losses(subject, tokens) != losses(subject, changed))
        layers = model.config.layers
        assert differs.min() == 400
        assert differs.max() < min(600, 401 + layers * reach)
        assert differs.max() >= min(599, 400 + reach // 2), name


def test_full_attention_is_one_pass_and_equals_a_window_as_long_as_the_text() -> None:
    model, tokens = tiny(), ids(700)
    (full,) = subjects("full", model)
    long = variant(model, window=1024, segment_tokens=1024)
    np.testing.assert_allclose(losses(full, tokens), drain(score(long, None, Segment(NONE, tokens))), atol=2e-5)


def test_naive_starts_as_the_base_and_takes_the_rates_given() -> None:
    model, tokens = tiny(), ids(256)
    slow, fast = subjects("naive", model, rates=(0.25, 1.0))
    (swa,) = subjects("swa", model)
    assert [float(one.model.net.inner_rates[0]) for one in (slow, fast)] == [0.25, 1.0]
    plain = losses(swa, tokens)
    for one in (slow, fast):
        found = losses(one, tokens)
        assert found[0] == pytest.approx(plain[:128].mean(), abs=1e-5)
        assert found[128:].mean() != pytest.approx(plain[128:].mean(), abs=1e-5)
    assert slow.identity != fast.identity
    assert float(model.net.inner_rates[0]) == 0.5  # the base is shared and unchanged


def test_the_control_is_read_without_writes_under_its_own_start(trained: Path) -> None:
    model, tokens, given = tiny(), ids(300), load_weights(trained, tiny())
    (control,) = subjects("control", model, controls=[given])
    (wider,) = subjects("control4x", model, controls=[given])
    assert not control.writes
    assert wider.model.config.window == 4 * 64
    assert control.state is not None
    assert control.state.digest() != model.initial_state().digest()
    theirs = drain(score(control.model, control.state, Segment(NONE, tokens)))
    np.testing.assert_array_equal(losses(control, tokens), theirs)


@pytest.mark.parametrize("name", ["ttt", "control", "control4x", "control-naive", "best"])
def test_a_name_without_its_weights_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError):
        subjects(name, tiny())


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    save_file({"inner_rates": torch.ones(7)}, tmp_path / "a.safetensors")
    save_file({"blocks.9.w0_down": torch.ones(2, 2)}, tmp_path / "b.safetensors")
    (tmp_path / "c.safetensors").write_bytes(b"not weights")
    for name in ("a", "b"):
        with pytest.raises(ModelFormatError):
            subjects("ttt", tiny(), weights=load_weights(tmp_path / f"{name}.safetensors", tiny()))
    for missing in ("c.safetensors", "nothing.safetensors", "."):
        with pytest.raises(ModelFormatError):
            load_weights(tmp_path / missing, tiny())


def test_of_several_controls_the_best_counts(data: Path, trained: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "c.json", tmp_path / "other.safetensors"
    save_file({name: 3 * value for name, value in load_weights(trained, tiny()).tensors.items()}, other)
    given = ("--data", data, "--documents", 1, "--tokens", 1024, "--model", "tiny", "--compare", "control")
    means = []
    for controls in ((trained,), (other,), (trained, other)):
        assert run(*given, "--control", *controls, "--json", out) == 0
        means.append(json.loads(out.read_text())["results"]["control"]["mean"])
    assert means[0] != means[1]
    assert means[2] == min(means[:2])


def test_a_runs_folder_gives_its_newest_checkpoint_and_its_configuration(trained: Path, tmp_path: Path) -> None:
    from ttt_training.checkpoints import save

    model, tensors = tiny(), load_weights(trained, tiny()).tensors
    muon = replace(model.config, inner=replace(model.config.inner, rule="muon"))
    run_folder = tmp_path / "run"
    for step in (1, 2):
        scaled = {f"param/{name}": step * value for name, value in tensors.items()}
        save(run_folder / "phase" / "checkpoints", step, scaled, {"model": muon.to_dict()})
    newest = load_weights(run_folder, model)
    assert newest.sha256 == load_weights(run_folder / "phase", model).sha256
    for name, value in tensors.items():
        torch.testing.assert_close(newest.tensors[name], 2 * value)
    (ttt,) = subjects("ttt", model, weights=newest)
    assert ttt.model.config.inner.rule == "muon"
    torch.testing.assert_close(ttt.model.net.inner_rates, 2 * tensors["inner_rates"])
    save_file(tensors, run_folder / "phase" / "final.safetensors")
    final = load_weights(run_folder / "phase" / "final.safetensors", model)
    assert final.config == muon
    assert final.sha256 == load_weights(trained, model).sha256


def test_a_shipped_file_is_evaluated_as_the_memory_loads_it(trained: Path, tmp_path: Path) -> None:
    from ttt_training.weights import export

    from ttt_memory.model.registry import load_model

    model, out = tiny(), tmp_path / "shipped.safetensors"
    tensors = load_weights(trained, model).tensors
    export(model.net, tensors, out, name="x", base_name="tiny", config=model.config, training={})
    (ttt,) = subjects("ttt", model, weights=load_weights(out, model))
    assert ttt.state is not None
    assert ttt.state.digest() == load_model(out).initial_state().digest()
    assert ttt.state.digest() != variant(model, tensors=tensors).initial_state().digest()  # quantised


def test_a_damaged_progress_file_is_an_error_and_stays(data: Path, tmp_path: Path) -> None:
    progress = tmp_path / "c.progress.jsonl"
    progress.write_text("not json\n")
    given = ("--data", data, "--documents", 1, "--tokens", 1024, "--model", "tiny", "--compare", "swa")
    assert run(*given, "--json", tmp_path / "c.json") == 1
    assert progress.read_text() == "not json\n"


def test_compare_writes_results_intervals_and_a_picture(data: Path, trained: Path, tmp_path: Path) -> None:
    need("matplotlib", "bench")
    out, png = tmp_path / "c.json", tmp_path / "c.png"
    names = "swa,naive,ttt,control"
    given = ("--data", data, "--documents", 2, "--tokens", 2048, "--model", "tiny", "--compare", names)
    weights = ("--weights", trained, "--control", trained, "--rates", "0.25,0.5")
    assert run(*given, *weights, "--json", out, "--plot", png) == 0
    found = json.loads(out.read_text())
    assert list(found["results"]) == names.split(",")
    for result in found["results"].values():
        assert len(result["bins"]) == 2
        assert result["mean"] == pytest.approx(np.mean(result["bins"]))
        assert len(result["documents"]) == 2
    naive = found["results"]["naive"]
    assert naive["mean"] == min(naive["tried"].values())
    assert len(naive["tried"]) == 2
    assert set(found["intervals"]["swa"]) == {"naive", "ttt", "control"}
    assert found["normaliser"] >= 1
    assert found["machine"]["torch"] == torch.__version__
    assert str(data.parent) not in out.read_text()
    assert png.read_bytes().startswith(b"\x89PNG")


def test_a_stopped_comparison_goes_on_and_ends_with_the_same_numbers(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("--data", data, "--documents", 3, "--tokens", 1024, "--model", "tiny", "--compare", "swa,naive")
    assert run(*given, "--rates", "0.5", "--json", tmp_path / "whole.json") == 0
    out, real, calls = tmp_path / "stopped.json", positions.losses, []

    def stops_at_the_fourth(*arguments: Any) -> np.ndarray:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(positions, "losses", stops_at_the_fourth)
    assert run(*given, "--rates", "0.5", "--json", out) == 130
    assert not out.exists()
    progress = out.with_suffix(".progress.jsonl")
    assert len(progress.read_text().splitlines()) == 3
    with progress.open("a") as file:
        file.write('{"key": {"cut off')  # as a kill in the middle of a line leaves it
    calls.clear()
    monkeypatch.setattr(positions, "losses", lambda *a: calls.append(1) or real(*a))
    assert run(*given, "--rates", "0.5", "--json", out) == 0
    assert len(calls) == 3  # of six
    one, other = (json.loads((tmp_path / name).read_text()) for name in ("whole.json", "stopped.json"))
    assert one["intervals"] == other["intervals"]
    for name in ("swa", "naive"):
        assert one["results"][name]["bins"] == other["results"][name]["bins"]


def test_finished_pieces_are_not_used_for_other_weights(data: Path, trained: Path, tmp_path: Path) -> None:
    given = ("--data", data, "--documents", 1, "--tokens", 1024, "--model", "tiny", "--compare", "ttt")
    out, other = tmp_path / "c.json", tmp_path / "other.safetensors"
    assert run(*given, "--json", out, "--weights", trained) == 0
    first = json.loads(out.read_text())["results"]["ttt"]["mean"]
    save_file({name: 1.5 * value for name, value in load_weights(trained, tiny()).tensors.items()}, other)
    assert run(*given, "--json", out, "--weights", other) == 0
    assert json.loads(out.read_text())["results"]["ttt"]["mean"] != first


def test_specificity_is_what_reading_by_hand_gives(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.json"
    tokens = 2048  # so the later stretch is 2,560 to 3,072
    assert (
        run("specificity", "--data", data, "--documents", 2, "--tokens", tokens, "--model", "tiny", "--json", out) == 0
    )
    found = json.loads(out.read_text())
    model = tiny()
    texts = books(data, model.tokenizer, documents=2, tokens=3072)
    for row, own, other in zip(found["documents"], texts, texts[::-1], strict=True):
        states = {"w0": model.initial_state()}
        for name, text in (("own", own), ("other", other)):
            state = model.initial_state()
            for piece in segments(text.tokens[:tokens], NONE, model.config, append=False):
                state = drain(read(model, state, piece))
            states[name] = state
        for name, state in states.items():
            scored = drain(score(model, state, Segment(NONE, own.tokens[2560:3072])))
            assert row["later"][name] == pytest.approx(float(scored.mean()), abs=1e-6)
    assert not out.with_suffix(".states").exists()
    assert found["intervals"]["again"]["w0 - own"]["mean"] > 0  # it knows what it read


def test_drift_scores_texts_that_were_not_read(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "d.json"
    sizes = ("--documents", 3, "--tokens", 1024, "--fresh", 2, "--stretch", 512, "--stops", "1,3")
    assert run("drift", "--data", data, *sizes, "--model", "tiny", "--json", out) == 0
    stops = json.loads(out.read_text())["stops"]
    assert [stop["read"] for stop in stops] == [0, 1024, 3072]
    assert stops[0]["rise"]["mean"] == 0
    for stop in stops:
        assert stop["rise"]["mean"] == pytest.approx(stop["loss"] - stops[0]["loss"])


def test_long_reading_goes_on_from_what_was_kept(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ttt_training.evaluate import long_reading

    model = tiny()
    (subject,) = subjects("naive", model, rates=(0.5,))
    texts = books(data, model.tokenizer, documents=3, tokens=512)
    once = LongReading(subject, texts, 512, SavedStates(tmp_path / "a")).after(3)
    kept = SavedStates(tmp_path / "b")
    LongReading(subject, texts, 512, kept).after(2)
    read_now = []
    real = long_reading.learn
    monkeypatch.setattr(long_reading, "learn", lambda *a: read_now.append(1) or real(*a))
    again = LongReading(subject, texts, 512, kept)
    assert again.after(3).digest() == once.digest()
    assert len(read_now) == 1
    assert again.after(0).digest() == subject.state.digest()


def squad(path: Path) -> Path:
    paragraph = {"context": "The river Orm is 40 km long.", "qas": []}
    for number in range(4):
        qa = {"id": f"q{number}", "question": "How long is it?", "answers": [{"text": "40 km"}], "is_impossible": False}
        paragraph["qas"].append(qa)
    paragraph["qas"].append({"id": "no", "question": "Why?", "answers": [], "is_impossible": True})
    path.write_text(json.dumps({"title": "Orm", "paragraphs": [paragraph]}) + "\n")
    return path


def test_answering_asks_the_same_questions_three_times(data: Path, tmp_path: Path) -> None:
    out, questions = tmp_path / "a.json", squad(tmp_path / "squad.jsonl")
    sizes = ("--documents", 1, "--tokens", 512, "--questions", questions, "--model", "tiny")
    assert run("answering", "--data", data, *sizes, "--count", 3, "--json", out) == 0
    found = json.loads(out.read_text())
    assert found["questions"] == 3
    assert set(found["f1"]) == {"base", "w0", "read"}
    assert found["f1"]["base"] == found["f1"]["w0"]  # a copied W0 is the base
    rows = [json.loads(line) for line in out.with_suffix(".progress.jsonl").read_text().splitlines()]
    asked = {}
    for row in rows:
        asked.setdefault(row["key"]["condition"], []).append(row["key"]["question"])
    assert len(set(map(tuple, asked.values()))) == 1
    assert "no" not in asked["base"]
    assert run("answering", "--data", data, *sizes, "--count", 9, "--json", out) == 1


def test_needles_stand_where_they_should_and_are_asked_for(data: Path, tmp_path: Path) -> None:
    model = tiny()
    tokens = books(data, model.tokenizer, documents=1, tokens=4096)[0].tokens[:4096]
    text, hidden = hide(model.tokenizer, tokens, (100, 1000, 3000), 0)
    assert hide(model.tokenizer, tokens, (100, 1000, 3000), 0)[0] == text
    for needle in hidden:
        assert text.count(needle.sentence) == 1
        after = len(model.tokenizer.encode(text[text.index(needle.sentence) + len(needle.sentence) :]))
        assert needle.distance <= after <= needle.distance + 200  # the needles behind it
    bare = text
    for needle in hidden:
        bare = bare.replace(f"\n\n{needle.sentence}\n\n", "")
    assert bare == model.tokenizer.decode(tokens)
    out = tmp_path / "n.json"
    sizes = ("--documents", 1, "--tokens", 1024, "--distances", "64,512", "--no-notepad")
    assert run("needles", "--data", data, *sizes, "--model", "tiny", "--json", out) == 0
    found = json.loads(out.read_text())["by_distance"]
    assert set(found) == {"64", "512"}
    assert all(0 <= found["64"][part]["exact"] <= 1 for part in ("weights", "w0", "window"))


@pytest.mark.slow
def test_the_products_notepad_finds_needles(data: Path, tmp_path: Path, minilm: object) -> None:
    out = tmp_path / "n.json"
    sizes = ("--documents", 1, "--tokens", 1024, "--distances", "512")
    assert run("needles", "--data", data, *sizes, "--model", "tiny", "--json", out) == 0
    assert json.loads(out.read_text())["by_distance"]["512"]["hybrid"]["exact"] == 1.0


def test_bad_input_is_an_error_before_any_work(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ("--model", "tiny", "--json", tmp_path / "o.json")
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "one"}\n{"title": "no text"}\n')
    for arguments in (
        ("--data", tmp_path / "none.jsonl", *base),
        ("--data", data, *base, "--documents", 99),
        ("--data", data, *base, "--compare", "best"),
        ("--data", data, *base, "--compare", ","),
        ("--data", data, *base, "--compare", "ttt"),
        ("--data", broken, *base, "--tokens", 1024),
        ("specificity", "--data", data, *base, "--documents", 1),
        ("drift", "--data", data, *base, "--documents", 1, "--stops", "1,4"),
        ("needles", "--data", data, *base, "--tokens", 256, "--distances", "512"),
    ):
        assert run(*arguments) == 1, arguments
        assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "o.progress.jsonl").exists()


def test_mini_batches_that_do_not_fill_a_bin_are_refused(data: Path, tmp_path: Path) -> None:
    model = tiny()
    odd = variant(model, inner=replace(model.config.inner, mini_batch=100))
    (subject,) = subjects("naive", odd, rates=(0.5,))
    texts = books(data, model.tokenizer, documents=1, tokens=512)
    with pytest.raises(InvalidInputError):
        positions.compare({"naive": [subject]}, texts, 512, Progress(tmp_path / "p.jsonl", 1.0))


def test_the_time_left_of_a_piece_made_of_pieces(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 10.0, 20.0, 30.0, 30.0, 40.0])  # the whole begins, its part begins and ends, the whole ends
    monkeypatch.setattr("ttt_training.evaluate.progress.time.perf_counter", lambda: next(clock))
    progress = Progress(tmp_path / "p.jsonl", 4.0)

    def whole() -> dict[str, Any]:
        progress.passed(1.0)
        return progress.once({"is": "part"}, "part", 1.0, dict)

    progress.once({"is": "whole"}, "whole", 2.0, whole)
    assert capsys.readouterr().err.splitlines() == ["part: 10 s, 20 s left", "whole: 30 s, 30 s left"]
    again = Progress(tmp_path / "p.jsonl", 4.0)
    again.once({"is": "whole"}, "whole", 2.0, dict)
    again.once({"is": "next"}, "next", 1.0, dict)
    assert capsys.readouterr().err.splitlines() == ["next: 10 s, 10 s left"]


def test_every_measurement_of_the_command_line_exists() -> None:
    from ttt_training.evaluate import tables

    for name in ("compare", "specificity", "answering", "drift", "needles"):
        assert callable(getattr(measurements, name))
        assert callable(getattr(tables, name))


def test_without_names_everything_is_compared_that_the_weights_allow(trained: Path) -> None:
    def names(weights: Path | None, control: list[Path]) -> list[str]:
        return measurements.names_of(Namespace(compare=None, weights=weights, control=control))

    assert names(None, []) == ["swa", "swa4x", "full", "naive"]
    assert names(trained, []) == ["swa", "swa4x", "full", "naive", "ttt"]
    assert names(trained, [trained]) == list(NAMES)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_weights_that_come_with_the_package_need_no_option(
    data: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every name in one plain command, and all that its result has to hold."""
    monkeypatch.setattr(measurements, "shipped", lambda: {"tiny-ttt": trained, "tiny-control": trained})
    out, plot = tmp_path / "all.json", tmp_path / "all.png"
    given = ("--data", data, "--documents", 2, "--tokens", 4608, "--compare", ",".join(NAMES))
    assert run(*given, "--model", "tiny", "--json", out, "--plot", plot) == 0
    found = json.loads(out.read_text())
    assert list(found["results"]) == list(NAMES)
    for one in found["results"].values():
        assert {"mean", "mean_after_4096", "bins"} <= set(one)
        assert len(one["bins"]) == 5
    assert found["results"]["control-naive"]["rate"] in (0.25, 0.5, 1.0, 2.0)
    assert len(found["results"]["control-naive"]["tried"]) == 4
    assert found["normaliser"] >= 1
    pairs = {(a, b) for a, others in found["intervals"].items() for b in others}
    assert pairs == {(a, b) for i, a in enumerate(NAMES) for b in NAMES[i + 1 :]}
    rows = {line["what"]: line["met"] for line in found["targets"]}
    assert {"swa - ttt after 4,096 tokens", "ttt - swa, worst bin", "control - ttt"} <= set(rows)
    assert "gain over control: last quarter - tokens 1,024 to 4,096" in rows
    assert all(type(met) is bool for met in rows.values())
    assert plot.stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_writes_lower_the_real_models_loss_late_in_a_book(
    smollm2_available: str, data_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "c.json"
    book = data_dir / "books" / "val-000.jsonl.xz"
    sizes = ("--documents", 1, "--tokens", 8192, "--compare", "swa,naive", "--rates", "0.7")
    assert run("--data", book, *sizes, "--model", smollm2_available, "--json", out) == 0
    found = json.loads(out.read_text())["results"]
    assert found["naive"]["mean_after_4096"] < found["swa"]["mean_after_4096"]
