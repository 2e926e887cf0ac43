import base64
import os
import re
import xml.etree.ElementTree as ET

import pytest

from dppmask.errors import UserError
from dppmask.figures.report import (
    Commands,
    Facts,
    Headline,
    Picture,
    Section,
    Text,
    environment_facts,
    render_report,
    write_report,
)
from dppmask.figures.style import new_figure
from dppmask.figures.table import Column, Table
from dppmask.training.environment import describe_environment

NASTY = "<script>alert('1') & \"2\"</script>"


def page(**changes):
    sections = [
        Section("First & foremost", [Text(f"One `code`.\n\nTwo {NASTY}"), Facts({NASTY: NASTY})]),
        Section("Second", [Picture(new_figure(1, 1), NASTY), Commands([f"dppmask masks --out {NASTY}"])]),
        Section("Third", [Table([Column("name", NASTY)], [{"name": NASTY}], title=NASTY, note=NASTY)]),
    ]
    return render_report(
        **{
            "title": f"A title {NASTY}",
            "sections": sections,
            "lead": [Headline({NASTY: "1 %"})],
            "environment": describe_environment(),
        }
        | changes
    )


def parsed(html):
    assert html.startswith("<!DOCTYPE html>\n")
    return ET.fromstring(html.removeprefix("<!DOCTYPE html>\n"))


def test_the_page_is_well_formed_and_nothing_from_outside_is_markup():
    root = parsed(page())
    assert root.find(".//script") is None
    assert root.findtext("head/title") == f"A title {NASTY}"
    assert root.findtext("body/header/h1") == f"A title {NASTY}"
    assert root.find(".//img").get("alt") == NASTY
    assert "".join(root.find(".//pre").itertext()) == f"dppmask masks --out {NASTY}"
    assert [p.text for p in root.find(".//section").findall("p")] == ["One ", f"Two {NASTY}"]
    assert root.findtext(".//section/p/code") == "code"


def test_the_page_needs_nothing_else():
    html = page()
    root = parsed(html)
    for element in root.iter():
        for name in ("src", "href", "srcset", "data", "poster", "action"):
            assert re.match(r"(data:image/png;base64,|#)", element.get(name, "#")), element.attrib
    assert {element.tag for element in root.iter()}.isdisjoint({"link", "script", "iframe", "object"})
    assert "url(" not in html
    assert "@import" not in html
    picture = base64.b64decode(root.find(".//img").get("src").partition(",")[2])
    assert picture.startswith(b"\x89PNG")


def test_headings_are_in_order_and_the_contents_lead_to_them():
    root = parsed(page())
    assert [h.text for h in root.findall("body/main/section/h2")] == ["First & foremost", "Second", "Third"]
    targets = [a.get("href") for a in root.findall(".//nav//a")]
    assert targets == [f"#{section.get('id')}" for section in root.findall(".//section")]
    assert len(set(targets)) == 3


def test_the_page_fits_small_screens_and_dark_ones():
    html = page()
    assert 'name="viewport"' in html
    assert "prefers-color-scheme: dark" in html


def test_the_foot_says_what_it_was_made_with():
    environment = describe_environment() | {"commit": "abc123"}
    footer = "".join(parsed(page(environment=environment)).find("body/footer").itertext())
    assert "abc123" in footer
    assert environment["hardware"]["cpu"] in footer
    assert environment["versions"]["torch"] in footer
    assert environment["command"] in footer


def test_an_environment_may_be_incomplete():
    assert environment_facts({})["commit"] == "not in a checkout"
    assert "took" not in environment_facts({})


def test_how_long_it_took_is_told():
    assert environment_facts({"seconds": 754})["took"] == "0:12:34"
    assert parsed(page(environment=None)).find("body/footer") is not None


def test_a_report_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = write_report(tmp_path / "report.html", title="Old", sections=[])
    old = path.read_bytes()

    def fail(*_):
        raise OSError("no")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no"):
        write_report(path, title="New", sections=[])
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("name", "words"), [("a.pdf", ".html"), ("nowhere/a.html", "there is no folder")])
def test_a_place_that_cannot_be_written_is_refused(tmp_path, name, words):
    with pytest.raises(UserError, match=words):
        write_report(tmp_path / name, title="", sections=[])
