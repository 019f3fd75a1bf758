"""Files of published models: a folder given by its path, or fetched from the Hub at one commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# What the commit of a folder is called that did not come from the Hub.
LOCAL_REVISION = "local"


@dataclass(frozen=True)
class Snapshot:
    """A folder of files, and the commit it holds."""

    folder: Path
    revision: str


def fetch(
    source: str | Path,
    patterns: Sequence[str],
    revision: str | None = None,
    **options: object,
) -> Snapshot:
    """Find a folder, or fetch the files of a Hub repository that match the patterns.

    What was fetched before is not fetched again, and what was interrupted is resumed.
    revision: a branch, tag or commit of the repository; the main branch where it is None.
    options: `token`, `cache_dir`, `local_files_only`, `repo_type` as huggingface_hub takes them.

    Raises ValueError where there is no such repository or revision or it is not open to the
    caller, ConnectionError where the Hub cannot be reached; one sentence each.
    """
    if Path(source).is_dir():
        return Snapshot(Path(source), LOCAL_REVISION)
    from httpx2 import HTTPError
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        folder = snapshot_download(
            str(source), revision=revision, allow_patterns=list(patterns), **options
        )
    except HFValidationError:
        raise ValueError(
            f"{source!s} is neither a folder nor the id of a Hub repository."
        ) from None
    except GatedRepoError:
        raise ValueError(
            f"The Hub repository {source} is gated: accept its terms there, then log in with "
            "`hf auth login`."
        ) from None
    except RepositoryNotFoundError:
        raise ValueError(
            f"There is no folder {source}, and no Hub repository of that name that you may read."
        ) from None
    except RevisionNotFoundError:
        raise ValueError(f"The Hub repository {source} has no revision {revision}.") from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, HTTPError) as error:
        raise ConnectionError(
            f"There is no folder {source}, and the Hub, which may have a repository of that name, "
            f"cannot be reached ({type(error).__name__})."
        ) from error
    return Snapshot(Path(folder), Path(folder).name)
