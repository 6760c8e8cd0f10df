"""The report's files; the page is looked at by a real browser, if there is one."""

import csv
import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict

import pytest

from fairseq_seqkd.evaluate import files
from fairseq_seqkd.evaluate.report import Model, Report, Row
from fairseq_seqkd.evaluate.table import decoding, markdown, models, tables

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
)


@pytest.fixture(scope="module")
def written(report, tmp_path_factory):
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("report") / "new"
    report.command = "fairseq-seqkd evaluate data-bin --checkpoints 'a b=<x>.pt'"
    report.curves = {"student": {"bleu": [(1, 3.0), (2, 4.0)], "loss": [(1, 9.0), (2, 8.0)]}}
    return folder, files.write(report, str(folder))


def test_what_there_is(written):
    folder, names = written
    assert sorted(names) == sorted(path.name for path in folder.iterdir())
    assert sorted(names) == [
        *("length.svg", "report.csv", "report.html", "report.json", "report.md"),
        *("size.svg", "speed.svg", "training-bleu.svg", "training-loss.svg"),
    ]


def test_json_has_everything(written, report):
    found = json.loads((written[0] / "report.json").read_text())
    assert found == json.loads(json.dumps(asdict(report)))
    assert found["rows"][0]["command"].startswith("fairseq-generate ")


def test_csv_has_a_line_a_row(written, report):
    with open(written[0] / "report.csv") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(report.rows)
    for line, row in zip(lines, report.rows):
        assert float(line["bleu"]) == row.bleu
        assert float(line["sentences_per_second"]) == row.sentences_per_second
        assert int(line["parameters"]) == report.model(row.model).parameters
        expected = "" if row.difference is None else str(row.difference["low"])
        assert line["difference_low"] == expected


def test_markdown_has_tables_pictures_and_commands(written, report):
    text = (written[0] / "report.md").read_text()
    assert text.startswith(markdown(report))
    for picture in re.findall(r"!\[.*\]\((.*)\)", text):
        assert (written[0] / picture).exists()
    assert report.command in text
    assert all(row.command in text for row in report.rows)


def test_tables_tell_the_numbers(report):
    cells = decoding(report)
    for row, cell in zip(report.rows, cells):
        assert cell["BLEU"] == f"{row.bleu:.2f}" and cell["model"] == row.model
        if row is report.first:
            assert cell["more [95 %]"] == "" and cell["times faster"] == "1.0"
    assert cells[0]["decoding"] == "greedy" and cells[1]["decoding"] == "beam 3"
    assert models(report)[0]["times fewer"] == "1.0"
    assert "all 20 lines" in markdown(report) and "tok:13a" in markdown(report)
    assert tables(report)[0].splitlines()[0].split("|")[1].strip() == "model"


def test_the_page_fetches_nothing(written):
    page = (written[0] / "report.html").read_text()
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)[^"']*""", page)
    assert "url(http" not in page and "@import" not in page
    assert "&#x27;a b=&lt;x&gt;.pt&#x27;" in page  # what a user typed stays text
    used = set(re.findall(r"url\(#([^)]+)\)", page))
    assert len(used) == 5  # one picture's clipping is not another's
    assert all(page.count(f'id="{name}"') == 1 for name in used)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_a_browser_shows_it(written, report, tmp_path):
    browser = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
        *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
        *(
            "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1200,3000",
        ),
        *("--enable-logging=stderr", "--v=0", "--host-resolver-rules=MAP * ~NOTFOUND"),
    ]
    page = f"file://{written[0] / 'report.html'}"
    shown = subprocess.run(
        [*browser, "--dump-dom", page],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "CONSOLE" not in shown.stderr
    rows = re.findall(r"<tr>(.*?)</tr>", shown.stdout, re.DOTALL)
    assert len(rows) == 2 + len(report.rows) + len(report.models)
    for row in report.rows:
        assert any(row.model in one and f"{row.bleu:.2f}" in one for one in rows)
    assert len(re.findall(r"<figure id=.*?<svg.*?<path.*?</svg>", shown.stdout, re.DOTALL)) == 5
    picture = tmp_path / "page.png"
    subprocess.run(
        [*browser, f"--screenshot={picture}", page], stderr=subprocess.DEVNULL, check=True
    )
    from matplotlib.image import imread

    pixels = (imread(picture)[..., :3] * 255).astype(int)
    assert pixels.shape[1] == 1200
    colours = {tuple(colour) for colour in pixels[500:].reshape(-1, 3)[::7]}
    assert len(colours) > 20  # the pictures are there, not blank


def test_without_matplotlib_the_rest_is_made(report, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    names = files.write(report, str(tmp_path))
    assert sorted(names) == ["report.csv", "report.html", "report.json", "report.md"]
    assert "pip install matplotlib" in caplog.text
    assert "pip install matplotlib" in (tmp_path / "report.html").read_text()


def test_a_picture_that_fails_costs_no_numbers(report, tmp_path, monkeypatch):
    monkeypatch.setattr(files.plots, "draw", lambda report: 1 / 0)
    assert "report.json" in files.write(report, str(tmp_path))
    notes = json.loads((tmp_path / "report.json").read_text())["notes"]
    assert "There are no pictures: division by zero." in notes
    assert notes[:-1] == report.notes


def test_names_with_marks_of_their_own():
    row = Row("a|b$c$<d>", "fairseq", "cpu", 1, 1, 8, "", sentences=1, seconds=[[1.0]])
    row.bleu_by_length = [1.0]
    model = Model(row.model, "x.pt", "data", 2, 2, 8)
    signatures = {"BLEU": "s", "chrF": "s"}
    report = Report("test", 1, [model], [row], signatures, length_groups=[(1, 2)])
    assert r"a\|b$c$<d>" in tables(report)[0]
    assert "a|b$c$&lt;d&gt;" in tables(report, "html")[0]
    assert "svg" in files.plots.draw(report)["speed"]
