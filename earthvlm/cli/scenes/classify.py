"""`earthvlm classify`: label all scenes of an index from a few labelled ones."""

from __future__ import annotations

import argparse
from pathlib import Path

from earthvlm.cli.options import check_output_path
from earthvlm.cli.output import print_message
from earthvlm.storage.hub import BUNDLED


def add_classify(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "classify",
        help="label all scenes of an index from a few labelled ones",
        description=(
            "Fit a linear probe to the embeddings of labelled scenes, and write a table with the\n"
            "label and its probability for every scene of the index. The cross-validated accuracy\n"
            "goes to stderr."
        ),
        epilog="example:\n  earthvlm classify labels.csv --index my_index --output classes.csv",
    )
    parser.add_argument(
        "labels", type=Path, metavar="LABELS", help="a CSV file with the columns image_id and label"
    )
    parser.add_argument(
        "--index",
        default=BUNDLED,
        metavar="DATASET",
        help="an embedding dataset's folder or Hub repository (default: the bundled one)",
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="TABLE", help="a .csv or .parquet file"
    )
    parser.set_defaults(run=run_classify)


def run_classify(arguments: argparse.Namespace) -> int:
    """Write the table, and print how well the labels can be predicted."""
    from earthvlm.search.classification import read_labels
    from earthvlm.search.index import SceneIndex

    tables = ".csv", ".parquet"
    check_output_path(arguments.output, "--output", tables, inputs=[str(arguments.labels)])
    labels = read_labels(arguments.labels)
    found = SceneIndex.from_pretrained(arguments.index).classify(labels)
    found.write(arguments.output)
    print_message(found.summary)
    return 0
