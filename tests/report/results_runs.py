"""The part of the results folder that follows from training: curves, scores, maps, benchmarks."""

from __future__ import annotations

import csv
import json
from itertools import combinations
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin
from scipy.ndimage import gaussian_filter

from tmcnet.config import Config, Run
from tmcnet.evaluate.metrics import boundary_f1

TILE = 64
METRICS = ["oa", "kappa", "miou", "mf1"]


def write_runs(
    root: Path,
    config: Config,
    names: list[str],
    labels: dict[str, np.ndarray],
    tiles: list[dict[str, object]],
    test: list[str],
) -> None:
    """Write everything from `pretrain/` to `tracking.csv`."""
    for number, method in enumerate(config.pretrain.methods):
        _write_pretrain(root / "pretrain" / method, number)
    rows, scores = [], {}
    for run in config.runs:
        truth, guess = _predict(run, labels, len(names))
        _write_curves(root / "finetune" / run.name, run)
        record = _write_evaluation(root / "evaluate" / run.name, run, names, truth, guess, tiles, test)
        scores[run] = record
        rows.append(_row(run, record))
        if run in config.map_runs:
            _write_maps(root, run, guess)
            _write_areas(root / "maps" / f"{run.name}_areas.csv", names, guess)
    _write_table(root / "metrics.csv", rows)
    headline = _headline(scores)
    (root / "metrics.json").write_text(json.dumps(headline, indent=1))
    _write_table(root / "comparisons.csv", _comparisons(scores))
    _write_benchmarks(root / "benchmarks", config)
    tracked = [{"run": m, "kind": "pretrain", "run_id": "a" * 32, "status": "new"} for m in config.pretrain.methods]
    tracked += [{"run": r.name, "kind": "finetune", "run_id": "b" * 32, "status": "unchanged"} for r in config.runs]
    address = "http://127.0.0.1:5000/#/experiments/1"
    _write_table(root / "tracking.csv", [row | {"url": f"{address}/runs/{row['run_id']}"} for row in tracked])
    search = {"title": "Compare", "url": f"{address}?searchFilter=x", "filter": "x"}
    (root / "tracking.json").write_text(json.dumps({"links": [search]}))


def _skill(run: Run) -> float:
    base = {"mssnet": 0.80, "late_fusion": 0.78, "optical_only": 0.74, "sar_only": 0.52, "pixel_boosting": 0.66}[
        run.network
    ]
    gain = {"random": 0.0, "tmcnet": 0.05}[run.method] * (1 if run.variant == "corrected" else 0.2)
    rng = np.random.default_rng([int(run.budget.amount), run.seed, len(run.name)])
    return float(base + gain + 0.06 * np.log10(run.budget.amount / 100) + rng.normal(0, 0.012))


def _predict(run: Run, labels: dict[str, np.ndarray], k: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.default_rng(run.seed)
    guess = {}
    for scene, label in labels.items():
        noise = gaussian_filter(rng.normal(size=label.shape), 3)
        wrong = noise > np.quantile(noise, _skill(run))
        seen = np.where(label == 255, 0, label)
        guess[scene] = np.where(wrong, (seen + 1) % k, seen).astype(np.uint8)
    return labels, guess


def _write_evaluation(
    folder: Path,
    run: Run,
    names: list[str],
    truth: dict[str, np.ndarray],
    guess: dict[str, np.ndarray],
    tiles: list[dict[str, object]],
    test: list[str],
) -> dict[str, object]:
    k, places = len(names), {str(t["tile"]): t for t in tiles}
    confusions = []
    for tile in test:
        row, col = int(str(places[tile]["row"])), int(str(places[tile]["col"]))
        t = truth[str(places[tile]["scene"])][row : row + TILE, col : col + TILE]
        g = guess[str(places[tile]["scene"])][row : row + TILE, col : col + TILE]
        known = t != 255
        confusions.append(np.bincount(t[known].astype(int) * k + g[known], minlength=k * k).reshape(k, k))
    confusion = np.stack(confusions).astype(np.int64)
    folder.mkdir(parents=True)
    scenes = np.array([str(places[t]["scene"]) for t in test])
    right = np.diagonal(confusion, axis1=1, axis2=2)
    boundary = np.stack([right, confusion.sum(1), right, confusion.sum(2)], axis=2) // 4
    np.savez_compressed(
        folder / "tiles.npz", names=np.array(test), scenes=scenes, confusion=confusion, boundary=boundary
    )
    record = {"run": run.record, **scores_of(confusion.sum(0), names), "n_tiles": len(test)}
    edges = np.linspace(0, 1, 11)
    middle = (edges[1:] + edges[:-1]) / 2
    record["calibration"] = {
        "bins": [
            {"low": lo, "high": hi, "count": 50 * (i + 1) ** 2, "confidence": c, "accuracy": c**1.3}
            for i, (lo, hi, c) in enumerate(
                zip(edges[:-1].tolist(), edges[1:].tolist(), middle.tolist(), strict=True)
            )
        ]
    }
    record["calibration"]["scaled"] = {"ece": 0.021, "bins": []}
    record["calibration"]["bins"][0] |= {"count": 0, "confidence": None, "accuracy": None}
    record["ece"] = 0.04
    outlines = boundary_f1(boundary.sum(0))
    by_class = dict(zip(names, map(float, outlines), strict=True))
    record |= {"boundary_f1": float(outlines.mean()), "boundary": {"tolerance": 2, "f1": by_class}}
    both = run.network not in ("optical_only", "sar_only")
    shares = {"optical": 0.5, "sar": 0.9} if both else {}
    record["withheld"] = {
        hidden: {m: share * float(str(record[m])) for m in METRICS} for hidden, share in shares.items()
    }
    (folder / "metrics.json").write_text(json.dumps(record))
    return record


def scores_of(m: np.ndarray, names: list[str]) -> dict[str, object]:
    """Scores of one confusion matrix (rows truth)."""
    total, diagonal = m.sum(), np.diag(m)
    oa = diagonal.sum() / total
    chance = float((m.sum(0) * m.sum(1)).sum() / total**2)
    precision, recall = diagonal / np.maximum(m.sum(0), 1), diagonal / np.maximum(m.sum(1), 1)
    iou = diagonal / np.maximum(m.sum(0) + m.sum(1) - diagonal, 1)
    f1 = 2 * diagonal / np.maximum(m.sum(0) + m.sum(1), 1)
    per_class = {"iou": iou, "precision": precision, "recall": recall, "f1": f1}
    return {
        "oa": float(oa),
        "kappa": float((oa - chance) / (1 - chance)),
        "miou": float(iou.mean()),
        "mf1": float(f1.mean()),
        "n_pixels": int(total),
        "confusion": m.tolist(),
        **{key: dict(zip(names, map(float, v), strict=True)) for key, v in per_class.items()},
    }


def _row(run: Run, record: dict[str, object]) -> dict[str, object]:
    iou, f1 = record["iou"], record["f1"]
    assert isinstance(iou, dict) and isinstance(f1, dict)
    return {
        "method": run.method,
        "network": run.network,
        "variant": run.variant,
        "fraction": f"{run.budget.fraction:g}",
        "draw": run.draw,
        "seed": run.seed,
        **{m: f"{record[m]:.6f}" for m in [*METRICS, "ece"]},
        "n_tiles": record["n_tiles"],
        "n_pixels": record["n_pixels"],
        "boundary_f1": f"{record['boundary_f1']:.6f}",
        **{f"iou_{n}": f"{v:.6f}" for n, v in iou.items()},
        **{f"f1_{n}": f"{v:.6f}" for n, v in f1.items()},
    }


def _groups(scores: dict[Run, dict[str, object]]) -> dict[tuple[str, str, str, float], list[dict[str, object]]]:
    groups: dict[tuple[str, str, str, float], list[dict[str, object]]] = {}
    for run, record in scores.items():
        groups.setdefault((run.network, run.variant, run.method, run.budget.amount), []).append(record)
    return groups


def _headline(scores: dict[Run, dict[str, object]]) -> dict[str, object]:
    tree: dict[str, dict[str, dict[str, object]]] = {}
    for (network, variant, method, fraction), records in _groups(scores).items():
        entry = {}
        for metric in (*METRICS, "boundary_f1"):
            mean = float(np.mean([float(str(r[metric])) for r in records]))
            entry[metric] = {"mean": mean, "low": mean - 0.021, "high": mean + 0.018, "n_runs": len(records)}
        tree.setdefault(f"{network}-{variant}", {}).setdefault(method, {})[f"R{fraction:g}"] = entry
    return {**tree, "missing": []}


def _comparisons(scores: dict[Run, dict[str, object]]) -> list[dict[str, object]]:
    """Pairs that differ in one thing, named in alphabetical order as the evaluation does."""
    rows = []
    for (a, of_a), (b, of_b) in combinations(sorted(_groups(scores).items()), 2):
        same_network = a[:2] == b[:2]
        pixelwise = "pixel_boosting" in (a[0], b[0])
        if a[3] != b[3] or (a[2] != b[2] and not same_network and not pixelwise):
            continue
        for metric in METRICS:
            means = [float(np.mean([float(str(r[metric])) for r in group])) for group in (of_a, of_b)]
            difference = means[0] - means[1]
            rows.append(
                {
                    "kind": "method" if same_network else "network",
                    "a": f"{a[0]}-{a[1]}__{a[2]}",
                    "b": f"{b[0]}-{b[1]}__{b[2]}",
                    "fraction": f"{a[3]:.6f}",
                    "metric": metric,
                    "n_runs": 2,
                    "n_seeds": 2,
                    "n_blocks": 2,
                    "difference": f"{difference:.6f}",
                    "low": f"{difference - 0.05:.6f}",
                    "high": f"{difference + 0.05:.6f}",
                    "p": "0.040000",
                    "p_holm": "0.120000" if abs(difference) < 0.06 else "0.020000",
                    "significant": abs(difference) >= 0.06,
                }
            )
    return rows


def _write_pretrain(folder: Path, number: int) -> None:
    rng = np.random.default_rng(number)
    steps = np.arange(10, 310, 10)
    rows = []
    for step in steps:
        loss = 3 * np.exp(-step / (120 + 60 * number)) + 0.8 + rng.normal(0, 0.03)
        rows.append(
            {
                "step": step,
                "loss": f"{loss:.6f}",
                "loss_global": f"{loss * 1.1:.6f}",
                "loss_local": f"{loss * 0.9:.6f}",
                "learning_rate": f"{1e-3 * np.cos(step / 300 * 1.5):.8f}",
                "alignment": f"{1 - np.exp(-step / 100) * 0.6:.6f}",
                "uniformity": f"{-1 - step / 300:.6f}",
                "effective_rank": f"{20 + step / (30 + 20 * number):.6f}",
                "retrieval_optical_to_sar": f"{0.05 + 0.7 * step / 300:.6f}" if step % 50 == 0 else "",
            }
        )
    _write_table(folder / "curves.csv", rows)
    summary = {"method": folder.name, "steps": 300, "seconds": 61.2, "loss": 1.02, "effective_rank": 29.8}
    (folder / "summary.json").write_text(json.dumps(summary))


def _write_curves(folder: Path, run: Run) -> None:
    rng = np.random.default_rng(run.seed)
    rows = []
    for step in range(10, 210, 10):
        seen = step % 50 == 0
        rows.append(
            {
                "step": step,
                "loss": f"{1.6 * np.exp(-step / 60) + 0.3 + rng.normal(0, 0.03):.6f}",
                "val_miou": f"{_skill(run) * (1 - np.exp(-step / 50)):.6f}" if seen else "",
                "val_oa": f"{_skill(run) * (1 - np.exp(-step / 40)):.6f}" if seen else "",
                "learning_rate": "0.001",
            }
        )
    _write_table(folder / "curves.csv", rows)
    summary = {"run": run.name, "best_step": 150, "seconds": 12.5, "loaded": 110, "not_loaded": 4}
    (folder / "summary.json").write_text(json.dumps(summary))


def _write_maps(root: Path, run: Run, guess: dict[str, np.ndarray]) -> None:
    rng = np.random.default_rng(3)
    for number, (scene, classes) in enumerate(guess.items()):
        folder = root / "maps" / scene
        folder.mkdir(parents=True, exist_ok=True)
        confidence = gaussian_filter(rng.uniform(0, 100, classes.shape), 2).astype(np.uint8)
        for name, data in ((run.name, classes), (f"{run.name}_confidence", confidence)):
            with rasterio.open(
                folder / f"{name}.tif",
                "w",
                driver="GTiff",
                count=1,
                dtype="uint8",
                nodata=255,
                height=classes.shape[0],
                width=classes.shape[1],
                crs="EPSG:32633",
                transform=from_origin(500_000 + 10_000 * number, 5_000_000, 10, 10),
                compress="deflate",
            ) as file:
                file.write(data, 1)
    rows = [
        {"scene": s, "path": f"maps/{s}/{run.name}.tif", "confidence": 0.8, "megapixels": 0.07, "seconds": 1.5}
        for s in guess
    ]
    _write_table(root / "maps" / f"{run.name}.csv", rows)


def _write_areas(path: Path, names: list[str], guess: dict[str, np.ndarray]) -> None:
    """Areas as mapped, as estimates 10 % larger, and limits 20 % around these."""
    rows = []
    for scene, classes in {**guess, "all scenes": np.concatenate(list(guess.values()))}.items():
        pixels = np.bincount(classes[classes != 255], minlength=len(names))
        for name, count in zip(names, pixels.tolist(), strict=True):
            row: dict[str, object] = {"scene": scene, "class": name, "mapped_pixels": count}
            for unit, mapped in (("ha", count / 100), ("percent", 100 * count / pixels.sum())):
                values = {f"mapped_{unit}": mapped, unit: 1.1 * mapped}
                values |= {f"{unit}_low": 0.88 * mapped, f"{unit}_high": 1.32 * mapped}
                row |= {key: f"{value:.4f}" for key, value in values.items()}
            rows.append({**row, "confidence": 0.95, "test_blocks": 2, "assumption": "representative"})
    _write_table(path, rows)


def _write_benchmarks(folder: Path, config: Config) -> None:
    heads = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time"
    names = [
        "inventory",
        "tiles",
        *(f"align/{s}" for s in ("alpha", "beta")),
        *(f"finetune/{r.name}" for r in config.runs),
    ]
    for number, name in enumerate(names):
        path = folder / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{heads}\n{12.5 + number}\t0:00:12\t{350 + number}.2\t900\t300\t310\t1\t1\t95.0\t11.9\n")
    (folder / "inventory.tsv").write_text(f"{heads}\n0.4\t0:00:00\t-\t-\t-\t-\t-\t-\t0.0\t-\n")


def _write_table(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
