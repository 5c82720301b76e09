import re
from html.parser import HTMLParser

from conftest import build_page

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Checker(HTMLParser):
    """Collects what the tests ask about, and fails on tags that do not nest."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.ids, self.references, self.text = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.record(tag, dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.record(tag, dict(attrs))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else at {self.getpos()}"

    def handle_data(self, data):
        self.text.append(data)

    def record(self, tag, attrs):
        assert len(attrs) == len(set(attrs))
        self.tags.append((tag, attrs))
        if "id" in attrs:
            self.ids.append(attrs["id"])
        for value in attrs.values():
            self.references += re.findall(r"url\(#([^)]+)\)", value or "")
        for key in ("href", "aria-labelledby"):
            if key in attrs:
                self.references.append(attrs[key].removeprefix("#"))


def check(page):
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker


def test_tags_nest_ids_are_unique_and_references_resolve(full):
    page = check(full.page)
    assert len(page.ids) == len(set(page.ids))
    assert set(page.references) <= set(page.ids)
    assert len(page.references) > 50


def test_the_page_asks_for_nothing_from_elsewhere_and_runs_nothing(full):
    page = check(full.page)
    addresses = [a.get(k, "") for _, a in page.tags for k in ("src", "href", "data", "action") if k in a]
    assert all(a.startswith(("data:image/", "#")) for a in addresses)
    assert not {"script", "link", "iframe", "object", "base", "form"} & {tag for tag, _ in page.tags}
    assert not [k for _, a in page.tags for k in a if k.startswith("on")]
    assert "@import" not in full.page and "url(http" not in full.page
    policies = [a for tag, a in page.tags if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert policies[0]["content"].startswith("default-src 'none'")


def test_names_stay_text_in_html_and_in_charts(full):
    assert "<script" not in full.page
    assert "<b>abc</b>" not in full.page
    text = "".join(check(full.page).text)
    assert text.count("<script>alert(1)</script>") > 10
    assert "<b>abc</b>" in text
    chart = (full.root / "report" / "figures" / "class_iou.svg").read_text()
    assert "&lt;script&gt;alert(1)" in chart


def test_readers_who_do_not_see_find_their_way(full):
    page = check(full.page)
    names = [tag for tag, _ in page.tags]
    for landmark in ("header", "nav", "main", "footer"):
        assert names.count(landmark) == 1
    assert all(a.get("alt", "").strip() for tag, a in page.tags if tag == "img")
    assert all(a.get("scope") in ("row", "col") for tag, a in page.tags if tag == "th")
    assert names.count("caption") == names.count("table") > 8
    charts = [a for tag, a in page.tags if a.get("class") == "chart"]
    assert charts and all(a["role"] == "img" and len(a["aria-label"]) > 20 for a in charts)
    assert next(tag for tag in names if tag in ("h1", "h2", "h3")) == "h1" and names.count("h1") == 1
    skip = next(a for tag, a in page.tags if tag == "a")
    assert skip["href"] == "#main"
    assert dict(page.tags)["html"]["lang"] == "en"


def test_everything_is_there_within_15_megabytes(full):
    assert len(full.page.encode()) < 15e6
    assert "Missing:" not in full.page
    folder = full.root / "report"
    figures = {p.stem for p in (folder / "figures").glob("*.svg")}
    assert figures >= {"headline", "label_efficiency", "class_iou", "reliability", "splits_map", "pretraining"}
    assert {p.stem for p in (folder / "tables").glob("*.csv")} >= {
        "inventory",
        "scores",
        "comparisons",
        "time",
        "tracking",
    }
    assert list((folder / "figures").glob("tile_*_error.png"))
    assert full.page.count("data:image/") == 3 * 6 + 2 * 7 + 2


def test_the_same_results_make_the_same_page(small):
    root, config = small
    assert build_page(root, config) == build_page(root, config)
