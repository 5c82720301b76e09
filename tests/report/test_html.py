"""The page against a parser that follows the HTML standard to the letter."""

import pytest

html5lib = pytest.importorskip("html5lib", reason="html5lib is not installed")


def test_the_page_is_valid_html(full):
    parser = html5lib.HTMLParser(strict=False)
    parser.parse(full.page)
    errors = [f"line {place[0]}: {code} {details}" for place, code, details in parser.errors]
    assert errors == []
