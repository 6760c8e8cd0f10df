"""The files of a report; a real browser shows the page, if there is one."""

import csv
import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict

import pytest

from fairseq_seqkd.evaluate import files
from fairseq_seqkd.evaluate.page import render_page
from fairseq_seqkd.evaluate.plots import plot_report
from fairseq_seqkd.evaluate.report import ModelSummary, Report, Row
from fairseq_seqkd.evaluate.table import decoding_rows, model_rows, render_markdown, tables

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
)


@pytest.fixture(scope="module")
def written(report, tmp_path_factory):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    folder = tmp_path_factory.mktemp("report") / "new"
    report.command = "fairseq-seqkd evaluate data-bin --checkpoints 'a b=<x>.pt'"
    report.curves = {"student": {"bleu": [(1, 3.0), (2, 4.0)], "loss": [(1, 9.0), (2, 8.0)]}}
    return folder, files.write_report(report, str(folder))


def test_files(written):
    folder, names = written
    assert sorted(names) == sorted(path.name for path in folder.iterdir())
    assert sorted(names) == [
        *("length.png", "length.svg", "report.csv", "report.html", "report.json", "report.md"),
        *("size.png", "size.svg", "speed.png", "speed.svg"),
        *("training-bleu.png", "training-bleu.svg", "training-loss.png", "training-loss.svg"),
    ]


def test_json_has_all_fields(written, report):
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
        expected = "" if row.gain is None else str(row.gain["low"])
        assert line["gain_low"] == expected


def test_markdown_has_tables_plots_and_commands(written, report):
    text = (written[0] / "report.md").read_text()
    assert text.startswith(render_markdown(report))
    for plot in re.findall(r"!\[.*\]\((.*)\)", text):
        assert (written[0] / plot).exists()
    assert report.command in text
    assert all(row.command in text for row in report.rows)


def test_tables_hold_the_numbers(report):
    cells = decoding_rows(report)
    for row, cell in zip(report.rows, cells):
        assert cell["BLEU"] == f"{row.bleu:.2f}" and cell["model"] == row.model
        if row is report.baseline:
            assert cell["gain over teacher, beam 3 [95 %]"] == "" and cell["speedup"] == "1.0"
    assert cells[0]["decoding"] == "greedy" and cells[1]["decoding"] == "beam 3"
    first = model_rows(report)[0]
    assert first["compression"] == "1.0"
    assert first["non-zero parameters"] == f"{report.models[0].nonzero_parameters:,}"
    markdown = render_markdown(report)
    assert "all 20 lines" in markdown and "tok:13a" in markdown
    assert markdown.splitlines()[0].split("|")[1].strip() == "model"


def test_the_page_fetches_nothing(written):
    page = (written[0] / "report.html").read_text()
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)[^"']*""", page)
    assert "url(http" not in page and "@import" not in page
    assert "&#39;a b=&lt;x&gt;.pt&#39;" in page  # what a user typed stays text
    used = set(re.findall(r"url\(#([^)]+)\)", page))
    assert len(used) == 5  # the plots do not share clip paths
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
    every_table = [table for _, table in tables(report)]
    assert len(every_table) == 3  # of the rows, of defects with those of references, of models
    n_sentences = len(report.side_by_side.sentences)
    assert len(rows) == 3 + 2 * len(report.rows) + 1 + len(report.models) + 1 + n_sentences
    for row in report.rows:
        assert any(row.model in line and f"{row.bleu:.2f}" in line for line in rows)
    assert len(re.findall(r"<figure id=.*?<svg.*?<path.*?</svg>", shown.stdout, re.DOTALL)) == 5
    screenshot = tmp_path / "page.png"
    subprocess.run(
        [*browser, f"--screenshot={screenshot}", page], stderr=subprocess.DEVNULL, check=True
    )
    from matplotlib.image import imread

    pixels = (imread(screenshot)[..., :3] * 255).astype(int)
    assert pixels.shape[1] == 1200
    colours = {tuple(colour) for colour in pixels[500:].reshape(-1, 3)[::7]}
    assert len(colours) > 20  # the plots are not blank


def test_without_matplotlib_there_are_no_plots(report, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    names = files.write_report(report, str(tmp_path))
    assert sorted(names) == ["report.csv", "report.html", "report.json", "report.md"]
    assert "pip install matplotlib" in caplog.text
    assert "pip install matplotlib" in (tmp_path / "report.html").read_text()


def test_without_jinja2_there_is_no_page(report, tmp_path, monkeypatch, caplog):
    pytest.importorskip("matplotlib")
    monkeypatch.setitem(sys.modules, "jinja2", None)
    names = files.write_report(report, str(tmp_path))
    assert {"report.csv", "report.json", "report.md", "speed.svg"} <= set(names)
    assert "report.html" not in names and not (tmp_path / "report.html").exists()
    assert "pip install jinja2" in caplog.text
    assert (
        "- The report has no HTML page: jinja2 is not " in (tmp_path / "report.md").read_text()
    )


def test_a_plot_that_fails_costs_no_numbers(report, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "plot_report", lambda report: 1 / 0)
    assert "report.json" in files.write_report(report, str(tmp_path))
    notes = json.loads((tmp_path / "report.json").read_text())["notes"]
    assert "The report has no plots: division by zero." in notes
    assert notes[:-1] == report.notes


def test_names_with_special_characters():
    row = Row("a|b$c$<d>", "fairseq", "cpu", 1, 1, 8, "", sentences=1, seconds=[[1.0]])
    row.bleu_by_length = [1.0]
    model = ModelSummary(row.model, "x.pt", "data", 2, 2, 8)
    signatures = {"BLEU": "s", "chrF": "s"}
    report = Report("test", 1, [model], [row], signatures, length_groups=[(1, 2)])
    markdown = render_markdown(report).splitlines()
    assert markdown[2].startswith(r"| a\|b$c$<d> |")
    assert r"gain over a\|b$c$<d>, greedy [95 %]" in markdown[0]
    page = render_page(report, {})
    assert page.count('<td class="left">a|b$c$&lt;d&gt;</td>') == 2 and "<d>" not in page
    assert "svg" in plot_report(report)["speed"].svg
