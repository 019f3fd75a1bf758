"""What a Hub does of what is pushed to it; an answer is a status and what goes with it as JSON."""

from __future__ import annotations

import base64
import json

import yaml

from tests.hub_store import LocalHub, Repository

LARGE_FILES = (".safetensors", ".parquet", ".png", ".tif")


def full_name(kind: str, name: str) -> str:
    """What a repository of "models", "datasets" or "spaces" is called here."""
    return name if kind == "models" else f"{kind}/{name}"


def create_repository(hub: LocalHub, asked: dict) -> tuple[int, dict]:
    name = full_name(f"{asked.get('type') or 'model'}s", f"{asked['organization']}/{asked['name']}")
    known = name in hub.repositories
    if not known:
        repository = hub.repository(name)
        repository.private = asked.get("visibility") == "private"
        repository.commit({})
    return 409 if known else 200, {"url": f"{hub.url}/{name}"}


def create_branch(repository: Repository, branch: str) -> tuple[int, dict]:
    if branch in repository.refs:
        return 409, {}
    repository.refs[branch] = repository.refs.get("main", "")
    return 200, {}


def set_variable(repository: Repository, asked: dict) -> tuple[int, dict]:
    repository.variables[asked["key"]] = asked["value"]
    return 200, {key: {"value": value} for key, value in repository.variables.items()}


def check_card(asked: dict) -> tuple[int, dict]:
    """The Hub's own rule for licences of others; the rest is ModelCardData's."""
    front = yaml.safe_load(asked["content"].split("---")[1])
    named = front.get("license") != "other" or front.get("license_name")
    errors = [] if named else [{"message": '"license_name" is required', "line": 1}]
    return 400 if errors else 200, {"errors": errors, "warnings": []}


def sort_files(asked: dict) -> tuple[int, dict]:
    """Say of each file whether it goes into the commit itself or to the large files."""
    files = [
        {
            "path": file["path"],
            "uploadMode": "lfs" if file["path"].endswith(LARGE_FILES) else "regular",
            "shouldIgnore": False,
        }
        for file in asked["files"]
    ]
    return 200, {"files": files}


def offer_uploads(hub: LocalHub, repository: Repository, asked: dict) -> tuple[int, dict]:
    """Say where to upload what the repository does not hold yet."""
    held = {digest for files in repository.commits.values() for digest in files.digests.values()}
    objects = []
    for wanted in asked["objects"]:
        href = f"{hub.url}/objects/{wanted['oid']}"
        known = wanted["oid"] in held
        objects.append(wanted if known else wanted | {"actions": {"upload": {"href": href}}})
    return 200, {"transfer": "basic", "objects": objects}


def commit(hub: LocalHub, name: str, revision: str, body: bytes, as_pr: bool) -> tuple[int, dict]:
    """Commit what was asked for line by line; nothing where a large file has not arrived."""
    repository = hub.repositories[name]
    sha = repository.resolve(revision)
    digests = dict(repository.commits[sha].digests) if sha else {}
    for line in body.splitlines():
        entry = json.loads(line)
        value = entry["value"]
        if entry["key"] == "file":
            content = base64.b64decode(value["content"])
            digests[value["path"]] = hub.objects.store(content)
        elif entry["key"] == "lfsFile":
            if value["oid"] not in hub.objects:
                return 400, {}
            digests[value["path"]] = value["oid"]
        elif entry["key"] == "deletedFile":
            del digests[value["path"]]
    ref = f"refs/pr/{len(repository.refs)}" if as_pr else revision
    sha = repository.commit_stored(digests, ref)
    done = {"commitUrl": f"{hub.url}/{name}/commit/{sha}", "commitOid": sha}
    if as_pr:
        done["pullRequestUrl"] = f"{hub.url}/{name}/discussions/1"
    return 200, done
