import xml.etree.ElementTree as ET

import pytest

from dppmask.figures.demo_report import DemoResults, demo_report
from dppmask.figures.mask_gallery import make_gallery
from dppmask.figures.reconstruction import compare
from dppmask.figures.sweeps import Curve, Sweep
from dppmask.figures.table import Column, Measured, Table
from dppmask.masks import DPPMask, RandomMask


@pytest.fixture
def results(images, make_mae):
    model = make_mae()
    line = {"step": 1, "loss": 1.0, "lr": 0.1}
    return DemoResults(
        headline={"objects lost": "2 %"},
        setting="Two images.",
        table=Table([Column("name", ""), Column("x", "x")], [{"name": "one", "x": Measured(1.0, 0.1)}]),
        gallery=make_gallery(images, [RandomMask(), DPPMask()], grid=(3, 4), encoder=model.encoder),
        comparison=compare(images, (model, RandomMask()), (model, DPPMask())),
        sweeps={"spread": Sweep({"": Curve([0.0, 1.0], [0.9, 1.0], [0.1, 0.1])}, (1.0, 0.1))},
        curves={"random": [line], "DPP": [line, line | {"step": 2}]},
        environment={"commit": "abc123"},
        commands={"table": ["dppmask evaluate"], "curves": ["dppmask pretrain --run a"]},
    )


def test_every_result_has_its_section_and_its_command(results, tmp_path):
    html = demo_report(results, tmp_path / "report.html").read_text()
    root = ET.fromstring(html.removeprefix("<!DOCTYPE html>\n"))
    sections = {section.findtext("h2"): section for section in root.iter("section")}
    assert [name for name, section in sections.items() if section.find("figure/img") is not None] == [
        "The masks",
        "What masks lose",
        "Reconstructions",
        "Training",
    ]
    assert all(figure.findtext("figcaption") for figure in root.iter("figure"))
    assert sections["Results"].findtext(".//pre/code") == "dppmask evaluate"
    assert "".join(sections["Training"].find(".//pre").itertext()) == "dppmask pretrain --run a"
    assert sections["The masks"].find(".//pre") is None
    assert root.findtext(".//dl[@class='headline']/div/dd") == "2 %"
