import pytest


@pytest.fixture
def index_at(tmp_path):
    """Write a table as index.csv, rows sorted by tile."""

    def save(table, name="index.csv"):
        path = tmp_path / name
        table.sort_values("tile").to_csv(path, index=False, float_format="%.6f", lineterminator="\n")
        return path

    return save
