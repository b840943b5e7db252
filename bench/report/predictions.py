"""The table of ``fusebench predict``."""

import pandas as pd

from bench.report.layout import Table, number


def prediction_table(answers: pd.DataFrame, notes: tuple[str, ...]) -> Table:
    """Return the answers of ``bench.predict.predict`` as a table."""
    display = [
        [line["file"], number(line["probability"], 4), line["decision"] or f"not classified: {line['reason']}"]
        for line in answers.to_dict("records")
    ]
    return Table(
        name="predictions",
        title="Probability of malignancy",
        notes=notes,
        frame=answers,
        display=pd.DataFrame(display, columns=["File", "Probability", "Decision"]),
        numbers=("Probability",),
    )
