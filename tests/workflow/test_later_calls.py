"""What later calls plan: after files were deleted, with other settings, and for targets by their paths."""

import shutil

import pytest

from tests.workflow.conftest import RUN, Project, planned_jobs

TRAININGS = {"pretrain_method", "finetune_run", "evaluate_run"}


def test_lost_files_are_named_because_a_path_does_not_ask_for_them(project: Project) -> None:
    next(project.results.glob("tiles/optical/*.tif")).unlink()
    done = project.call("results/report.html", dry=True)
    assert "Targets by name, such as `report`, make them again" in done.stderr
    project.run("report")
    done = project.call("results/report.html", dry=True)
    assert planned_jobs(done) == {}
    assert "lost or damaged" not in done.stderr


def test_deleted_scenes_are_aligned_again_and_no_training_is_repeated(project: Project) -> None:
    shutil.rmtree(project.results / "scenes" / project.scenes[0])
    plan = project.plan("report: {title: Another}")
    assert "align_scene" in plan
    assert not TRAININGS & set(plan)


def test_how_often_a_training_is_saved_repeats_nothing(project: Project) -> None:
    assert not TRAININGS & set(project.plan("pretrain: {checkpoint_every: 7}"))


def test_a_whole_path_of_the_results_is_the_same_folder(project: Project) -> None:
    assert planned_jobs(project.call("report", dry=True, results_dir=str(project.results))) == {}


def test_results_without_the_records_of_their_jobs_get_a_warning(project: Project) -> None:
    assert "changed settings repeat nothing" not in project.call("report", dry=True).stderr
    shutil.rmtree(project.folder / ".snakemake" / "metadata")
    assert "changed settings repeat nothing" in project.call("report", dry=True).stderr


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("pretrain/nope/weights.safetensors", "nope is not a method of `pretrain.methods`. The methods are: tmcnet."),
        (f"maps/nope/{RUN}.tif", "nope is not a scene of the source. The scenes are: "),
        ("folds/7/splits/train_RGB.txt", "There is no folds/7 with `splits.folds: None`."),
    ],
)
def test_unknown_names_in_paths_are_named(project: Project, path: str, words: str) -> None:
    done = project.call(f"results/{path}", dry=True)
    assert done.returncode != 0
    assert words in done.stdout + done.stderr
