import re
import xml.etree.ElementTree as ET

from tmcnet.report.charts import add_legend, canvas, plain, render

SVG = "{http://www.w3.org/2000/svg}"


def draw(name, label="x"):
    with canvas(4, 3) as figure:
        ax = figure.axes[0]
        ax.plot([0, 1], [0, 1], marker="o", label=plain(label))
        ax.set_title(label)
        figure.legend()
        return render(figure, name)


def test_charts_do_not_share_ids_and_find_their_own():
    ids = []
    for name in ("one", "two"):
        svg = draw(name)
        own = set(re.findall(r'\bid="([^"]+)"', svg))
        used = set(re.findall(r"url\(#([^)]+)\)", svg)) | set(re.findall(r'href="#([^"]+)"', svg))
        assert used and used == own
        ids.append(own)
    assert not ids[0] & ids[1]


def test_no_date_no_metadata_no_style_sheet():
    svg = draw("one")
    assert "<metadata" not in svg and "<style" not in svg and "<?xml" not in svg and "DOCTYPE" not in svg
    assert svg == draw("one")


def test_labels_stay_text():
    svg = draw("one", "_<i>$x_y$ & \\frac</i>")
    assert svg.count("_&lt;i&gt;$x_y$ &amp; \\frac&lt;/i&gt;") == 2


def test_readings_are_at_the_marks():
    points = [(0.0, 3.0), (0.5, 1.0), (1.0, 2.0)]
    with canvas(4, 3) as figure:
        ax = figure.axes[0]
        ax.plot(*zip(*points, strict=True), marker="o", linestyle="none")
        for x, y in points:
            figure.read(ax, x, y, f"<{x}> & {y}")
        svg = render(figure, "one")
    root = ET.fromstring(svg)
    spots = root.findall(f".//{SVG}circle")
    drawn = {(float(e.get("x")), float(e.get("y"))) for e in root.iter(f"{SVG}use") if float(e.get("y")) < 190}
    for spot in spots:
        x, y = float(spot.get("cx")), float(spot.get("cy"))
        assert min(abs(x - a) + abs(y - b) for a, b in drawn) < 0.2
    assert [spot.find(f"{SVG}title").text for spot in spots] == [f"<{x}> & {y}" for x, y in points]


def test_a_legend_of_long_names_stays_within_its_figure():
    names = ["MSSNet, random start", "Mean of pixel-wise gradient boosting, pixel-wise logistic regression, " * 3]
    with canvas(7.6, 5) as figure:
        for name in names:
            figure.axes[0].plot([0, 1], [0, 1], label=name)
        add_legend(figure, 2)
        figure.draw_without_rendering()
        box = figure.legends[0].get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.get_figwidth() * figure.dpi
