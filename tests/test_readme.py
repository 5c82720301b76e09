"""The commands of README.md and docs/settings.md run, and the names in these and docs/published-code.md exist.

Commands in code blocks are run: `snakemake` and `make` as dry runs, in a folder with only the files that the README
describes. Commands that cannot run here are in `NOT_RUN` with the reason; no other may be left out.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel, RootModel

from tmcnet.config import Config

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "docs" / "settings.md", ROOT / "docs" / "published-code.md"]
README = "\n".join(path.read_text() for path in DOCUMENTS)
PROGRAMS = ("make", "snakemake", "python", "dvc", "git", "pip", "mlflow")
DVC = "needs a DVC project with a remote; tests/workflow/test_dvc.py goes through these steps"
CLUSTER = "needs Slurm; tests/cluster runs the workflow on it"
SLURM = "snakemake --profile profiles/slurm --configfile mine.yaml --config data_root=/my/data"
NOT_RUN = {
    "snakemake -s /path/to/clone/Snakefile --cores 2 --configfile mine.yaml": (
        "runs in a folder where `tmcnet init` has written the config; tests/workflow/test_maps.py has such a folder"
    ),
    "pip install -c constraints.txt -e '.[cluster]'": CLUSTER,
    f"{SLURM} -- inventory alignment": CLUSTER,
    SLURM: CLUSTER,
    "dvc add data": DVC,
    "git add data.dvc": DVC,
    'git commit -m "Data, first version"': DVC,
    "dvc repro": DVC,
    "git add dvc.lock": DVC,
    'git commit -m "Results"': DVC,
    "dvc push": DVC,
    "dvc remote modify store url s3://bucket/path": DVC,
}
PLACEHOLDERS = {"/path/to/ombria": "ombria", "/my/data": "mydata"}
"""The reader's folders, and the folders that replace them here."""
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    """Contents of the code blocks of one language, without their indent."""
    found = []
    for indent, name, content in _FENCE.findall(README):
        if name == language:
            found.append("\n".join(line.removeprefix(indent) for line in content.splitlines()) + "\n")
    return found


def commands() -> list[str]:
    """All commands in the code blocks, in order and without duplicates."""
    lines = [line for block in blocks("") for line in block.splitlines()]
    parts = [part.strip() for line in lines for part in re.split(r"\s#\s|\s#$", line)[0].split("&&")]
    return list(dict.fromkeys(part for part in parts if part.split(" ")[0] in PROGRAMS))


def inline() -> list[str]:
    """All inline code."""
    return list(dict.fromkeys(re.findall(r"`([^`\n]+)`", _FENCE.sub("", README))))


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        shlex.split(command), cwd=folder, capture_output=True, text=True, env={**os.environ, "PATH": path}
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a fresh clone, with empty files in place of those in the examples."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("Snakefile", "workflow", "config", "profiles", "Makefile", "tools"):
        (folder / name).symlink_to(ROOT / name)
    for part in ("train", "test"):
        for number in range(2):
            for file in ("OmbriaS2/{}/AFTER/S2_after_", "OmbriaS1/{}/AFTER/S1_after_", "OmbriaS1/{}/MASK/S1_mask_"):
                touch(folder / "ombria" / f"{file.format(part)}{number:04d}.png")
    (sheet,) = (block for block in blocks("") if block.startswith("scene,"))
    for line in sheet.splitlines()[1:]:
        for file in filter(None, re.split("[,;]", line)[1:]):
            if "." in file:
                touch(folder / "mydata" / file)
    (folder / "mine.csv").write_text(sheet)
    (mine,) = (block for block in blocks("yaml") if "name: mine" in block)
    (folder / "mine.yaml").write_text(mine)
    return folder


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_the_readme_is_short() -> None:
    assert len(DOCUMENTS[0].read_text().splitlines()) <= 200


def test_what_is_not_run_is_still_in_the_readme() -> None:
    assert not set(NOT_RUN) - set(commands())


@pytest.mark.parametrize("command", [c for c in commands() if c not in NOT_RUN])
def test_a_command_runs(command: str, place: Path) -> None:
    program, *rest = shlex.split(command)
    if program == "snakemake":
        adapted = re.sub("|".join(PLACEHOLDERS), lambda m: str(place / PLACEHOLDERS[m[0]]), command)
        done = run(adapted.replace("snakemake ", "snakemake --dry-run --quiet rules ", 1), place)
    elif program == "make":
        done = run(command.replace("make ", "make --dry-run ", 1), place)
    elif rest[:1] == ["-m"]:
        done = run(f"python -m {rest[1]} --help", ROOT)
    else:
        pytest.fail(f"`{command}`: add it to NOT_RUN with the reason, or extend this test")
    assert done.returncode == 0, done.stdout + done.stderr


def test_commands_within_the_text_name_what_exists() -> None:
    rules = set(re.findall(r"^ *rule (\w+):", "".join(p.read_text() for p in rule_files()), re.MULTILINE))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    seen = 0
    for command in inline():
        words = command.split()
        if words[0] not in PROGRAMS or len(words) == 1 or command.startswith("make.") or words[0] in ("git", "pip"):
            continue
        seen += 1
        if words[0] == "make":
            assert words[1] in targets, command
        elif words[0] == "snakemake":
            named = [w for w in words[1:] if re.fullmatch(r"[a-z_]{3,}", w) and w != "all"]
            assert set(named) <= rules, command
        elif words[:2] == ["python", "-m"]:
            assert find_spec(words[2]), command
        else:
            assert words[0] == "dvc", f"{command}: extend this test"
            assert words[1] in ("pull", "push", "add", "repro", "metrics", "params", "checkout"), command
    assert seen >= 5


def rule_files() -> list[Path]:
    return [ROOT / "Snakefile", *(ROOT / "workflow" / "rules").glob("*.smk")]


def test_targets_called_by_name_are_rules() -> None:
    (text,) = re.findall(r"Targets by name: (.*?)\. ", README, re.DOTALL)
    rules = set(re.findall(r"^ *rule (\w+):", "".join(p.read_text() for p in rule_files()), re.MULTILINE))
    named = re.findall(r"`(\w+)`", text)
    assert len(named) > 8
    assert set(named) <= rules


def test_files_that_are_linked_or_named_exist() -> None:
    found = [(path, link) for path in DOCUMENTS for link in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text())]
    links = [str((path.parent / link).resolve()) for path, link in found if "://" not in link]
    recipes = [f"config/recipes/{code}" for code in inline() if re.fullmatch(r"[\w-]+\.yaml", code)]
    paths = [
        code for code in inline() if re.fullmatch(r"(config|docs|tests|tmcnet|workflow|benchmarks)/[\w./-]+", code)
    ]
    made = {"config/recipes/mine.yaml"}
    assert len(links) > 3 and len(recipes) > 5
    missing = [name for name in {*links, *recipes, *paths} - made if not (ROOT / name).exists()]
    assert not missing


def keys() -> Iterator[tuple[str, str]]:
    """Config keys in the text, dotted or as YAML, each with its piece of code."""
    for code in inline():
        dotted = re.match(r"([a-z_]+(?:\[\])?(?:\.(?:[a-z_]+(?:\[\])?|<\w+>))+)(?::|$| )", code)
        if dotted and dotted[1].split(".")[0] in Config.model_fields and not is_file(dotted[1]):
            yield dotted[1], code
        elif re.match(r"[a-z_.]+: [{\[]", code):
            yield from ((key, code) for key in flattened(yaml.safe_load(code)))
    for block in blocks("yaml"):
        yield from ((key, block) for key in flattened(yaml.safe_load(block)))


def is_file(name: str) -> bool:
    return name.rsplit(".", 1)[-1] in {"onnx", "html", "csv", "json", "tif", "yaml", "dvc"}


def flattened(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping) and "ensemble" not in value:  # which names a network
            yield from flattened(value, f"{prefix}{key}.")


def is_key(name: str) -> bool:
    """Whether a dotted name is a config key; any name is valid in a mapping with free names, such as methods."""
    at: Any = Config
    for part in name.replace("[]", "").split("."):
        models = [m for m in in_type(at) if isinstance(m, type) and issubclass(m, BaseModel)]
        roots = [m.model_fields["root"].annotation for m in models if issubclass(m, RootModel)]
        fields = [m.model_fields[part].annotation for m in models if part in m.model_fields]
        if fields:
            at = fields[0]
        elif free := [get_args(m)[1] for m in [*in_type(at), *roots] if getattr(m, "__origin__", None) is dict]:
            at = free[0]
        else:
            return False
    return True


def in_type(annotation: Any) -> Iterator[Any]:
    """A type and its parts: members of unions, items of lists."""
    yield annotation
    if getattr(annotation, "__origin__", None) is not dict:
        for inner in get_args(annotation):
            yield from in_type(inner)


def test_keys_that_are_named_exist() -> None:
    named = list(keys())
    assert len(named) > 30
    assert not [f"{key} in `{code}`" for key, code in named if not is_key(key)]
    assert not is_key("splits.no_such_key") and not is_key("no_such_section.fractions")
