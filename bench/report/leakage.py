"""How much of a score is leakage: protocol paper against clean, and the groups on both sides of a split."""

import math

import pandas as pd

from bench.report.layout import METRICS, NONE, Table, number
from bench.report.notes import status_notes
from bench.report.read import Results
from bench.report.scores import Score, Scores, difference_of, scores_of
from bench.report.summary import Summary
from fusion.split import PROTOCOLS
from fusion.straddling import ANY, COPIES, IDENTICAL, JOINED, KINDS

COMPARED = ("accuracy", "auc")
MODELS = ("model1", "model2", "model3")
GAP_NOTES = (
    "the interval of a gap combines those of the two scores (MOVER, Zou & Donner 2008) and takes the two test "
    "sets as independent",
    "the two test sets differ in more than leakage: paper tests augmented rows, clean tests each image once, "
    "leaves out images shown under both classes, and trains on fewer rows, as a tenth of its groups is the "
    "validation set",
)
AGAIN = "call the same 'fusebench run' again to count them"
COUNTED = ("groups", "straddling", "leaked_rows", "test_rows")
DUPLICATE_COLUMNS = (
    *("protocol", "kind", "source", "groups", "images", "two_classes", "seeds"),
    *("straddling", "straddling_min", "straddling_max", "leaked_rows", "test_rows", "leaked_share"),
)


def leakage_gap(summaries: list[Summary], notes: tuple[str, ...]) -> Table:
    """Return accuracy and AUC of every cell under both protocols, and their differences with intervals."""
    scores = scores_of(summaries)
    by_cell: dict[str, dict[str, Summary]] = {}
    for summary in summaries:
        by_cell.setdefault(summary.cell, {})[summary.protocol] = summary
    pairs = {cell: both for cell, both in by_cell.items() if set(both) >= set(PROTOCOLS)}
    frame, display = [], []
    for cell, both in pairs.items():
        numbers: dict[str, object] = {"cell": cell}
        texts = [cell]
        for metric in COMPARED:
            under = [scores.get((protocol, cell, metric), Score()) for protocol in PROTOCOLS]
            gap = difference_of(*under)
            for protocol, score in zip(PROTOCOLS, under, strict=True):
                numbers |= score.columns(f"{metric}_under_{protocol}")
                texts.append(_value(both[protocol].ours(metric), metric))
            numbers |= gap.columns(f"{metric}_gap")
            texts.append(gap.shown(metric, signed=True))
        numbers |= {f"status_{protocol}": both[protocol].status for protocol in PROTOCOLS}
        frame.append(numbers)
        display.append(texts)
    headings = [f"{METRICS[metric].heading} {what}" for metric in COMPARED for what in (*PROTOCOLS, "gap")]
    parts = [f"{metric}_{what}" for metric in COMPARED for what in ("under_paper", "under_clean", "gap")]
    columns = ["cell", *(part + end for part in parts for end in ("", "_low", "_high"))]
    return Table(
        name="leakage_gap",
        title="Leakage gap: accuracy and AUC under protocol paper, under clean, and paper − clean (95 % interval).",
        notes=(
            *notes,
            *gap_sentences(summaries),
            *(GAP_NOTES if pairs else ()),
            *(status_notes([one for both in pairs.values() for one in both.values()]) if pairs else ()),
        ),
        frame=pd.DataFrame(frame, columns=[*columns, *(f"status_{protocol}" for protocol in PROTOCOLS)]),
        display=pd.DataFrame(display, columns=["Model", *headings]),
        numbers=tuple(headings),
        brief=("Model", *headings[:3]),
    )


def gap_sentences(summaries: list[Summary]) -> list[str]:
    """Return one sentence on the leakage gap of Models 1 to 3, or on how to get it."""
    protocols = {summary.protocol for summary in summaries}
    if missing := [name for name in PROTOCOLS if name not in protocols]:
        return [
            f"leakage gap: protocol {' and '.join(missing)} was not run; the same 'fusebench run' with --protocol both "
            "adds it, and with it the part of every score that is leakage"
        ]
    scores = scores_of(summaries)
    gaps = {cell: gap for cell, gap in _gaps(scores).items() if cell.partition("/")[0] in MODELS}
    if not gaps:
        return ["leakage gap: no cell of Models 1 to 3 is done under both protocols"]
    largest = max(gaps, key=lambda cell: gaps[cell].value)
    mean = sum(gap.value for gap in gaps.values()) / len(gaps)
    sure = sum(gap.low > 0 for gap in gaps.values())
    return [
        f"leakage gap: over {len(gaps)} cells of Models 1 to 3 accuracy under protocol paper differs from that under "
        f"clean by {Score(value=mean).shown('accuracy', signed=True)} on average, and at most by "
        f"{gaps[largest].shown('accuracy', signed=True)} ({largest}); the interval of {sure} of them lies above 0"
    ]


def _gaps(scores: Scores) -> dict[str, Score]:
    cells = dict.fromkeys(cell for _, cell, _ in scores)
    both = {cell: [scores.get((protocol, cell, "accuracy"), Score()) for protocol in PROTOCOLS] for cell in cells}
    gaps = {cell: difference_of(*pair) for cell, pair in both.items()}
    return {cell: gap for cell, gap in gaps.items() if not math.isnan(gap.value)}


def duplicates(results: Results, notes: tuple[str, ...]) -> Table:
    """Return, for every kind of group and protocol, how many groups have rows on both sides of the split."""
    frame, display = [], []
    for (protocol, kind, source), lines in results.straddling.groupby(["protocol", "kind", "source"], sort=False):
        straddling, leaked, tested = (lines[name] for name in ("straddling", "leaked_rows", "test_rows"))
        first = lines.iloc[0]
        counts = {name: int(first[name]) for name in ("groups", "images", "two_classes")}
        row = {"protocol": protocol, "kind": kind, "source": source, **counts, "seeds": len(lines)}
        row |= {"straddling": straddling.mean(skipna=False), "straddling_min": straddling.min(skipna=False)}
        row |= {"straddling_max": straddling.max(skipna=False), "leaked_rows": leaked.mean(skipna=False)}
        row |= {"test_rows": tested.mean(skipna=False), "leaked_share": (leaked / tested).mean(skipna=False)}
        frame.append(row)
        texts = [str(protocol), str(kind), str(source), *(str(count) for count in counts.values())]
        display.append([*texts, _range(row), _share(row)])
    headings = ["Groups", "Images", "Two classes", "On both sides", "Test rows leaked"]
    return Table(
        name="duplicates",
        title="Groups of images that belong together, and how many have rows on both sides of the split.",
        notes=(
            *notes,
            *duplicate_sentences(results),
            *(f"{kind}: {what}" for kind, what in KINDS.items()),
            "the split is that of Models 1 to 3; several seeds: mean (least–most); test rows leaked: those of a group "
            "that is trained on, too",
        )
        if frame
        else (*notes, *duplicate_sentences(results)),
        frame=pd.DataFrame(frame, columns=list(DUPLICATE_COLUMNS)),
        display=pd.DataFrame(display, columns=["Protocol", "Kind", "Source", *headings]),
        numbers=tuple(headings),
        brief=("Protocol", "Kind", "Source", "Groups", "On both sides", "Test rows leaked"),
        block="Protocol",
    )


def duplicate_sentences(results: Results) -> list[str]:
    """Return one sentence per protocol on what of its test rows is known from training."""
    found = results.straddling
    if found.empty:
        return [f"duplicates: this run keeps no count of groups on both sides of its splits; {AGAIN}"]
    sentences = []
    for protocol, lines in found.groupby("protocol", sort=False):
        if lines["straddling"].isna().any():
            sentences.append(f"duplicates: under protocol {protocol} the data set can't be split")
            continue
        means = {str(kind): of_kind[list(COUNTED)].mean() for kind, of_kind in lines.groupby("kind")}
        share = float(means[ANY]["leaked_rows"]) / float(means[ANY]["test_rows"])
        joined, copies = (
            f"{means[kind]['straddling']:.0f} of {means[kind]['groups']:.0f}" for kind in (JOINED, COPIES)
        )
        sentences.append(
            f"duplicates: under protocol {protocol} {share:.0%} of the test rows show an image, or one of its group, "
            f"that is trained on: {joined} groups of images that belong together and {copies} images with augmented "
            "copies have rows on both sides"
        )
    same = found[found["kind"] == IDENTICAL].iloc[0]
    have = "group of images has" if same["groups"] == 1 else "groups of images have"
    sentences.append(f"duplicates: {same['groups']} {have} identical pixels, {same['two_classes']} of two classes")
    return sentences


def _range(row: dict[str, object]) -> str:
    mean, least, most = (float(str(row[name])) for name in ("straddling", "straddling_min", "straddling_max"))
    return number(mean, 0) if not least < most else f"{number(mean, 0)} ({number(least, 0)}–{number(most, 0)})"


def _share(row: dict[str, object]) -> str:
    leaked, tested, share = (float(str(row[name])) for name in ("leaked_rows", "test_rows", "leaked_share"))
    return NONE if math.isnan(share) else f"{number(leaked, 0)} of {number(tested, 0)} ({share:.0%})"


def _value(ours: float | str, metric: str) -> str:
    return ours if isinstance(ours, str) else number(ours, METRICS[metric].decimals)
