"""The examples that a record of ``VariantExamples`` holds (Fig. 5 of the paper)."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from dppmask.data.png import from_png
from dppmask.errors import UserError
from dppmask.evaluation.variant_examples import Examples
from dppmask.figures.background_examples import draw_examples


def draw(records: Sequence[Mapping[str, Any]], *, figure: Figure | None = None) -> Figure:
    """The images of one record.

    Raises:
        UserError: If there are several records.
    """
    if len(records) > 1:
        raise UserError(
            f"VariantExamples draws one record, got {len(records)}; give a file that holds only one"
        )
    return draw_examples(recorded_examples(records[0]["tables"]["shown"]), figure=figure)


def recorded_examples(shown: Sequence[Mapping[str, Any]]) -> Examples:
    """The images of the table "shown", which has at least one row."""
    columns = {
        variant: [
            None if row["images"][variant] is None else from_png(row["images"][variant]) for row in shown
        ]
        for variant in shown[0]["images"]
    }
    return Examples(columns, [row["class"] for row in shown])
