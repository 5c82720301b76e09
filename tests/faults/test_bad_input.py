"""Every kind of bad input is answered by one sentence with file or key, what is wrong, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import acts, raster_rows, text_rows, weight_rows
from tmcnet.errors import InputError

MAX_CHARS = 2000
"""Length of a message that can still be read."""
Act = Callable[[Path], None]


def rows() -> list[tuple[str, Act, str]]:
    """Name, what is done in an empty folder, and how the message begins."""
    lines = Path(__file__).with_name("bad_config.txt").read_text(encoding="utf-8").splitlines()
    found: list[tuple[str, Act, str]] = []
    for line in lines:
        text, sentence = line.split(" => ")
        found.append((f"config {text}", lambda folder, text=text: acts.config(folder, text), sentence))
    tables = {
        "config file": (acts.config, text_rows.CONFIG_FILES),
        "sheet": (acts.sheet, text_rows.SHEETS),
        "class_dict": (acts.class_dict, text_rows.CLASS_DICTS),
        "seed list": (acts.seed_list, text_rows.SEED_LISTS),
    }
    for kind, (act, table) in tables.items():
        for name, content, sentence in table:
            call = lambda folder, act=act, content=content: act(folder, content)  # noqa: E731
            found.append((f"{kind}: {name}", call, sentence))
    for file, name, content, sentence in text_rows.RECORDS:
        call = lambda folder, file=file, content=content: acts.record(folder, file, content)  # noqa: E731
        found.append((f"{file}: {name}", call, sentence))
    return [*found, *raster_rows.ROWS, *weight_rows.ROWS]


@pytest.mark.parametrize(("name", "act", "sentence"), [pytest.param(*row, id=row[0]) for row in rows()])
def test_bad_input_is_answered_by_one_sentence(
    name: str, act: Act, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        act(tmp_path)
    messages = [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems]
    assert any(message.startswith(sentence) for message in messages), messages
    assert all(problem.where and problem.what and problem.remedy for problem in caught.value.problems)
    assert len(messages[0]) < MAX_CHARS
    assert "\n" not in messages[0]


def test_the_table_is_large() -> None:
    assert len(rows()) >= 150
