"""The rules of the house, read off the tracked files: small modules, one-way rooms, no addresses, no home paths."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "labsupport"
MODULES = sorted(PACKAGE.rglob("*.py"))
LINE_LIMIT = 400

# A room may import itself and what stands here; a new room needs a line of its own.
BASE = {"errors", "workspace", "compatibility"}
ROOMS = {"models", "decoding", "checkpoint", "engine", "figures", "doctor", "repository", "serving", "validation"}
ROOMS |= {"benchmark"}
MAY_IMPORT = {
    "errors": set(),
    "workspace": {"errors"},
    "compatibility": {"errors", "workspace"},
    "models": BASE,
    "doctor": BASE | {"models"},
    "decoding": BASE | {"models"},
    "checkpoint": BASE | {"models", "decoding"},
    "repository": BASE | {"models"},
    "figures": {"errors"},
    "engine": BASE | {"models", "decoding", "checkpoint", "doctor"},
    "serving": BASE | {"models", "checkpoint", "engine", "repository", "backends"},
    "backends": BASE | {"models", "decoding", "checkpoint", "engine"},
    "validation": BASE | {"models", "decoding", "checkpoint", "engine", "repository", "serving", "backends"},
    "benchmark": BASE | {"models", "decoding", "checkpoint", "doctor", "engine", "figures", "repository", "serving"},
    "labs": BASE | ROOMS,
    "cli": (BASE | ROOMS | {"labs"}) - {"engine"},
    "": {"errors", "labs"},  # labsupport/__init__.py hands on start and check, lazily
}

# Spelled in pieces, so that this file does not hold what it looks for.
REGISTRIES = [
    ".".join(name) for name in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("anaconda", "org"))
]
REGISTRIES += ["index-" + "url", "extra-index-" + "url", "find-" + "links"]
HOMES = re.compile(r"(?<![\w.$~}])/(?:home|Users|root)/[\w.-]+|[A-Z]:\\\\?Users\\\\?\w+")


def room_of(path: Path) -> str:
    """The room of a module: the first folder under labsupport/, or the module's own name."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imports(source: str) -> Iterator[tuple[str, int]]:
    """Rooms that ``source`` imports, at its top or inside a function, each with its line."""
    for node in ast.walk(ast.parse(source)):
        named: list[str] = []
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            named = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        rooms = {match[1] for name in named if (match := re.match(r"labsupport\.(\w+)", name))}
        for room in sorted(rooms):
            if (PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").is_file():
                yield room, node.lineno


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""  # pictures


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_at_most_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINE_LIMIT


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_import_one_way(path: Path) -> None:
    room = room_of(path)
    assert room in MAY_IMPORT, f"{room} is a new room: say in MAY_IMPORT what it may import"
    wrong = [
        f"line {line}: {room} imports {other}"
        for other, line in imports(path.read_text(encoding="utf-8"))
        if other != room and other not in MAY_IMPORT[room]
    ]
    assert wrong == []


def test_the_allowed_imports_have_no_circle() -> None:
    """Take away, again and again, the rooms that need none of those that are left: all must go."""
    left = {room: others - {room} for room, others in MAY_IMPORT.items() if room}
    while left:
        free = {room for room, others in left.items() if not others & set(left)}
        assert free, f"these import each other: {sorted(left)}"
        left = {room: others for room, others in left.items() if room not in free}


def test_the_import_reader_sees_every_form() -> None:
    source = (
        "import labsupport.labs\nfrom labsupport import figures\n"
        "def f():\n    from labsupport.models.tiny import make_tiny\nfrom labsupport import LabError\n"
    )
    assert sorted(imports(source)) == [("figures", 2), ("labs", 1), ("models", 4)]


def test_no_relative_imports_that_climb_out_of_a_room() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level > 1), f"{path}:{node.lineno}"


def test_no_registry_in_any_tracked_file() -> None:
    found = [f"{path.relative_to(ROOT)}: {name}" for path in tracked() for name in REGISTRIES if name in text_of(path)]
    assert found == []


def test_no_home_path_in_any_tracked_file() -> None:
    found = [f"{path.relative_to(ROOT)}: {hit}" for path in tracked() for hit in HOMES.findall(text_of(path))]
    assert found == []


@pytest.mark.parametrize("bad", ["see |home|ada|work", 'open("|root|model")', "|Users|ada|x"])
def test_the_home_pattern_finds_what_it_should(bad: str) -> None:
    assert HOMES.search(bad.replace("|", "/"))
    assert HOMES.search("C:" + "|Users|ada".replace("|", "\\"))


@pytest.mark.parametrize(
    "fine", ["~/labs", "$HOME/labs", "/opt/tritonserver/bin", "docs/home/page", "the /root folder"]
)
def test_the_home_pattern_leaves_the_rest(fine: str) -> None:
    assert not HOMES.search(fine)


def test_the_license_is_the_whole_apache_license() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text
    assert all(f"\n   {number}. " in text for number in range(1, 10))
    assert "END OF TERMS AND CONDITIONS" in text
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_notice_names_the_models_of_the_catalogue() -> None:
    from labsupport.models import CATALOGUE

    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    assert "bundles no model weights" in notice
    for model in CATALOGUE:
        family = "Gemma" if "gemma" in str(model).lower() else "SmolLM2"
        assert family in notice
    weights = [path.name for path in tracked() if path.suffix in {".safetensors", ".gguf", ".bin", ".pt", ".model"}]
    assert weights == []
