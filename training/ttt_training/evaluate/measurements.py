"""From options of the command line to results: what each measurement loads, runs and writes down."""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from typing import Any

from ttt_memory.errors import InvalidInputError
from ttt_memory.model.catalogue import shipped
from ttt_memory.model.loaded import LoadedModel
from ttt_memory.model.registry import load_model
from ttt_training.evaluate import about
from ttt_training.evaluate import answering as squad
from ttt_training.evaluate import compare as positions
from ttt_training.evaluate import drift as drifting
from ttt_training.evaluate import needles as haystacks
from ttt_training.evaluate import specificity as specific
from ttt_training.evaluate.books import books
from ttt_training.evaluate.long_reading import LongReading
from ttt_training.evaluate.notepad import ask_notepad
from ttt_training.evaluate.progress import Progress, beside
from ttt_training.evaluate.saved_state import SavedStates
from ttt_training.evaluate.shared_prefix import sharing
from ttt_training.evaluate.subjects import NAMES, Subject, subjects
from ttt_training.evaluate.targets import answering_targets, drift_targets, specificity_targets, targets
from ttt_training.evaluate.weights_file import WeightsFile, load_weights


def compare(options: Namespace, arguments: list[str]) -> dict[str, Any]:
    """Loss by position of every name."""
    model = load_model(options.model)
    wanted = names_of(options)
    if not wanted:
        raise InvalidInputError("Nothing to compare.", fix="Give --compare at least one name.")
    weights, controls = _trained(options, model)
    named = {
        name: [sharing(one) for one in subjects(name, model, weights=weights, controls=controls, rates=options.rates)]
        for name in wanted
    }
    texts = books(options.data, model.tokenizer, documents=options.documents, tokens=options.tokens)
    result = _head("compare", model, options, arguments)
    progress = Progress(beside(options.json), positions.cost(named, len(texts), options.tokens))
    found = positions.compare(named, texts, options.tokens, progress)
    return result | found | {"targets": [target.to_dict() for target in targets(found["results"])]}


def specificity(options: Namespace, arguments: list[str]) -> dict[str, Any]:
    """Own memory, W0 and another's."""
    model, subject = _model_and_subject(options)
    if options.documents < 2:
        raise InvalidInputError("Specificity needs at least two documents.", fix="Raise --documents.")
    longest = max(last for _, last in specific.spans(options.tokens).values())
    texts = books(options.data, model.tokenizer, documents=options.documents, tokens=longest)
    result = _head("specificity", model, options, arguments) | _of(subject)
    states, progress = _states(options), Progress(beside(options.json), len(texts))
    result |= specific.specificity(sharing(subject), texts, options.tokens, progress, states)
    states.clear()
    return result | {"targets": [target.to_dict() for target in specificity_targets(result["intervals"])]}


def answering(options: Namespace, arguments: list[str]) -> dict[str, Any]:
    """Token F1 of the base, under W0, and after reading."""
    model, subject = _model_and_subject(options)
    asked = squad.questions(options.questions, options.count)
    texts = books(options.data, model.tokenizer, documents=options.documents, tokens=options.tokens)
    result = _head("answering", model, options, arguments) | _of(subject)
    states, progress = _states(options), Progress(beside(options.json), len(squad.CONDITIONS) * len(asked))
    reading = LongReading(subject, texts, options.tokens, states)
    result |= squad.answering(model, subject, asked, reading, len(texts), progress)
    states.clear()
    reached = [target.to_dict() for target in answering_targets(result["f1"])]
    return result | {"read": len(texts) * options.tokens, "targets": reached}


def drift(options: Namespace, arguments: list[str]) -> dict[str, Any]:
    """Loss on fresh text after more and more of other documents."""
    model, subject = _model_and_subject(options)
    stops = sorted({0, *options.stops})
    if stops[-1] > options.documents:
        raise InvalidInputError(f"The last stop is after {stops[-1]} documents.", fix="Raise --documents.")
    unread = books(options.data, model.tokenizer, documents=options.fresh, tokens=options.stretch)
    every = books(options.data, model.tokenizer, documents=options.fresh + stops[-1], tokens=options.tokens)
    read = [text for text in every if text.name not in {other.name for other in unread}][: stops[-1]]
    cost = drifting.cost_of(stops[-1], options.tokens, len(stops) * len(unread), options.stretch)
    states, progress = _states(options), Progress(beside(options.json), cost)
    result = _head("drift", model, options, arguments) | _of(subject)
    result |= drifting.drift(
        sharing(subject),
        read,
        unread,
        stops=stops,
        piece=options.tokens,
        stretch=options.stretch,
        progress=progress,
        states=states,
    )
    states.clear()
    return result | {"targets": [target.to_dict() for target in drift_targets(result["stops"])]}


def needles(options: Namespace, arguments: list[str]) -> dict[str, Any]:
    """Codes by distance, from the weights alone and with the notepad."""
    model, subject = _model_and_subject(options)
    texts = books(options.data, model.tokenizer, documents=options.documents, tokens=options.tokens)
    result = _head("needles", model, options, arguments) | _of(subject)
    notepad = None if options.no_notepad else partial(ask_notepad, model=options.model)
    distances = options.distances or tuple(far for far in haystacks.DISTANCES if far < options.tokens)
    if not 0 < len(distances) <= haystacks.MOST or max(distances) > options.tokens:
        raise InvalidInputError(f"Distances must be 1 to {haystacks.MOST} numbers of at most --tokens.")
    progress = Progress(beside(options.json), len(texts))
    return result | haystacks.needles(subject, texts, options.tokens, progress, distances=distances, notepad=notepad)


def _model_and_subject(options: Namespace) -> tuple[LoadedModel, Subject]:
    model = load_model(options.model)
    name = options.name or ("ttt" if options.weights else "naive")
    weights, controls = _trained(options, model)
    rate = model.config.inner.rate if options.rate is None else options.rate
    found = subjects(name, model, weights=weights, controls=controls, rates=(rate,))
    if len(found) > 1:
        raise InvalidInputError("Several controls were given.", fix="Give the best one alone.")
    return model, found[0]


def with_shipped(options: Namespace) -> None:
    """Fills in the weights and the control that come with the package, where none were named and there are some."""
    known = shipped()
    if options.weights is None:
        options.weights = known.get(f"{options.model}-ttt")
    if not options.control:
        options.control = [known[name] for name in (f"{options.model}-control",) if name in known]


def _trained(options: Namespace, base: LoadedModel) -> tuple[WeightsFile | None, list[WeightsFile]]:
    weights = load_weights(options.weights, base) if options.weights else None
    return weights, [load_weights(path, base) for path in options.control]


def names_of(options: Namespace) -> list[str]:
    """What was asked for, else everything that the given weights allow."""
    if options.compare is not None:
        return list(dict.fromkeys(name.strip() for name in options.compare.split(",") if name.strip()))
    given = {"ttt": options.weights is not None, "control": bool(options.control)}
    return [name for name in NAMES if given.get(name.split("-")[0].removesuffix("4x"), True)]


def _states(options: Namespace) -> SavedStates:
    return SavedStates(options.json.with_suffix(".states"))


def _head(measurement: str, model: LoadedModel, options: Namespace, arguments: list[str]) -> dict[str, Any]:
    settings = {"data": options.data.name, "documents": options.documents, "tokens": options.tokens}
    return about.head(measurement, model, arguments) | {"settings": settings}


def _of(subject: Subject) -> dict[str, Any]:
    return {"subject": {"name": subject.name, "about": subject.about, "rate": subject.rate}}
