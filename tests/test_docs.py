"""The README and the documentation: commands parse, and every file, test and name exists."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from urllib.parse import unquote

import pytest

from earthvlm.cli import build_parser
from earthvlm.training.config import BridgeArguments, RunArguments, TrainingConfig

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# Where a page's short paths start: `models/lora.py`, `test_limits.py::test_name`.
BASES = [ROOT / name for name in ("", "earthvlm", "docs", "tests", "tests/end_to_end")]
CODE_SUFFIXES = (".py", ".sh", ".yaml", ".toml", ".md")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"(?:^ {4}\S.*\n?)+", re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")
PROGRAMS = ("earthvlm", "python", "python3", "accelerate", "make", "configs/launch.sh", "pytest")

# Scripts that only pass their arguments to a command.
DOORS = {
    "app.py": "app",
    "train_accelerate.py": "train",
    "configs/launch.sh": "train",
    "hub/embed_chatearthnet.py": "embed-dataset",
    "hub/publish_space.py": "publish-space",
}

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def code_blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of these languages."""
    return [text for language, text in FENCE.findall(page.read_text()) if language in languages]


def commands(page: Path) -> Iterator[list[str]]:
    """Commands of this project in the page's blocks and between its backticks, as words."""
    text = page.read_text()
    blocks = code_blocks(page, "sh", "bash", "console")
    text = FENCE.sub("", text)
    blocks += map(dedent, INDENTED.findall(text))
    blocks += (code.replace("\n", " ") for code in INLINE.findall(INDENTED.sub("", text)))
    for block in blocks:
        if "<<" in block:
            continue  # a program for another language
        for line in re.sub(r"\\\n +", " ", block).splitlines():
            for part in re.split(r"&&|\|\|", line.strip().removeprefix("$ ")):
                if not part.split() or "'" in part.replace("'earthvlm[", ""):
                    continue
                words = shlex.split(re.sub(r"[\[\]]", " ", part), comments=True)
                while words and re.match(r"[A-Z_]+=|exec$|srun$|--n", words[0]):
                    del words[0]
                if words and words[0] in PROGRAMS:
                    yield [word for word in words if word != "&"]


def check_flags(words: list[str], known: set[str]) -> None:
    for word in words:
        flag = word.partition("=")[0]
        assert not flag.startswith("--") or flag in known, f"{' '.join(words)}: no {flag}"


@cache
def flags_in_source(path: Path) -> set[str]:
    """Every flag that a script names in a string."""
    return set(re.findall(r'"(--[\w-]+)"', path.read_text()))


CLI_FLAGS = set().union(*map(flags_in_source, (ROOT / "earthvlm" / "cli").rglob("*.py")))
CLI_FLAGS |= {
    f"--{argument.name}"
    for group in (BridgeArguments, TrainingConfig, RunArguments)
    for argument in fields(group)
}


def check_command(words: list[str]) -> None:
    """Raises AssertionError or SystemExit where a program would refuse its arguments."""
    program, *arguments = words
    script = next((word for word in words if word.endswith(".py") or "/launch.sh" in word), "")
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in arguments if "=" not in word} <= set(targets), words
    elif program == "earthvlm":
        check_earthvlm(words)
    elif "-m" in words and words[words.index("-m") + 1].startswith("earthvlm"):
        module, *given = words[words.index("-m") + 1 :]
        check_earthvlm(["earthvlm", *module.split(".")[1:], *given])
    elif script in DOORS:
        given = words[words.index(script) + 1 + script.endswith(".sh") :]
        check_earthvlm(["earthvlm", DOORS[script], *given])
    elif arguments[:1] == ["-m"]:
        module = find_spec(arguments[1])
        assert module is not None and module.origin is not None, arguments[1]
        if arguments[1].startswith(("benchmarks.", "tests.")):
            check_flags(arguments[2:], flags_in_source(Path(module.origin)))
    elif script:
        assert (ROOT / script).is_file(), script
        check_flags(words[words.index(script) + 1 :], flags_in_source(ROOT / script))


def check_earthvlm(words: list[str]) -> None:
    """Parse a command; one that a sentence names without its arguments needs a name and flags."""
    pairs = pairwise(words)
    try:  # without an ellipsis that stands for more arguments
        build_parser().parse_args([w for flag, w in pairs if w != "..." or "--" in flag])
    except ValueError as error:
        if not str(error).startswith(("the following arguments", "argument --")):
            raise
        with pytest.raises(SystemExit, check=lambda error: not error.code):
            build_parser().parse_args([*words[1:2], "--help"])
        check_flags(words[2:], CLI_FLAGS)


def find_file(name: str) -> Path | None:
    """The file or folder that a page calls by this name."""
    return next((base / name for base in BASES if (base / name).exists()), None)


@every_page
def test_commands_parse(page, capsys):
    for words in commands(page):
        try:
            check_command(words)
        except SystemExit as ended:
            if ended.code:  # not --help
                pytest.fail(f"{' '.join(words)}: {capsys.readouterr().err.strip()}")


def test_commands_are_found():
    assert sum(1 for _ in commands(ROOT / "README.md")) >= 14
    assert ["earthvlm", "download", "moondream2"] in list(commands(ROOT / "docs" / "models.md"))
    assert ["make", "benchmark"] in list(commands(ROOT / "docs" / "performance.md"))


@every_page
def test_files_exist(page):
    names = set()
    for text in INLINE.findall(FENCE.sub("", page.read_text())):
        for name in re.findall(r"[\w./{},-]+", text.partition("::")[0]):
            is_code = name.endswith(CODE_SUFFIXES) and "NAME" not in name
            is_folder = name.endswith("/") and name.startswith(("earthvlm/", "tests/", "docs/"))
            names |= {name} if is_code or is_folder else set()
    assert not {name for name in names if not find_file(name)}


@every_page
def test_tests_exist(page):
    for path, name in re.findall(r"([\w/]+\.py)::(\w+)", page.read_text()):
        file = find_file(path)
        assert file, path
        names = {getattr(node, "name", None) for node in ast.walk(ast.parse(file.read_text()))}
        assert name in names, f"{path}::{name}"


@every_page
def test_modules_exist(page):
    for name in re.findall(r"\b(?:earthvlm|benchmarks|tests)(?:\.\w+)+", page.read_text()):
        module, _, attribute = name.rpartition(".")
        if name.endswith(".py") or find_spec(name.partition(".")[0]) is None:
            continue
        assert hasattr(importlib.import_module(module), attribute) or find_spec(name), name


@every_page
def test_python_examples_compile_and_import(page):
    for source in code_blocks(page, "python"):
        tree = ast.parse(source)
        imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, []), page.name, "exec"), {})
        compile(tree, page.name, "exec")


@every_page
def test_links_and_images_exist(page):
    text = FENCE.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        file = page.parent / unquote(path) if path else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}
            assert anchor in slugs, target


def test_index_lists_every_page():
    listed = set(re.findall(r"\]\((\w+\.md)", (ROOT / "docs" / "index.md").read_text()))
    assert listed == {page.name for page in PAGES[2:]} - {"index.md"}
