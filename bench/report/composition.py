"""What a score is made of: leakage, what a model that sees almost nothing reaches, and what another modality tells."""

import math

import numpy as np
import pandas as pd

from bench.report.layout import METRICS, Table, number
from bench.report.leaderboard import is_ranked, ordered
from bench.report.leakage import MODELS, duplicate_sentences, duplicates, gap_sentences, leakage_gap
from bench.report.notes import status_notes
from bench.report.read import Results
from bench.report.scores import Score, Scores, scores_of
from bench.report.summary import OUTCOME_COLUMNS, Summary, of_models, summarise

SEES = {
    "baseline/majority": "nothing",
    "baseline/modality": "its modality",
    "baseline/source": "its data set",
    "baseline/thumbnail": "8 × 8 pixels",
}
"""Baseline -> all it is told of a row."""
SCORES = ("accuracy", "auc")
SCORE_COLUMNS = tuple(f"{metric}{end}" for metric in SCORES for end in ("", "_low", "_high"))
HEADINGS = [METRICS[metric].heading for metric in SCORES]


def composition_tables(results: Results, summaries: list[Summary], notes: tuple[str, ...]) -> tuple[Table, ...]:
    """Return the tables ``baselines``, ``leakage_gap``, ``duplicates`` and ``transfer``.

    Args:
        results: of one run.
        summaries: of its cells, in the order of the tables.
        notes: what every table of the run carries.
    """
    return (
        _baselines(summaries, notes),
        leakage_gap(summaries, notes),
        duplicates(results, notes),
        _transfer(results, summaries, notes),
    )


def composition_sentences(results: Results) -> list[str]:
    """Return what the four tables say, a sentence each and protocol; phantoms and random weights are not named here."""
    summaries = summarise(results.run, results.rows)
    return [
        *_baseline_sentences(summaries),
        *gap_sentences(summaries),
        *duplicate_sentences(results),
        *_transfer_sentences(results, summaries),
    ]


# -- baselines -------------------------------------------------------------------------------------------------------


def _baselines(summaries: list[Summary], notes: tuple[str, ...]) -> Table:
    scores = scores_of(summaries)
    frame, display = [], []
    chosen = _beside_baselines(summaries)
    for summary in chosen:
        majority = scores.get((summary.protocol, "baseline/majority", "accuracy"), Score())
        found = _found(scores, summary)
        lead = found["accuracy"].value - majority.value
        sees = SEES.get(summary.cell, "the images")
        where = {"protocol": summary.protocol, "cell": summary.cell, "sees": sees}
        frame.append(where | _columns(found) | {"accuracy_over_majority": lead} | summary.outcome())
        signed = Score(value=lead).shown("accuracy", signed=True)
        display.append([summary.protocol, summary.cell, sees, *_texts(found, summary), signed])
    headings = [*HEADINGS, "Over majority"]
    return Table(
        name="baselines",
        title="Models that see almost nothing, beside the most accurate cell of each model (95 % interval).",
        notes=(
            *notes,
            *_baseline_sentences(summaries),
            "all are trained on the same rows and judged on the same; over majority: accuracy − that of a model that "
            "sees nothing; the most accurate cell is so on these very test rows; whether a test says that it is "
            "better, the leaderboard tells",
            *status_notes(chosen),
        ),
        frame=pd.DataFrame(
            frame, columns=["protocol", "cell", "sees", *SCORE_COLUMNS, "accuracy_over_majority", *OUTCOME_COLUMNS]
        ),
        display=pd.DataFrame(display, columns=["Protocol", "Model", "Sees", *headings]),
        numbers=tuple(headings),
        brief=("Model", "Sees", *HEADINGS),
        block="Protocol",
    )


def _beside_baselines(summaries: list[Summary]) -> list[Summary]:
    """Return the baselines and the most accurate cell of each model, protocol by protocol."""
    chosen: list[Summary] = []
    for protocol in dict.fromkeys(summary.protocol for summary in summaries):
        here = [summary for summary in summaries if summary.protocol == protocol]
        chosen += of_models(here, "baseline")
        for model in MODELS:
            chosen += [one for one in ordered(of_models(here, model)) if is_ranked(one)][:1]
    return chosen


def _baseline_sentences(summaries: list[Summary]) -> list[str]:
    scores, sentences = scores_of(summaries), []
    for protocol in dict.fromkeys(summary.protocol for summary in summaries):
        chosen = [one for one in _beside_baselines(summaries) if one.protocol == protocol]
        reached = {one.cell: _plain(scores, protocol, one.cell) for one in chosen if one.cell in SEES}
        if set(reached) != set(SEES) or not all(isinstance(one.ours("accuracy"), float) for one in chosen):
            sentences.append(
                f"baselines: under protocol {protocol} not all are there; call the same 'fusebench run' again"
            )
            continue
        told = ", ".join(f"{SEES[cell]} {text}" for cell, text in reached.items())
        best = next(iter(ordered([one for one in chosen if one.cell not in SEES])), None)
        beside = (
            f"; the most accurate of the others, {best.cell}, {_plain(scores, protocol, best.cell)}" if best else ""
        )
        sentences.append(
            f"baselines: under protocol {protocol} a model reaches accuracy (AUC) by seeing {told}{beside}"
        )
    return sentences


# -- transfer --------------------------------------------------------------------------------------------------------


def _transfer(results: Results, summaries: list[Summary], notes: tuple[str, ...]) -> Table:
    scores = scores_of(summaries)
    frame, display, chosen = [], [], []
    for summary in of_models(summaries, "transfer"):
        here, there = _directions(summary.cell)
        majority = _commoner_class(results, summary)
        for modality, one in ((there, _same_modality(summaries, summary)), (here, summary)):
            if one is None:
                continue
            chosen.append(one)
            found = _found(scores, one)
            where = {"protocol": one.protocol, "tested_on": there, "trained_on": modality, "cell": one.cell}
            frame.append(where | _columns(found) | {"accuracy_commoner_class": majority} | one.outcome())
            texts = [one.protocol, there, modality, *_texts(found, one)]
            display.append([*texts, number(majority, METRICS["accuracy"].decimals)])
    headings = [*HEADINGS, "Commoner class"]
    return Table(
        name="transfer",
        title="Transfer between modalities: the 17-layer CNN trained on one, tested on the other (95 % interval).",
        notes=(
            *notes,
            *_transfer_sentences(results, summaries),
            "the lines of one protocol and tested modality are judged on the same rows, without augmentation; commoner "
            "class: accuracy on them of always deciding for the class that most of them have",
            *(status_notes(chosen) if chosen else ()),
        ),
        frame=pd.DataFrame(
            frame,
            columns=[
                *("protocol", "tested_on", "trained_on", "cell", *SCORE_COLUMNS, "accuracy_commoner_class"),
                *OUTCOME_COLUMNS,
            ],
        ),
        display=pd.DataFrame(display, columns=["Protocol", "Tested on", "Trained on", *headings]),
        numbers=tuple(headings),
        brief=("Tested on", "Trained on", *HEADINGS),
        block="Tested on",
    )


def _transfer_sentences(results: Results, summaries: list[Summary]) -> list[str]:
    scores, sentences = scores_of(summaries), []
    for summary in of_models(summaries, "transfer"):
        if not isinstance(summary.ours("accuracy"), float):
            continue
        here, there = _directions(summary.cell)
        own = _same_modality(summaries, summary)
        beside = ""
        if own is not None and isinstance(own.ours("accuracy"), float):
            beside = f", trained on {there} itself {_plain(scores, own.protocol, own.cell)}"
        sentences.append(
            f"transfer: under protocol {summary.protocol} the CNN trained on {here} reaches accuracy (AUC) "
            f"{_plain(scores, summary.protocol, summary.cell)} on {there}{beside}; always deciding for the "
            f"commoner class reaches accuracy {number(_commoner_class(results, summary), METRICS['accuracy'].decimals)}"
        )
    return sentences or ["transfer: no cell of a section [transfer] is done in this run"]


def _directions(cell: str) -> tuple[str, str]:
    """Return ``mammography`` and ``ultrasound`` of ``transfer/cnn17+mammography-to-ultrasound``."""
    here, _, there = cell.partition("+")[2].partition("-to-")
    return here, there


def _same_modality(summaries: list[Summary], transfer: Summary) -> Summary | None:
    """Return the ablation trained on the modality that ``transfer`` is tested on, if the run has it."""
    cell = f"ablation/cnn17+{_directions(transfer.cell)[1]}"
    return next((one for one in summaries if (one.protocol, one.cell) == (transfer.protocol, cell)), None)


def _commoner_class(results: Results, summary: Summary) -> float:
    """Return the share of the commoner class among the test rows of a cell, a mean over the seeds; NaN for no rows."""
    shares = [
        max(share := float(rows["label"].mean()), 1 - share)
        for (protocol, _, cell), rows in results.predictions.items()
        if (protocol, cell) == (summary.protocol, summary.cell)
    ]
    return float(np.mean(shares)) if shares else math.nan


# -- numbers and texts -----------------------------------------------------------------------------------------------


def _found(scores: Scores, summary: Summary) -> dict[str, Score]:
    return {metric: scores.get((summary.protocol, summary.cell, metric), Score()) for metric in SCORES}


def _columns(found: dict[str, Score]) -> dict[str, float]:
    return {key: value for metric, score in found.items() for key, value in score.columns(metric).items()}


def _texts(found: dict[str, Score], summary: Summary) -> list[str]:
    """Return the scores as text, or in their place why there are none."""
    ours = {metric: summary.ours(metric) for metric in found}
    return [word if isinstance(word := ours[metric], str) else score.shown(metric) for metric, score in found.items()]


def _plain(scores: Scores, protocol: str, cell: str) -> str:
    """Return ``0.701 (0.754)``: accuracy, and AUC in brackets."""
    accuracy, auc = (
        number(scores.get((protocol, cell, metric), Score()).value, METRICS[metric].decimals) for metric in SCORES
    )
    return f"{accuracy} ({auc})"
