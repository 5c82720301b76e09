import numpy as np
import pytest

from tmcnet.classes import ClassTable
from tmcnet.config import ClassConfig, LabelsConfig
from tmcnet.errors import InputError
from tmcnet.raster.io.labels import LabelCoder

NAMES = ClassTable.of([("a", "#ff0000"), ("b", "#00ff00")])
IDS = LabelsConfig(
    void=[-1, 0],
    classes=[
        ClassConfig(name="a", codes=[11, 40000], color="#ff0000"),
        ClassConfig(name="b", codes=[255], color="#00ff00"),
    ],
)
RGB = LabelsConfig(
    encoding="rgb",
    void_rgb=[(0, 0, 0)],
    classes=[
        ClassConfig(name="a", rgb=(255, 0, 0), color="#000001"),
        ClassConfig(name="b", rgb=(0, 255, 1), color="#000002"),
    ],
)


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4"])
def test_codes_become_ids_as_a_plain_loop_has_it(dtype):
    info = np.iinfo(dtype) if dtype != "f4" else np.iinfo("i4")
    codes = np.array([c for c in (-1, 0, 11, 40000, 255, 7) if info.min <= c <= info.max])
    values = np.random.default_rng(0).choice(codes, (1, 20, 30)).astype(dtype)
    valid = np.random.default_rng(1).random((20, 30)) < 0.8
    meaning = {11: 0, 40000: 0, 255: 1}
    expected = [[meaning.get(int(v), 255) for v in row] for row in values[0]]
    ids, unknown = LabelCoder(IDS, NAMES).encode(values, valid)
    assert ids.dtype == np.uint8 and ids.tolist() == expected
    assert unknown == {7: int(((values[0] == 7) & valid).sum())}


def test_colours_become_ids():
    values = np.array([[[255, 0, 0, 9]], [[0, 255, 0, 9]], [[0, 1, 0, 9]]], "u1")
    ids, unknown = LabelCoder(RGB, NAMES).encode(values, np.ones((1, 4), bool))
    assert ids.tolist() == [[0, 1, 255, 255]] and unknown == {9 << 16 | 9 << 8 | 9: 1}
    assert "(9, 9, 9) (1 pixels)" in str(LabelCoder(RGB, NAMES).problem("x.tif", unknown))


@pytest.mark.parametrize("dtype", ["u4", "i8", "u8", "f8"])
def test_large_codes_are_exact(dtype):
    large = [2**24, 2**24 + 1, 2**32 - 1] + ([2**53, 2**53 + 1, 2**63 - 1] if dtype[1] == "8" else [])
    large = [code for code in large if int(np.array(code).astype(dtype)) == code]
    classes = [ClassConfig(name=f"c{n}", codes=[code], color="#000000") for n, code in enumerate(large)]
    names = ClassTable.of((c.name, c.color) for c in classes)
    coder = LabelCoder(LabelsConfig(classes=classes), names)
    if dtype == "f8":  # the number that 2**53 is may have been another
        assert coder.encode(np.array([[[2**53]]], dtype), np.ones((1, 1), bool))[0].tolist() == [[3]]
    ids, unknown = coder.encode(np.array([[large]], dtype), np.ones((1, len(large)), bool))
    assert ids.tolist() == [[*range(len(large))]] and not unknown
    if dtype == "u8":
        assert sum(coder.encode(np.array([[[2**64 - 1]]], dtype), np.ones((1, 1), bool))[1].values()) == 1


def test_codes_that_the_type_of_a_file_cannot_tell_apart_are_unknown():
    classes = [ClassConfig(name=f"c{n}", codes=[2**24 + n], color="#000000") for n in range(3)]
    names = ClassTable.of((c.name, c.color) for c in classes)
    coder = LabelCoder(LabelsConfig(classes=classes), names)
    ids, unknown = coder.encode(np.array([[[2**24, 2**24 + 2]]], "f4"), np.ones((1, 2), bool))
    assert ids.tolist() == [[255, 2]] and sum(unknown.values()) == 1
    assert "too large for its type of numbers" in str(coder.problem("x.tif", unknown))


def test_a_fraction_is_no_code():
    _, unknown = LabelCoder(IDS, NAMES).encode(np.array([[[11.5, np.nan]]], "f4"), np.array([[True, False]]))
    assert sum(unknown.values()) == 1


def test_without_classes_in_the_config_ids_are_codes():
    ids, unknown = LabelCoder(LabelsConfig(), NAMES).encode(np.array([[[0, 1, 255, 2]]], "u1"), np.ones((1, 4), bool))
    assert ids.tolist() == [[0, 1, 255, 255]] and unknown == {2: 1}
    ids, _ = LabelCoder(LabelsConfig(), NAMES, "rgb").encode(
        np.array([[[255]], [[0]], [[0]]], "u1"), np.ones((1, 1), bool)
    )
    assert ids.tolist() == [[0]]


def test_the_codes_of_a_class_outweigh_the_no_data_of_the_file(source):
    path = source.write("l.tif", np.array([[11, 255, 3]], "u1"), nodata=255)
    with pytest.raises(InputError, match=r"l\.tif: holds 1 codes that no class has: 3 \(1 pixels\).*labels\.void"):
        LabelCoder(IDS, NAMES).read(path)
    path = source.write("m.tif", np.array([[11, 255, 3]], "u1"), nodata=3)
    assert LabelCoder(IDS, NAMES).read(path).tolist() == [[0, 1, 255]]
    assert LabelCoder(IDS, NAMES).read(path, (-1, 1, 2, 1)).tolist() == [[255], [1]]


def test_the_number_of_bands_must_fit_the_encoding(source):
    path = source.write("l.tif", np.zeros((3, 4, 4), "u1"))
    with pytest.raises(InputError, match="encoding: ids"):
        LabelCoder(IDS, NAMES).read(path)
    path = source.write("m.tif", np.zeros((1, 4, 4), "u1"))
    with pytest.raises(InputError, match="encoding: rgb"):
        LabelCoder(RGB, NAMES).read(path)


def test_one_band_of_several_holds_the_codes():
    labels = IDS.model_copy(update={"band": 2})
    values = np.array([[[1, 2]], [[11, 255]], [[3, 4]]], "u1")
    coder = LabelCoder(labels, NAMES)
    ids, unknown = coder.encode(values, np.ones((1, 2), bool))
    assert ids.tolist() == [[0, 1]] and unknown == {}
    coder.check_bands("l.tif", 3)
    with pytest.raises(InputError, match=r"has 1 band\(s\), but `labels.band` is 2"):
        coder.check_bands("l.tif", 1)
    with pytest.raises(InputError, match=r"or `labels\.band` to the band of the codes"):
        LabelCoder(IDS, NAMES).check_bands("l.tif", 3)


@pytest.mark.parametrize("dtype", ["f4", "u2", "i2", "c8"])
def test_colours_that_are_not_of_8_bits_are_unknown(dtype):
    colours = np.zeros((3, 1, 4), dtype)
    colours[0] = [255, 255, 0, 0]
    colours[1, 0, 1] = {"f4": 0.5, "c8": 1j}.get(dtype, 256)
    coder = LabelCoder(RGB, NAMES)
    ids, unknown = coder.encode(colours, np.ones((1, 4), bool))
    assert ids[0].tolist() == [0, 255, 255, 255]
    assert "holds 1 pixels whose colour is not three whole" in str(coder.problem("l.tif", unknown))
