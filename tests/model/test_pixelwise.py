import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from tests.train.tiny import configs
from tmcnet.classes import ClassTable
from tmcnet.config import ContextConfig, ModelConfig, Run, SensorsConfig
from tmcnet.dataset.normalise import Band, Normalisation
from tmcnet.errors import InputError
from tmcnet.evaluate.trained import Trained
from tmcnet.model import pixelwise
from tmcnet.model.context import ContextFeatures
from tmcnet.model.networks import build_network
from tmcnet.model.pixelwise import ABSENT, PixelBoosting, PixelLogistic
from tmcnet.train.perceptron import Pixels, fit_perceptron
from tmcnet.train.pixelwise import Fitted, _binned, _edges, _fit_logistic, _trees

BANDS = {"optical": 2, "sar": 2}
TEXTURES = ContextConfig(windows=[3, 7, 15], differences=False, relative_window=None)
FEATURES = 28


def fitted(classes, rounds=12):
    random = np.random.default_rng(classes)
    values = random.normal(size=(1500, FEATURES)).astype(np.float32)
    noise = random.normal(size=(1500, classes))
    truth = (values[:, :classes] * 2 + np.sin(3 * values[:, 1:2]) + noise).argmax(axis=1)
    model = HistGradientBoostingClassifier(max_iter=rounds, max_leaf_nodes=9, early_stopping=False)
    edges = _edges(values)
    return model.fit(_binned(values, edges), truth), edges, values, truth


def boosting(state, classes):
    network = PixelBoosting(BANDS, classes, ContextFeatures(TEXTURES))
    network.load_state_dict(state)
    return network


@pytest.mark.parametrize("classes", [2, 6])
def test_trees_predict_what_scikit_learn_predicts(classes, monkeypatch):
    model, edges, values, _ = fitted(classes)
    network = boosting(_trees(model, edges, classes, 0, 12), classes)
    on_edges = np.stack([edge[:200] for edge in edges], axis=1)
    for table in (values, on_edges, values * 9):
        scores = network.scores(torch.from_numpy(table.T.copy()))
        np.testing.assert_allclose(scores.softmax(dim=0).T, model.predict_proba(_binned(table, edges)), atol=1e-5)
    monkeypatch.setattr(pixelwise, "CHUNK_PIXELS", (7, 7))
    torch.testing.assert_close(network.scores(torch.from_numpy(table.T.copy())), scores, atol=1e-6, rtol=0)


def test_stages_add_up():
    model, edges, values, _ = fitted(3)
    table = torch.from_numpy(values.T.copy())
    parts = [boosting(_trees(model, edges, 3, first, last), 3).scores(table) for first, last in ((0, 5), (5, 12))]
    whole = boosting(_trees(model, edges, 3, 0, 12), 3).scores(table)
    torch.testing.assert_close(sum(parts), whole, atol=1e-5, rtol=0)


def test_a_class_without_labels_is_never_predicted():
    model, edges, values, truth = fitted(3)
    model.fit(_binned(values, edges), np.array([0, 2, 3])[truth])
    network = boosting(_trees(model, edges, 5, 0, 12), 5)
    found = network.scores(torch.from_numpy(values.T.copy())).softmax(dim=0).T.numpy()
    np.testing.assert_allclose(found[:, [0, 2, 3]], model.predict_proba(_binned(values, edges)), atol=1e-5)
    assert not found[:, [1, 4]].any()
    assert float(network.base[1]) == ABSENT


def trained(network, name):
    _, model, sensors, _ = configs()
    model = model.model_copy(update={"context": TEXTURES})
    sensors = SensorsConfig({n: sensor.model_copy(update={"bands": ["a", "b"]}) for n, sensor in sensors.items()})
    bands = tuple(Band(b, 0, 1, 0, 1) for b in "ab")
    classes = ClassTable.of([("x", "#000000"), ("y", "#ffffff"), ("z", "#ff0000")])
    run = Run.parse(f"{name}-baseline__random__R5__s1")
    return Trained(network, run, model, sensors, classes, Normalisation({"optical": bands, "sar": bands}, 1.5, 1), {})


def images(seed=0):
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(2, bands, 13, 10, generator=draw) for name, bands in BANDS.items()}


def test_trees_of_any_size_come_back_from_a_file(tmp_path):
    network = boosting(_trees(*fitted(3)[:2], 3, 0, 12), 3)
    trained(network, "pixel_boosting").write(tmp_path / "w.safetensors", {})
    again = Trained.read(tmp_path / "w.safetensors").network
    assert again(images()).shape == (2, 3, 13, 10)
    assert torch.equal(again(images()), network(images()))


def test_logistic_regression_comes_back_from_a_file(tmp_path):
    _, _, values, truth = fitted(3)
    model = LogisticRegression(max_iter=500).fit((values - 0.5) / 2, truth)
    network = build_network("pixel_logistic", "baseline", BANDS, 3, ModelConfig(context=TEXTURES))
    assert isinstance(network, PixelLogistic)
    state = {
        "weight": model.coef_,
        "bias": model.intercept_,
        "mean": np.full(FEATURES, 0.5),
        "scale": np.full(FEATURES, 2.0),
    }
    network.load_state_dict({name: torch.from_numpy(value).float() for name, value in state.items()})
    found = network.scores(torch.from_numpy(values.T.copy())).softmax(dim=0).T
    np.testing.assert_allclose(found, model.predict_proba((values - 0.5) / 2), atol=1e-5)
    trained(network, "pixel_logistic").write(tmp_path / "w.safetensors", {})
    again = Trained.read(tmp_path / "w.safetensors").network
    assert torch.equal(again(images()), network(images()))


@pytest.mark.parametrize("classes", [2, 3])
def test_a_multilayer_perceptron_learns_what_no_linear_model_can(classes):
    values = np.random.default_rng(1).normal(size=(1500, FEATURES)).astype(np.float32) * 3 + 5
    truth = (np.abs(values[:, 0] - 5) > 2).astype(int) * (classes - 1)  # of three classes, one has no label
    pixels = Pixels(values, truth, np.ones(1500))
    linear, perceptron = (
        build_network(name, "baseline", BANDS, classes, ModelConfig(context=TEXTURES))
        for name in ("pixel_logistic", "pixel_mlp")
    )
    result = Fitted()
    _fit_logistic(pixels, classes, 20, result)
    linear.load_state_dict(result.weights)
    fit_perceptron(perceptron.perceptron, pixels, 200, seed=1)
    correct = []
    for network in (linear, perceptron):
        found = network.scores(torch.from_numpy(values.T.copy())).argmax(dim=0).numpy()
        correct.append((found == truth).mean())
        assert set(found) <= {0, classes - 1}
    assert correct[1] > 0.95 > 0.8 > correct[0]


@pytest.mark.parametrize(
    ("name", "value"), [("left", 0), ("right", 10**6), ("root", -1), ("feature", FEATURES), ("target", 3)]
)
def test_tensors_that_are_no_trees_are_refused(tmp_path, name, value):
    state = _trees(*fitted(3)[:2], 3, 0, 2)
    whole = boosting(state, 3)
    whole.get_buffer(name).data[0] = value
    trained(whole, "pixel_boosting").write(tmp_path / "w.safetensors", {})
    with pytest.raises(InputError, match="no decision trees"):
        Trained.read(tmp_path / "w.safetensors")
