"""The arithmetic of a plan, and of a training's own account, by hand."""

from dataclasses import replace

import pytest

from dppmask.reproduce.cells import Cells
from dppmask.reproduce.machine import Machine
from dppmask.reproduce.plan import Scoring, Training, plan, scorings, trainings
from dppmask.reproduce.request import Request
from dppmask.reproduce.run import reproduce
from dppmask.reproduce.scales import Rate, Speed
from dppmask.reproduce.units import job_of, merged
from dppmask.reproduce.worker import training_metrics
from dppmask.training.arithmetic import flops_per_image


def test_hours_of_a_training():
    cost = Training(
        "mae", 10, 1000, batch=64, devices=1, runs=6, flops=5e9, images_per_second=20.0, assumed=4e11
    )
    assert cost.steps == 10 * 15
    assert cost.hours == pytest.approx(6 * 150 * 64 / 20 / 3600)
    assert cost.row()["flop"] == "2.9e+14"  # 6 * 150 * 64 * 5e9
    assert cost.row()["speed"] == "20 images/s"
    assert replace(cost, images=None).hours is None
    guessed = replace(cost, images_per_second=None)
    assert guessed.row()["speed"] == "80 images/s (assumed)"
    assert guessed.hours == pytest.approx(6 * 150 * 64 / 80 / 3600)
    assert replace(guessed, assumed=None).hours is None
    eight = replace(cost, devices=8)
    assert eight.hours == pytest.approx(8 * cost.hours)  # of one device; the speed is that of all
    assert replace(eight, images_per_second=None).hours == pytest.approx(guessed.hours)
    assert replace(eight, images_per_second=None).row()["speed"] == "640 images/s (assumed)"
    assert Scoring("knn", 12, 30.0).hours == pytest.approx(0.1)


def test_what_is_left_is_counted_once_and_what_is_done_not(experiment, scale, tmp_path):
    scale = replace(scale, speeds={"mae": Speed(4.0, "a core")}, seconds={"knn": 36.0})
    job = job_of(experiment, scale)
    units, cells = merged([job, job]), Cells(tmp_path / "cells.jsonl")
    (found,) = trainings(units, scale, cells)
    assert found == Training("mae", 2, 16, 4, devices=1, runs=4, flops=found.flops, images_per_second=4.0)
    assert found.flops == flops_per_image(units[0].options)
    assert scorings(units, scale, cells) == [Scoring("knn", 4, 36.0)]
    text = plan([job], units, scale, cells, Machine(tmp_path, jobs=2))
    assert "2 epochs x 16 images / 4 = 8 steps" in text
    hours = (4 * 8 * 4 / 4.0 + 4 * 36.0) / 3600
    assert f"Left to do: {hours:.2f} device hours; {hours / 2:.2f} hours with 2 at a time." in text

    for key in units[0].evaluations:
        cells.add({"key": key, "evaluation": "knn", "scale": "mini", "timings": {"seconds": 72.0}})
    left = [unit for unit in units if unit is not units[0]]
    assert trainings(left, scale, cells)[0].runs == 3
    assert scorings(left, scale, cells) == [Scoring("knn", 3, 72.0)]  # as measured, now


def test_what_was_never_measured_is_taken_from_its_operations(experiment, scale, tmp_path):
    scale = replace(scale, assumed=Rate(1e-6, "a card"), seconds={"knn": 36.0})
    job = job_of(experiment, scale)
    units, cells = merged([job]), Cells(tmp_path / "cells.jsonl")
    text = plan([job], units, scale, cells, Machine(tmp_path))
    hours = 4 * 8 * 4 * flops_per_image(units[0].options) / 1e6 / 3600 + 4 * 36 / 3600
    assert f"Left to do: {hours:.2f} device hours;" in text
    assert "Assumed: 1e-06 TFLOP/s, a card." in text


def test_data_to_bring_is_named(experiment, scale, tmp_path):
    photos = {"class_path": "dppmask.data.folder.ImageFolder", "init_args": {"root": "${photos}"}}
    scale = replace(
        scale,
        pretrain={"mae": scale.pretrain["mae"].then(Request((), {"data": photos}))},
        images={"mae": 126_689},
    )
    job = job_of(experiment, scale)
    text = plan([job], merged([job]), scale, Cells(tmp_path / "c"), Machine(tmp_path))
    assert "Data set photos: not given; --data_roots says where it lies" in text
    assert "2 epochs x 126,689 images / 4 = 63,344 steps" in text


def test_a_plan_starts_nothing(tmp_path):
    text = reproduce(["table2"], scale="smoke", plan=True, work=str(tmp_path / "work"), device="cpu")
    assert "table2: iBOT with different masks" in text
    assert not (tmp_path / "work").exists()


def test_the_last_epoch_is_averaged_by_steps_and_time_is_counted_by_line():
    lines = [
        {"step": 10, "epoch": 0, "loss": 9.0, "images_per_second": 80.0},
        {"step": 20, "epoch": 1, "loss": 3.0, "images_per_second": 40.0},
        {"step": 25, "epoch": 1, "loss": 6.0, "images_per_second": 20.0},  # after an interruption
    ]
    found = training_metrics(lines, images_per_step=8)
    assert found["loss"] == pytest.approx((10 * 3.0 + 5 * 6.0) / 15)
    assert found["seconds"] == pytest.approx(80 / 80 + 80 / 40 + 40 / 20)
    assert (found["steps"], found["images"]) == (25, 200)
    assert found["images_per_second"] == pytest.approx(200 / 5)


def test_a_run_on_several_devices_takes_less_time_than_device_hours(experiment, scale, tmp_path):
    wide = scale.pretrain["mae"].then(Request((), {"devices": 2, "batch_size": 2}))
    scale = replace(scale, pretrain={"mae": wide}, speeds={"mae": Speed(0.1, "two cards")}, evaluate={})
    job = job_of(experiment, scale)
    text = plan([job], merged([job]), scale, Cells(tmp_path / "c"), Machine(tmp_path))
    hours = 4 * 8 * 4 / 0.1 / 3600
    assert "pre-train mae, 2 devices" in text
    assert f"{2 * hours:.2f} device hours; {hours:.2f} hours with 1 at a time" in text
    text = plan([job], merged([job]), scale, Cells(tmp_path / "c"), Machine(tmp_path, jobs=2))
    assert f"{2 * hours:.2f} device hours; {hours:.2f} hours with 2 at a time" in text
