"""What docs/method.md cites exists: modules, classes, functions and config keys."""

import re
from pathlib import Path

import pytest

from tmcnet.config.pretraining import MethodConfig

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "method.md").read_text()


def citations():
    """Folder and name of everything that a line `Code: ...` cites."""
    paragraphs = re.findall(r"^Code: (.+?)\n\n", TEXT, re.MULTILINE | re.DOTALL)
    for folder, names in re.findall(r"`(tmcnet/\w+)/`: ((?:`\w+`,?\s*)+)", "\n".join(paragraphs)):
        yield from ((folder, name) for name in re.findall(r"\w+", names))


@pytest.mark.parametrize(("folder", "name"), list(citations()))
def test_cited_code_exists(folder, name):
    defined = re.compile(rf"^(class|def) {name}\b", re.MULTILINE)
    assert any(defined.search(path.read_text()) for path in (ROOT / folder).rglob("*.py"))


def test_there_are_citations_of_every_room():
    assert {folder for folder, _ in citations()} == {
        f"tmcnet/{room}" for room in ("raster", "dataset", "loss", "model", "train", "evaluate")
    }


def test_keys_of_the_loss_exist():
    section = TEXT.partition("| what | key | `reference` | `corrected` |")[2].partition("\n\n")[0]
    keys = re.findall(r"^\| [^|]+ \| `(\w+)", section, re.MULTILINE)
    assert len(keys) == 9
    assert set(keys) <= set(MethodConfig.model_fields)
