"""The page in a real browser: behaviour, requests, accessibility."""

import re
from importlib.resources import files
from importlib.util import find_spec

import pytest

from tests.report.chromium import PROGRAM, browser

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium on this machine")
STAGE = "document.querySelector('.stage')"
SHOWN = "[...document.querySelectorAll('.panel')].map((panel) => panel.offsetHeight > 0)"
TIP = "document.querySelector('#figure-headline .tip')"
SPLIT = f"Number.parseFloat({STAGE}.style.getPropertyValue('--split'))"
MOVE = f"{STAGE}.style.getPropertyValue('--move')"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture
def page(chromium, full):
    chromium.show(1100, 900)
    chromium.open(full.root / "report.html")
    return chromium


def middle(page, selector):
    """Middle of an element in the window, once it is scrolled into view."""
    box = page.ask(
        f"(() => {{ const e = document.querySelector({selector!r}); e.scrollIntoView({{block: 'center', "
        "behavior: 'instant'}); const b = e.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]; })()"
    )
    return box[0] + box[2] / 2, box[1] + box[3] / 2


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 500, 1100])
def test_there_are_no_errors_and_no_requests(page, full, width, dark):
    page.show(width, 800, dark=dark)
    page.open(full.root / "report.html")
    assert page.ask("document.querySelectorAll('.viewer').length") >= 1
    assert page.messages == []
    assert page.requested == [(full.root / "report.html").as_uri()]
    assert page.ask("document.documentElement.scrollWidth <= window.innerWidth"), "scrolls sideways as a whole"
    assert page.ask("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")


def test_a_class_called_script_is_no_script(page):
    assert page.ask("document.scripts.length") == 1
    assert page.ask("[...document.querySelectorAll('.legend li')].some((li) => li.textContent.includes('<script>'))")


def test_one_metric_is_shown_at_a_time_by_mouse_and_by_keyboard(page):
    shown = page.ask(SHOWN)
    assert shown == [False, False, True, False, False, False]
    page.drag(*[middle(page, ".switch label:nth-of-type(1)")] * 2)
    assert page.ask(SHOWN) == [True, False, False, False, False, False]
    page.press("ArrowRight")
    assert page.ask(SHOWN) == [False, True, False, False, False, False]


def test_the_divider_is_dragged_and_the_left_picture_cut_there(page):
    x, y = middle(page, ".stage")
    assert page.ask(SPLIT) == 50
    page.drag((x, y), (x + 100, y))
    split = page.ask(SPLIT)
    width = page.ask(f"{STAGE}.getBoundingClientRect().width")
    assert split == pytest.approx(50 + 100 * 100 / width, abs=1)
    cut = page.ask("getComputedStyle(document.querySelector('.layer.left')).clipPath")
    assert re.fullmatch(r"inset\(0px ([\d.]+)% 0px 0px\)", cut)[1] == f"{100 - split:g}"
    at = page.ask(f"document.querySelector('.divider').getBoundingClientRect().x - {STAGE}.getBoundingClientRect().x")
    assert at == pytest.approx(width * split / 100, abs=4)


def test_keys_swipe_zoom_and_move(page):
    page.ask(f"{STAGE}.focus()")
    page.press("ArrowLeft")
    assert page.ask(SPLIT) == 45
    assert page.ask("document.querySelector('.controls input').value") == "45"
    page.press("+")
    assert "scale(2)" in page.ask(MOVE) and page.ask("document.querySelector('output').textContent") == "2\u00d7"
    before = page.ask(MOVE)
    page.press("ArrowRight")
    assert page.ask(MOVE) != before and page.ask(SPLIT) == 45
    x, y = middle(page, ".stage")
    before = page.ask(MOVE)
    page.drag((x + 150, y), (x + 120, y - 10))
    assert page.ask(MOVE) != before and page.ask(SPLIT) == 45
    page.press("0")
    assert page.ask(MOVE) == "translate(0px, 0px) scale(1)"
    for _ in range(9):
        page.press("+")
    assert "scale(16)" in page.ask(MOVE)


def test_any_two_pictures_can_be_laid_over_each_other(page):
    titles = page.ask("[...document.querySelector('.controls select').options].map((option) => option.text)")
    assert titles[:3] == ["Optical", "SAR", "Label"]
    assert {"Error, first map", "Confidence, first map"} < set(titles)
    choose = "document.querySelectorAll('.controls select')[1]"
    page.ask(f"{choose}.value = 1; {choose}.dispatchEvent(new Event('change'))")
    alt = "document.querySelector('.layer.%s img').alt"
    assert page.ask(alt % "right").startswith("SAR image")
    assert page.ask(alt % "left").startswith("Optical image")


def test_every_other_gallery_opens_on_demand(page):
    built = page.ask("document.querySelectorAll('.viewer').length")
    buttons = page.ask("document.querySelectorAll('button.toggle').length")
    assert buttons == page.ask("document.querySelectorAll('figure.compare').length") > built == 1
    page.ask("document.querySelectorAll('button.toggle')[2].focus()")
    page.press("Enter")
    assert page.ask("document.querySelectorAll('.viewer').length") == 2
    assert page.ask("document.activeElement.getAttribute('aria-expanded')") == "true"
    page.press("Enter")
    assert page.ask("document.activeElement.getAttribute('aria-expanded')") == "false"
    assert page.ask("document.querySelectorAll('.viewer')[1].offsetHeight") == 0


@pytest.mark.parametrize("width", [500, 1100])
def test_the_first_map_is_at_the_top_and_a_click_opens_its_viewer(page, width):
    page.show(width, 900)
    image = "document.querySelector('#result .picture:nth-child(2) img')"
    assert page.ask(f"{image}.getBoundingClientRect().bottom") < 1500
    assert "water" in page.ask(f"{image}.alt")
    page.drag(*[middle(page, "#result .picture img")] * 2)
    assert page.ask("document.querySelector('#result .viewer').offsetHeight > 0")
    assert page.ask("document.querySelector('#result .stage .scale-bar').textContent") == "500\u00a0m"


def test_scale_bars_have_the_length_that_they_name(page):
    frame = "document.querySelector('#maps .frame')"
    assert page.ask(f"{frame}.querySelector('.scale-bar').offsetWidth / {frame}.offsetWidth") == pytest.approx(
        500 / 2560, rel=0.03
    )
    assert page.ask("document.querySelector('#maps .picture .scale-bar').textContent") == "500\u00a0m"
    assert page.ask("document.querySelector('#maps .picture .north').textContent.trim()") == "N"


def test_at_500_pixels_every_chart_is_whole(page):
    page.show(500, 900)
    cut = "[...document.querySelectorAll('figure > .card')].filter((c) => c.scrollWidth > c.clientWidth + 1).length"
    assert page.ask(cut) == 0


def test_alignment_pictures_are_small_until_opened(page):
    width = "document.querySelector('.thumbnail img').offsetWidth"
    small = page.ask(width)
    page.ask("document.querySelector('.thumbnail summary').click()")
    assert page.ask(width) > 2 * small


def headline_spots(page):
    """Positions of the marks of the first chart in the window."""
    page.ask("document.querySelector('#figure-headline').scrollIntoView()")
    spots = "document.querySelectorAll('#figure-headline .readings circle')"
    box = "(c) => { const b = c.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; }"
    return page.ask(f"[...{spots}].map({box})")


def test_a_mark_shows_its_value_on_hover(page, full):
    places = headline_spots(page)
    assert page.ask(f"getComputedStyle({TIP}).visibility") == "hidden"
    shown = set()
    for x, y in places:
        page.point(x + 2, y)
        shown.add(page.ask(f"{TIP}.textContent"))
        assert page.ask(f"getComputedStyle({TIP}).visibility") == "visible"
    best = full.page.split("figure-headline")[1].split("</figure>")[0]
    assert len(shown) == len(places) and all(f"<title>{text}</title>" in best for text in shown)
    assert any(re.search(r": mIoU 0\.\d{3} \(0\.\d{3} to 0\.\d{3}\), 2 runs$", text) for text in shown)
    page.point(5, 5)
    assert page.ask(f"{TIP}.textContent") == ""


def test_arrow_keys_step_through_the_values_of_a_chart(page):
    card = "document.querySelector('#figure-headline .card')"
    count = len(headline_spots(page))
    assert page.ask(f"{card}.getAttribute('aria-label')") == f"Chart with {count} values, read by arrow keys"
    page.ask(f"{card}.focus()")
    shown = []
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "End", "ArrowDown", "Home"):
        page.press(key)
        shown.append(page.ask(f"{TIP}.textContent"))
        assert page.ask("document.querySelectorAll('.read').length") == 1
    assert shown[0] == shown[2] == shown[5] != shown[1] and shown[3] == shown[4] not in shown[:2]
    assert page.ask(f"{TIP}.getAttribute('role')") == "status"
    page.press("Escape")
    assert page.ask(f"{TIP}.textContent") == "" and page.ask("document.querySelectorAll('.read').length") == 0


@pytest.mark.parametrize("width", [360, 1100])
def test_values_are_shown_within_the_window(page, width):
    page.show(width, 800)
    page.ask("document.querySelector('#figure-headline .card').focus()")
    for key in ("Home", "End"):
        page.press(key)
        left, right = page.ask(f"(() => {{ const b = {TIP}.getBoundingClientRect(); return [b.left, b.right]; }})()")
        assert left >= 0 and right <= width
        assert page.ask("document.documentElement.scrollWidth <= window.innerWidth")


def test_every_chart_shows_its_values(page):
    labels = page.ask("[...document.querySelectorAll('figure > .card')].map((c) => c.getAttribute('aria-label'))")
    assert len(labels) > 10 and all("read by arrow keys" in label for label in labels)


def test_without_scripts_pictures_and_the_switch_are_there(page, full):
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.open(full.root / "report.html")
        assert page.ask("document.querySelectorAll('.viewer, button').length") == 0
        assert page.ask("[...document.querySelectorAll('.picture img')].every((i) => i.offsetHeight > 0)")
        page.drag(*[middle(page, ".switch label:nth-of-type(2)")] * 2)
        assert page.ask(SHOWN) == [False, True, False, False, False, False]
        spots = "document.querySelectorAll('.readings circle')"
        assert page.ask(f"{spots}.length > 50 && [...{spots}].every((spot) => spot.querySelector('title'))")
    finally:
        page.call("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.parametrize("width", [642, 688, 1100])
def test_on_paper_nothing_is_cut_off(page, width):
    page.show(width, 1000, media="print")
    wide = "[...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > e.clientWidth + 1)"
    assert page.ask(f"{wide}.map((e) => e.textContent.trim().slice(0, 60))") == []
    assert page.ask("document.documentElement.scrollWidth <= window.innerWidth")


def test_on_paper_every_metric_and_every_picture_is_shown(page):
    page.show(800, 1100, media="print")
    assert all(page.ask(SHOWN))
    assert page.ask("[...document.querySelectorAll('.viewer, .contents')].every((e) => e.offsetHeight === 0)")
    assert page.ask("[...document.querySelectorAll('.picture img')].every((i) => i.offsetHeight > 0)")


def test_the_keyboard_reaches_the_content_first(page):
    page.press("Tab")
    assert page.ask("document.activeElement.textContent") == "Skip to the content"
    page.press("Enter")
    assert page.ask("document.activeElement.id") == "main"
    page.press("Tab")
    assert page.ask("document.activeElement.closest('main') !== null")


@pytest.mark.skipif(find_spec("axe_core_python") is None, reason="axe-core-python is not installed")
@pytest.mark.parametrize(("width", "dark"), [(1100, False), (1100, True), (360, False)])
def test_axe_finds_nothing_serious(page, width, dark):
    page.show(width, 900, dark=dark)
    page.ask("document.querySelectorAll('button.toggle')[2].click()")
    page.ask("document.querySelector('#figure-headline .card').focus()")
    page.press("ArrowRight")
    page.ask(files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    # charts are pictures with their own text; nobody visits their thousands of parts
    options = "{exclude: ['.chart svg']}, {resultTypes: ['violations']}"
    violations = "(r) => r.violations.map((v) => [v.impact, v.id, v.nodes.map((n) => n.html)])"
    found = page.ask(f"axe.run({options}).then({violations})")
    assert [one for one in found if one[0] in ("serious", "critical")] == []
