"""`earthvlm embed-dataset`: embed captioned scenes, in one process or several."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from earthvlm.cli.options import whole_number


def add_embed_dataset(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "embed-dataset",
        help="embed captioned scenes with a bridge, to search in and to publish",
        description=(
            "Embed scenes and captions, ChatEarthNet's or of one's own, into Parquet files with a\n"
            "card. Existing files are kept, so that the same command resumes an interrupted run.\n"
            "`accelerate launch -m earthvlm embed-dataset` runs it in several processes."
        ),
        epilog=(
            "examples:\n"
            "  earthvlm embed-dataset --data_dir chatearthnet_data --bridge owner/earthvlm "
            "--output embeddings --push_to_hub owner/embeddings\n"
            "  earthvlm embed-dataset --data_dir my_scenes --bridge bundled --output embeddings "
            "--name 'Lakes' --licence cc-by-4.0 --source 'Jane Doe (CC-BY-4.0)'"
        ),
    )
    add, at_least_one = parser.add_argument, whole_number(1)
    add(
        "--data_dir",
        required=True,
        action="append",
        help="what --data_dir of the training takes: see docs/own_data.md; repeat it for several",
    )
    add("--bridge", required=True, help="a saved bridge's folder or Hub repository, or 'bundled'")
    add("--output", required=True, type=Path, help="the folder to write to")
    add("--push_to_hub", metavar="REPO", help="publish the finished dataset in this repository")
    add(
        "--hub_private_repo",
        action=argparse.BooleanOptionalAction,
        help="make the repository private (with --no-: public) and refuse one that is not "
        "(default: keep an existing one as it is)",
    )
    add("--name", help="of the data, for the card (default: its folder or Hub repository)")
    add(
        "--licence",
        metavar="ID",
        help="of images and captions, as the Hub names it: cc-by-4.0, for instance (default: that "
        "of the Hub repository, or of ChatEarthNet)",
    )
    add("--source", help="the owner and licence of the images (default: name and licence)")
    add("--splits", nargs="+", default=(), help="splits to embed (default: all)")
    add(
        "--captions",
        choices=("35", "4v"),
        default="35",
        help="of ChatEarthNet, by ChatGPT-3.5 or GPT-4V (%(default)s)",
    )
    add("--batch_size", type=at_least_one, default=64, help="scenes at once (%(default)s)")
    add("--shard_rows", type=at_least_one, default=4096, help="scenes per file (%(default)s)")
    add(
        "--num_workers",
        type=whole_number(0),
        default=2,
        help="reading processes of each process (%(default)s)",
    )
    parser.set_defaults(run=run_embed_dataset)


def run_embed_dataset(parsed: argparse.Namespace) -> int:
    """Print what was written, and where it was published."""
    import torch
    from accelerate import Accelerator

    from earthvlm.models.loading import hide_progress_bars
    from earthvlm.publishing.embedding_dataset import EmbeddingArguments, embed_dataset

    hide_progress_bars()
    names = [field.name for field in fields(EmbeddingArguments)]
    arguments = EmbeddingArguments(**{name: getattr(parsed, name) for name in names})
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    try:
        embed_dataset(arguments, accelerator, print)
    finally:
        accelerator.end_training()
    return 0
