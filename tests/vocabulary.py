"""Find words that a colleague would not use in comments, docstrings, messages and documents.

    python -m tests.vocabulary            # every file that git tracks
    python -m tests.vocabulary FILE ...

Prints `file:line: word: use ...` for each, and exits with 1 where there is one.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A pattern, and what to write in its place. The first list holds for every text, messages to users
# included; the second for comments, docstrings and documents alone, since people may well type
# such words into a question.
EVERYWHERE = {
    r"foretold|foretell\w*": "prompt lookup, draft tokens",
    r"anew": "again, from the start",
    r"unseeing": "without an image",
    r"unwants?": "negative terms",
    r"robbed": "with random band dropout",
    r"told apart": "distinguished",
    r"said before": "earlier answers",
    r"did not come to pass": "did not happen",
}
PROSE = {
    r"beside": "next to, with, in addition to",
    r"so many": "a number of",
    r"(?:goes|go|went) on(?= (?:with|from|where|as)\b|[.,;:])": "continue, resume",
    r"the rest": "the others, the remaining ones",
    r"what is (?:said|told|asked|known|there|missing|seen|kept|given|wanted)": "name the thing",
    r"\w+ (?:is|are|was|were) told": "report, print, show",
    r"it is said": "report, print, show",
    r"of its own kind": "similar",
}
QUOTED = re.compile(r"``.*?``|`[^`]*`|\"[^\"\n]*\"|“[^”]*”")
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
SKIPPED = ("earthvlm/bundled/", "LICENSE", "tests/vocabulary.py")


def blank(match: re.Match[str]) -> str:
    """The text's line breaks alone, so that line numbers stay."""
    return re.sub(r"[^\n]", " ", match[0])


def read_python(source: str) -> Iterator[tuple[int, str, bool]]:
    """Each comment and string with its line, and whether it is prose (no message or data)."""
    prose_lines: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body
            if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
                prose_lines.add(body[0].lineno)
    kinds = {tokenize.COMMENT, tokenize.STRING}
    kinds |= {getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in kinds:
            is_prose = token.type == tokenize.COMMENT or token.start[0] in prose_lines
            text = token.string
            if is_prose and token.type != tokenize.COMMENT:
                text = text.strip("\"'")
            yield token.start[0], text, is_prose


def find_words(path: Path) -> Iterator[tuple[int, str, str]]:
    """Each unwelcome word of a file: its line, itself, and what to write in its place."""
    text = path.read_text("utf-8")
    parts = read_python(text) if path.suffix == ".py" else [(1, FENCE.sub(blank, text), True)]
    for line, part, is_prose in parts:
        rules = EVERYWHERE | PROSE if is_prose else EVERYWHERE
        cleaned = QUOTED.sub(blank, part) if is_prose else part
        for pattern, advice in rules.items():
            for match in re.finditer(rf"\b(?:{pattern})\b", cleaned, re.IGNORECASE):
                yield line + cleaned.count("\n", 0, match.start()), match[0], advice


def tracked_files() -> list[Path]:
    """The Python files and documents that git tracks."""
    names = subprocess.run(
        ["git", "ls-files", "*.py", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    return [ROOT / name for name in names if not name.startswith(SKIPPED)]


def main(arguments: Iterable[str]) -> int:
    """Print every finding; return how the process should exit."""
    found = 0
    for path in [Path(name).resolve() for name in arguments] or tracked_files():
        for line, word, advice in find_words(path):
            found += 1
            print(f"{path.relative_to(ROOT)}:{line}: {word!r}: use {advice}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
