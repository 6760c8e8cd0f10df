"""The page of claims and the reports that it is made from."""

import importlib.util
import re
import subprocess
import sys

import pytest
from conftest import ROOT

FOLDER = ROOT / "examples" / "multi30k"
RESULTS = FOLDER / "results"


@pytest.fixture(scope="module")
def claims():
    spec = importlib.util.spec_from_file_location("claims", FOLDER / "claims.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "bleu, low, high, target, verdict",
    [
        (1.0, 0.2, 1.8, 0, "reached"),
        (1.0, -0.2, 2.2, 0, "reached, interval includes target"),
        (-0.1, -1.0, 0.8, 0, "not reached, interval includes target"),
        (-1.0, -1.8, -0.2, 0, "not reached"),
        (0.0, 0.0, 0.0, 0, "not reached"),
        (-0.3, -0.35, 0.4, -0.4, "reached"),
        (-0.3, -1.0, 0.4, -0.4, "reached, interval includes target"),
        (1.0, 0.2, 1.3, 1.4, "not reached"),
    ],
)
def test_verdicts(claims, bleu, low, high, target, verdict):
    assert claims.verdict_on({"bleu": bleu, "low": low, "high": high}, target) == verdict


def test_the_page_is_made_from_the_reports():
    command = [sys.executable, FOLDER / "claims.py", RESULTS]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert output.strip() in (RESULTS / "README.md").read_text()


def test_every_number_leads_to_a_command():
    links = re.findall(r"\]\(([^)#]+)\)", (RESULTS / "README.md").read_text())
    texts = [link for link in links if link.endswith((".md", ".log"))]
    assert len(texts) > 20
    for link in texts:
        assert "fairseq-" in (RESULTS / link).read_text(), link
    for link in links:
        assert (RESULTS / link).exists(), link
