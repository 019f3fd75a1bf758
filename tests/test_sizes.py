"""Packages, files, functions and the names of tests stay small enough to be read at one sitting."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE_FILES, FILE_LINES, FUNCTION_LINES, TEST_NAME_LETTERS = 14, 400, 60, 60


def read_sources() -> Iterator[tuple[Path, str]]:
    """Every Python file of the project, by its path from the root."""
    for folder in ("earthvlm", "hub", "tests", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT), path.read_text("utf-8")
    for name in ("app.py", "train_accelerate.py"):
        yield Path(name), (ROOT / name).read_text("utf-8")


@cache
def read_functions() -> list[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function and method, with the file that holds it."""
    return [
        (path, node) for path, text in read_sources() for node in find_functions(ast.parse(text))
    ]


def find_functions(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function among the statements of a node, without a look into expressions."""
    for part in ("body", "orelse", "finalbody", "handlers", "cases"):
        for statement in getattr(node, part, []):
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                yield statement
            yield from find_functions(statement)


def test_packages_have_few_files():
    files = Counter(path.parent for path, _ in read_sources() if path.parts[0] == "earthvlm")
    assert {str(folder): n for folder, n in files.items() if n > PACKAGE_FILES} == {}


def test_files_are_short():
    long = [str(path) for path, text in read_sources() if len(text.splitlines()) > FILE_LINES]
    assert long == []


def test_functions_are_short():
    long = [
        f"{path}::{function.name}"
        for path, function in read_functions()
        if (function.end_lineno or 0) - function.lineno + 1 > FUNCTION_LINES
    ]
    assert long == []


def test_names_of_tests_are_short():
    long = [
        f"{path}::{function.name}"
        for path, function in read_functions()
        if function.name.startswith("test_") and len(function.name) > TEST_NAME_LETTERS
    ]
    assert long == []
