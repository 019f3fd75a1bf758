"""Compare the licences of installed packages with those that may be installed with earthvlm.

    python -m tests.licences ENVIRONMENT

ENVIRONMENT is a virtual environment. Prints each package of `requirements.lock` whose licence is in
neither list, and exits with 1 where there is one. Needs the program pip-licenses next to Python.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Licences that ask for attribution at most, by words that their many names have in common.
PERMISSIVE = (
    r"apache|\bmit\b|\bbsd|0bsd|\bisc\b|python|psf|unlicense|public domain|cc0|zlib|hpnd|mit-cmu"
    r"|historical permission|blueoak|boost"
)
# Under the Mozilla Public License, which asks for the source of changed files; no file is changed.
UNCHANGED = ("certifi", "orjson", "tqdm")


def normalize(name: str) -> str:
    """A package's name as all tools write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def find_others(packages: list[dict[str, str]], locked: set[str]) -> list[str]:
    """Each locked package that is neither permissive nor in UNCHANGED, with its licence."""
    found = []
    for package in packages:
        name, licence = normalize(package["Name"]), package["License"]
        is_copyleft = re.search(r"GPL|MPL|Mozilla|EPL|CDDL", licence)
        is_permissive = re.search(PERMISSIVE, licence, re.IGNORECASE) and not is_copyleft
        if name in locked and name not in UNCHANGED and not is_permissive:
            found.append(f"{name}: {' '.join(licence.split())[:80]}")
    return found


def read_locked() -> set[str]:
    """The names in `requirements.lock`."""
    lines = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    return {normalize(line.partition("==")[0]) for line in lines if not line.startswith("#")}


def main(arguments: list[str]) -> int:
    """Print every finding; return how the process should exit."""
    (environment,) = arguments
    program = Path(sys.executable).with_name("pip-licenses")
    python = Path(environment) / "bin" / "python"
    done = subprocess.run(
        [str(program), "--python", str(python), "--format", "json", "--from", "mixed"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = find_others(json.loads(done.stdout), read_locked())
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
