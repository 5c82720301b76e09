"""Rooms import downwards and keep to their libraries, files stay short, and no file names a machine."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WALLS = {
    "rasterio": ("raster/", "evaluate/polygons.py"),
    "torch": ("dataset/", "model/", "loss/", "train/", "evaluate/"),
    "mlflow": ("tracking/",),
    "snakemake": (),
    "hashlib": ("hashing.py", "raster/inventory/scan.py"),  # the latter hashes while it reads
}
ROOMS = (
    "config",
    "model",
    "loss",
    "raster",
    "simulate",
    "splits",
    "dataset",
    "evaluate",
    "train",
    "report",
    "tracking",
)
"""From bottom to top: a room imports from those before it, never from those after it."""
PRIVATE = {
    "raster/io/geometry.py": {"_err"},  # rasterio has no public name for the errors of PROJ
    "train/pixelwise.py": {"_predictors", "_baseline_prediction"},  # scikit-learn has no public access to its trees
}
"""Private names of libraries that are used, with the reason; tests of these files fail when they change."""


def sources() -> list[Path]:
    return sorted((ROOT / "tmcnet").rglob("*.py"))


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_what_belongs_there(path: Path) -> None:
    place = str(path.relative_to(ROOT / "tmcnet"))
    broken = [
        name
        for name in imported(ast.parse(path.read_text()))
        if name in WALLS and not place.startswith(WALLS[name] or ("\0",))
    ]
    assert not broken, f"{place} imports {broken}"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path: Path) -> None:
    place = path.relative_to(ROOT / "tmcnet").parts[0]
    above = ROOMS[ROOMS.index(place) + 1 :] if place in ROOMS else ROOMS
    if place in ("__init__.py", "cli.py"):  # the command stands above all rooms
        return
    found = {
        node.module.split(".")[1]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tmcnet.")
    }
    assert not found & set(above), f"{place} imports from {found & set(above)}, which are above it"


def test_every_room_has_its_place() -> None:
    assert {path.parent.name for path in (ROOT / "tmcnet").glob("*/__init__.py")} == set(ROOMS)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_private_names_of_libraries_have_a_reason(path: Path) -> None:
    """Attributes with one underscore belong to `self`, `cls` or a class of ours, or are listed in `PRIVATE`."""
    tree = ast.parse(path.read_text())
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _is_self(node.value)}
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and re.match("_[a-z]", node.attr) and not _is_self(node.value)
    }
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    used |= {name.name for node in imports for name in node.names}
    used |= {part for node in imports for part in (node.module or "").split(".")}
    private = {name for name in used if re.match("_[a-z]", name)} - own - PUBLIC
    assert private <= PRIVATE.get(str(path.relative_to(ROOT / "tmcnet")), set())


PUBLIC = {"_replace", "_fields", "_asdict", "_exit"}
"""Public methods of named tuples, and `os._exit`, whose names begin with an underscore."""


def _is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_readable(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 500, "split it: more than one idea in a file"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno <= 60, f"{node.name} is too long for one function"


def test_the_design_names_what_exists() -> None:
    named = re.findall(r"((?:`[\w.]+`(?:, | and )?)+) in `(tmcnet/[\w/]+\.py)`", (ROOT / "DESIGN.md").read_text())
    assert len(named) > 12
    for names, path in named:
        tree = ast.parse((ROOT / path).read_text())
        defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assert {part for name in re.findall(r"`([\w.]+)`", names) for part in name.split(".")} <= defined, path


def test_the_front_door_stays_light() -> None:
    """The workflow reads the sources while it is parsed: no raster library, no torch."""
    code = """if True:
        import pathlib, sys
        from tmcnet.config import SourceConfig
        from tmcnet.raster.inventory.sources import find_entries
        find_entries(SourceConfig(), pathlib.Path())
        print({"torch", "rasterio", "scipy", "mlflow"} & set(sys.modules))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"


_PLOTS = {"matplotlib", "sklearn", "mlflow", "skimage"}
NOT_IMPORTED = {
    "list_maps": _PLOTS | {"torch", "pandas", "scipy.stats", "scipy.optimize"},
    "write_model": _PLOTS | {"torch", "pandas", "scipy.stats", "scipy.optimize"},
    "take_inventory": _PLOTS | {"torch", "pandas", "scipy.stats"},
    "inspect_scene": _PLOTS | {"torch", "pandas", "scipy.stats"},
    "tile_scene": {"torch", "pandas", "scipy.stats", "matplotlib"},
    "align_scene": {"torch", "pandas", "scipy.stats"},
    "make_splits": _PLOTS | {"torch", "scipy.stats"},
    "verify_splits": _PLOTS | {"torch", "scipy.stats"},
    "normalise": _PLOTS | {"torch", "pandas", "scipy.stats"},
    "summarise": _PLOTS | {"torch", "pandas", "scipy.stats"},
    "pretrain_method": _PLOTS | {"pandas", "scipy.stats"},
    "finetune_run": _PLOTS | {"pandas", "scipy.stats"},
    "evaluate_run": _PLOTS | {"pandas", "scipy.stats"},
    "map_scene": _PLOTS | {"pandas", "scipy.stats"},
    "map_tiles": _PLOTS | {"pandas", "scipy.stats"},
    "write_report": {"torch", "mlflow"},
    "track": {"torch"},
}
"""Libraries that a job does not import before it needs them: they take longer to import than short jobs run."""


@pytest.mark.parametrize("script", NOT_IMPORTED)
def test_jobs_import_no_library_that_they_do_not_need(script: str) -> None:
    tree = ast.parse((ROOT / "workflow" / "scripts" / f"{script}.py").read_text())
    imports = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    code = "\n".join(["import sys", *imports, f"print({NOT_IMPORTED[script]} & set(sys.modules))"])
    path = {"PYTHONPATH": f"{ROOT}:{ROOT / 'workflow' / 'scripts'}"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=os.environ | path)
    assert done.stdout.strip() == "set()"


def test_no_file_names_a_place_on_one_machine() -> None:
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split(
        "\n"
    )
    pattern = re.compile(r"/(?:work|farm|root|home/\w+)/|/opt/(?:wheels|pypi)")
    found = [
        name
        for name in listed
        if name
        and (ROOT / name).suffix in {".py", ".smk", ".yaml", ".md", ".sh", ".toml", ""}
        and (ROOT / name).is_file()
        and name != "tests/test_walls.py"
        and pattern.search((ROOT / name).read_text(errors="replace"))
    ]
    assert not found
