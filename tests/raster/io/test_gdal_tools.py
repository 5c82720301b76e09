import pytest

from tmcnet.errors import InputError
from tmcnet.raster.io import blocks, gdal_tools
from tmcnet.raster.io.gdal_tools import require_tools, run_tool


def test_a_missing_tool_is_answered_with_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"gdalwarp, gdal_translate: not found.*apt-get install gdal-bin"):
        require_tools()
    with pytest.raises(InputError, match="apt-get install gdal-bin"):
        run_tool("gdalwarp", "--version")


def test_gdals_own_words_reach_the_user(tmp_path):
    with pytest.raises(InputError, match=r"gdalwarp .*gone\.tif.*GDAL says: .*No such file"):
        run_tool("gdalwarp", tmp_path / "gone.tif", tmp_path / "out.tif")


def test_tools_do_not_inherit_the_tables_of_rasterio(monkeypatch):
    seen = {}
    real = gdal_tools.subprocess.Popen

    def spy(*arguments, **options):
        seen.update(options["env"])
        return real(*arguments, **options)

    monkeypatch.setattr(gdal_tools.subprocess, "Popen", spy)
    monkeypatch.setenv("PROJ_DATA", "/nowhere")
    monkeypatch.setenv("PROJ_LIB", "/nowhere")
    assert "GDAL" in run_tool("gdalwarp", "--version")
    assert "PATH" in seen and not {"PROJ_DATA", "PROJ_LIB", "GDAL_DATA"} & set(seen)


def test_progress_is_reported_while_a_tool_is_running(monkeypatch, tmp_path):
    go_on = tmp_path / "go_on"
    tool = tmp_path / "gdalwarp"
    wait = f"while [ ! -e {go_on} ]; do sleep 0.01; done"
    tool.write_text(f"#!/bin/sh\nprintf 'Using band 4 of x7.tif\\n0...10..'; {wait}; printf '.20...100 - done.'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(blocks, "LOG_INTERVAL_S", 0.0)
    logged = []

    def log(line):
        logged.append(line)
        if line.endswith(": 10%"):
            go_on.touch()

    monkeypatch.setattr(blocks, "log_line", log)
    assert run_tool("gdalwarp", step="sar warped").endswith("100 - done.")
    assert {"sar warped: 10%", "sar warped: 20%"} <= set(logged)
    assert not any("4%" in line or "7%" in line for line in logged)
    logged.clear()
    run_tool("gdalwarp")
    assert logged == []


def test_what_gdal_says_of_each_pixel_is_said_once(monkeypatch, tmp_path):
    tool = tmp_path / "ogr2ogr"
    tool.write_text("#!/bin/sh\nfor i in 1 2 3; do echo 'ERROR 1: Invalid latitude' >&2; done; exit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(InputError) as error:
        run_tool("ogr2ogr")
    assert str(error.value).count("Invalid latitude") == 1
