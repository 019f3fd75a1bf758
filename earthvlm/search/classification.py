"""Classify all scenes of an index from a few labelled ones, by a linear probe."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from earthvlm.scenes.places.formatting import describe_count

FOLDS = 5
# The inverse strength of the regression's penalty: unit vectors of 384 numbers are small.
PROBE_C = 10.0
MIN_EXAMPLES = 2  # of each class, so that one can be tested with the other


@dataclass(frozen=True, eq=False)
class Classification:
    """The classes of the scenes of an index.

    Attributes:
        table: a row a scene: `image_id`, `label`, `probability`, and `given`, the label that was
            given, null where the probe alone decided.
        accuracy: of the labelled scenes, each predicted by a probe that did not see it
            (stratified cross-validation).
        majority: the accuracy of always predicting the most frequent label.
        by_label: the recall of each label, from the same predictions.
        counts: labelled scenes by label.
        folds: of the cross-validation.
    """

    table: pa.Table
    accuracy: float
    majority: float
    by_label: dict[str, float]
    counts: dict[str, int]
    folds: int

    @property
    def summary(self) -> str:
        """One sentence on how well the labels can be predicted."""
        recalls = ", ".join(f"{label} {share:.2f}" for label, share in self.by_label.items())
        return (
            f"Cross-validated accuracy {self.accuracy:.2f} from "
            f"{describe_count(sum(self.counts.values()), 'labelled scene')} in {self.folds} "
            f"folds; always the most frequent label: {self.majority:.2f}. "
            f"Recall by label: {recalls}."
        )

    def write(self, path: str | Path) -> None:
        """Write the table as CSV or Parquet. Raises ValueError for another suffix."""
        import pyarrow.csv
        import pyarrow.parquet

        path = Path(path)
        if path.suffix.lower() == ".csv":
            pyarrow.csv.write_csv(self.table, path)
        elif path.suffix.lower() == ".parquet":
            pyarrow.parquet.write_table(self.table, path)
        else:
            raise ValueError(f"{path} must end in .csv or .parquet.")


def classify_vectors(
    image_ids: list[str], vectors: np.ndarray, rows: Mapping[int, str], seed: int = 0
) -> Classification:
    """Classify scenes by their embeddings.

    Args:
        image_ids: of N scenes.
        vectors: their embeddings, `[N, 384]`.
        rows: labels by the scenes' rows.
        seed: of the folds.

    Raises:
        ValueError: fewer than two labels, or a label with fewer than two scenes.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    counts = Counter(rows.values())
    rare = [label for label, count in counts.items() if count < MIN_EXAMPLES]
    if len(counts) < 2 or rare:
        raise ValueError(
            "A classification needs at least two labels with two scenes each"
            + (f"; too few are {', '.join(sorted(rare)[:8])}." if rare else ".")
        )
    labels = np.array(list(rows.values()))
    known = vectors[list(rows)]
    probe = LogisticRegression(C=PROBE_C, class_weight="balanced", max_iter=1000)
    folds = min(FOLDS, *counts.values())
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    predicted = cross_val_predict(probe, known, labels, cv=split)
    probe.fit(known, labels)
    probabilities = probe.predict_proba(vectors)
    best = probabilities.argmax(axis=1)
    given = [rows.get(row) for row in range(len(image_ids))]
    table = pa.table(
        {
            "image_id": image_ids,
            "label": [own or str(probe.classes_[i]) for own, i in zip(given, best, strict=True)],
            "probability": probabilities.max(axis=1).astype(np.float32),
            "given": pa.array(given, pa.string()),
        }
    )
    recalls = {str(c): float((predicted[labels == c] == c).mean()) for c in sorted(counts)}
    return Classification(
        table,
        float((predicted == labels).mean()),
        max(counts.values()) / len(labels),
        recalls,
        dict(sorted(counts.items())),
        folds,
    )


def read_labels(path: Path) -> dict[str, str]:
    """Read labels by image_id from a CSV file with these two columns.

    Raises ValueError, naming the line, for another form.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not in UTF-8: {error}.") from error
    reader = csv.DictReader(text.splitlines())
    if not {"image_id", "label"} <= set(reader.fieldnames or ()):
        raise ValueError(f"{path} needs a first line with the columns image_id and label.")
    labels: dict[str, str] = {}
    for row in reader:
        image_id, label = row["image_id"], row["label"]
        if not image_id or not label:
            raise ValueError(f"{path}: line {reader.line_num} lacks an image_id or a label.")
        if labels.setdefault(image_id, label) != label:
            raise ValueError(f"{path}: line {reader.line_num} gives {image_id} a second label.")
    return labels
