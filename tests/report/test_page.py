import base64
import hashlib
import re
from html.parser import HTMLParser

from tests.report.conftest import build_page
from tmcnet.report.sections_maps import MAX_EXAMPLES

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Checker(HTMLParser):
    """Collect tags, ids, references and text; fail on tags that do not nest."""

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
        for key in ("href", "aria-labelledby", "for"):
            if key in attrs and not attrs[key].startswith("http://127.0.0.1"):
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


def test_the_page_requests_nothing_and_runs_only_its_own_script(full):
    page = check(full.page)
    addresses = [a.get(k, "") for tag, a in page.tags for k in ("src", "href", "data", "action") if k in a]
    tracked = [a["href"] for tag, a in page.tags if tag == "a" and a["href"].startswith("http")]
    assert all(a.startswith(("data:image/", "#")) for a in addresses if a not in tracked)
    assert not {"link", "iframe", "object", "base", "form"} & {tag for tag, _ in page.tags}
    assert not [k for _, a in page.tags for k in a if k.startswith("on")]
    assert "@import" not in full.page and "url(http" not in full.page
    policies = [a for tag, a in page.tags if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert policies[0]["content"].startswith("default-src 'none'")
    (script,) = re.findall(r"<script>(.*?)</script>", full.page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policies[0]["content"]
    assert [a for tag, a in page.tags if tag == "script"] == [{}]


def test_recorded_runs_are_linked(full):
    page = check(full.page)
    links = [a["href"] for tag, a in page.tags if tag == "a" and a["href"].startswith("http")]
    address = "http://127.0.0.1:5000/#/experiments/1"
    assert links[0] == f"{address}?searchFilter=x"
    assert len(links) == 1 + len(full.config.pretrain.methods) + len(full.config.runs)
    assert all(link.startswith(f"{address}/runs/") for link in links[1:])


def test_an_address_that_is_no_web_page_is_no_link(small):
    root, config = small
    tracking = (root / "tracking.csv").read_text().replace("http://127.0.0.1", "javascript:alert(1)//")
    (root / "tracking.csv").write_text(tracking)
    (root / "tracking.json").write_text('{"links": [{"title": "Compare", "url": "javascript:alert(1)"}]}')
    assert "javascript:" not in build_page(root, config)


def test_names_stay_text_in_html_and_in_charts(full):
    assert full.page.count("<script") == 1
    assert "<b>abc</b>" not in full.page
    text = "".join(check(full.page).text)
    assert text.count("<script>alert(1)</script>") > 10
    assert "<b>abc</b>" in text
    chart = (full.root / "report" / "figures" / "class_iou.svg").read_text()
    assert "&lt;script&gt;alert(1)" in chart


def test_readers_who_do_not_see_can_navigate(full):
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
    assert f"<h1>{full.config.report.title}</h1>" in full.page
    skip = next(a for tag, a in page.tags if tag == "a")
    assert skip["href"] == "#main"
    assert dict(page.tags)["html"]["lang"] == "en"


def test_everything_is_there_within_15_megabytes(full):
    assert len(full.page.encode()) < 15e6
    assert "Missing:" not in full.page
    folder = full.root / "report"
    figures = {p.stem for p in (folder / "figures").glob("*.svg")}
    metrics = {f"label_efficiency_{metric}" for metric in ("oa", "kappa", "miou", "mf1", "boundary_f1", "ece")}
    others = {"headline", "class_iou", "reliability", "splits_map", "pretraining", "footprints"}
    assert figures >= metrics | others
    assert {p.stem for p in (folder / "tables").glob("*.csv")} >= {
        "inventory",
        "scores",
        "comparisons",
        "time",
        "tracking",
        "versions",
        "class_scores",
        "ablations_networks",
    }
    assert list((folder / "figures").glob("tile_*_error.png"))
    head, overviews, alignments = 3, 2 * (3 + 4 + 2), 2
    assert full.page.count("data:image/") == head + (MAX_EXAMPLES + 4) * 6 + overviews + alignments


def test_the_same_results_make_the_same_page(small):
    root, config = small
    assert build_page(root, config) == build_page(root, config)
