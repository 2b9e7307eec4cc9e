"""The rooms of the package: who may import whom stands in CONTRIBUTING."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dbcpu"
HEAVY = ("torch", "cv2", "numpy", "PIL", "shapely", "pyclipper", "yaml", "safetensors", "rich", "fastapi", "uvicorn")


def _rooms_imported_by(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "dbcpu":
            modules = [f"dbcpu.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            modules = [node.module or ""]
        else:
            continue
        found |= {module.split(".")[1] for module in modules if module.startswith("dbcpu.")}
    return found


def _table_of_the_code() -> dict[str, set[str]]:
    table: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if not room.startswith("__"):
            table.setdefault(room, set()).update(_rooms_imported_by(path) - {room, "__version__"})
    return table


def _table_of_the_documentation() -> dict[str, set[str]]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|$", text, flags=re.MULTILINE)
    return {room: set(re.findall(r"`(\w+)`", imported)) for room, imported in rows}


def test_the_import_table_in_contributing_is_that_of_the_code():
    assert _table_of_the_code() == _table_of_the_documentation()


def test_rooms_import_inwards_only():
    table = _table_of_the_code()
    seen: set[str] = set()
    while len(seen) < len(table):
        ready = {room for room, imported in table.items() if room not in seen and imported <= seen}
        assert ready, f"these rooms import each other in a circle: {sorted(set(table) - seen)}"
        seen |= ready


def test_help_imports_nothing_heavy():
    code = (
        "import sys, dbcpu.cli.main as m; [m.main([*command, '--help']) for command in (['detect'], ['serve'], [])];"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_file_has_one_subject_and_fits_it():
    long = {str(path): n for path in PACKAGE.rglob("*.py") if (n := len(path.read_text().splitlines())) > 400}
    assert long == {}


def test_public_names_are_there():
    import dbcpu

    assert [name for name in dbcpu.__all__ if getattr(dbcpu, name) is None] == []
    assert "load_detector" in dir(dbcpu)
