import numpy as np
import pytest

from tmcnet.classes import ClassTable
from tmcnet.config import ModelConfig, Run
from tmcnet.dataset.normalise import Normalisation
from tmcnet.errors import InputError
from tmcnet.evaluate.trained import Trained, predict_raw
from tmcnet.model.networks import build_network
from tmcnet.tracking.predictor import input_example, write_mlflow_model


@pytest.fixture
def trained(folder):
    root, config = folder
    run, classes = config.runs[0], ClassTable.read(root / "tiles" / "classes.csv")
    model = ModelConfig(backbone="resnet18", width=8, aspp_channels=16, decoder_channels=16)
    network = build_network(run.network, run.variant, config.sensors.band_counts, len(classes), model)
    scaling = Normalisation.read(root / "normalisation.json")
    return Trained(network, Run.parse(run.name), model, config.sensors, classes, scaling, {})


def test_mlflow_opens_a_model_that_predicts_as_the_network_does(trained, tmp_path):
    from mlflow import pyfunc

    weights = tmp_path / "weights.safetensors"
    trained.write(weights, {})
    tags = {"run": trained.run.name}
    write_mlflow_model(tmp_path / "model", weights, trained.normalisation, len(trained.classes), tags)
    model = pyfunc.load_model(str(tmp_path / "model"))
    assert model.metadata.metadata == {"run": trained.run.name}
    requirements = (tmp_path / "model" / "requirements.txt").read_text().splitlines()
    assert "torch==2.13.0" in {text.split("+")[0] for text in requirements}
    assert not any(text.startswith(("pytest", "ruff")) for text in requirements)
    assert {spec.name: spec.shape for spec in model.metadata.signature.inputs} == {
        "optical": (-1, 4, -1, -1),
        "sar": (-1, 2, -1, -1),
    }
    example = model.input_example
    images = {kind: np.asarray(example[kind], np.float32) for kind in ("optical", "sar")}
    images["sar"][:, :, :3] = np.nan
    predicted = model.predict(images)
    assert predicted.shape == (1, 5, 16, 16)
    assert np.allclose(predicted.sum(1), 1, atol=1e-5)
    expected = predict_raw(Trained.read(weights), images)
    assert np.array_equal(predicted, expected)


def test_the_example_covers_the_usual_range_of_every_band(trained):
    example = input_example(trained.normalisation)
    assert example["optical"].shape == (1, 4, 16, 16)
    assert (example["sar"].min(), example["sar"].max()) == (-2, 3)


def test_raw_images_with_other_bands_are_refused(trained):
    images = input_example(trained.normalisation)
    with pytest.raises(InputError, match="has 3 bands"):
        predict_raw(trained, {**images, "optical": images["optical"][:, :3]})
