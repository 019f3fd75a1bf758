"""Turn the errors of the Hub's client and of hf_xet into one sentence each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from earthvlm.storage import hub_fetch
from earthvlm.storage.files import suggest_folder


@contextmanager
def plain_errors(name: str, revision: str | None, action: str = "read") -> Iterator[None]:
    """Raise the Hub's errors again as one sentence each, none of which holds a token."""
    from httpx2 import HTTPError
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except HFValidationError:
        raise ValueError(
            f"{name} is neither a folder nor the id of a Hub repository"
            f"{suggest_folder(name) or '.'}"
        ) from None
    except LocalTokenNotFoundError:
        raise ValueError(f"{name} needs a token: log in with `hf auth login`.") from None
    except GatedRepoError:
        raise ValueError(
            f"The Hub repository {name} is gated: accept its terms there, then log in with "
            "`hf auth login`."
        ) from None
    except RepositoryNotFoundError:
        raise ValueError(
            f"There is no folder {name}, and no Hub repository of that name that you may read"
            f"{suggest_folder(name) or '.'}"
        ) from None
    except RevisionNotFoundError:
        raise ValueError(f"The Hub repository {name} has no revision {revision}.") from None
    except TimeoutError:
        raise ConnectionError(
            f"The Hub, which may have a repository {name}, did not answer within "
            f"{hub_fetch.ANSWER_SECONDS:g} seconds: try again later."
        ) from None
    except (  # hf_xet raises the last two
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        HTTPError,
        ConnectionError,
        RuntimeError,
    ) as error:
        status, reason = find_answer(error)
        if status in (401, 403):
            raise ValueError(
                f"The Hub does not let you {action} {name}: log in with `hf auth login`, with a "
                "token that may."
            ) from None
        hub = (
            f"There is no folder {name}, and the Hub, which may have a repository of that name,"
            if action == "read"
            else f"The Hub, where {name} would go,"
        )
        ended = f"answered {status}: try again later" if status else f"cannot be reached ({reason})"
        near = suggest_folder(name) if action == "read" else ""
        raise ConnectionError(f"{hub} {ended}{near or '.'}") from error


def find_answer(error: BaseException) -> tuple[int | None, str]:
    """Find the HTTP status of the Hub's answer, if any, and the type of the root cause.

    The client wraps errors: a failed upload of a large file is a RuntimeError. hf_xet has the
    status in its text alone, as in "HTTP status server error (503 Service ...)".
    """
    while True:
        response = getattr(error, "response", None)
        if response is not None:
            return response.status_code, type(error).__name__
        if error.__cause__ is None:
            break
        error = error.__cause__
    status = re.search(r"HTTP status \w+ error \((\d{3})\b", str(error))
    return int(status[1]) if status else None, type(error).__name__
