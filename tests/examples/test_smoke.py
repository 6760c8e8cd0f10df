"""Every recipe with SMOKE=1: all of its steps in tiny, on made-up text, without a network."""

import os
import re
import subprocess
import sys

from conftest import ROOT, load_split

# What Slurm does, on this machine: two nodes for the jobs that are the same on one.
SLURM = {
    "sbatch": """
        export SLURM_JOB_ID=$$ SLURM_NTASKS=1 SLURM_CPUS_PER_TASK=1 SLURM_JOB_NODELIST=both
        while [[ $1 == --* ]]; do
            case $1,$2 in
                --wait,*) shift; continue ;;
                --job-name,*-teacher | --job-name,*-translate) SLURM_NTASKS=2 ;;
                --job-name,*-cache) SLURM_NTASKS=2 ;;
            esac
            shift 2
        done
        SLURM_JOB_NUM_NODES=$SLURM_NTASKS exec bash "$@"
    """,
    "scontrol": 'printf "localhost\\nlocalhost\\n"',
    "srun": """
        while [[ $1 == --* ]]; do shift; done
        for ((task = 0; task < SLURM_NTASKS; task++)); do
            SLURM_PROCID=$task "$@" &
            tasks+=($!)
        done
        for task in "${tasks[@]}"; do wait "$task"; done
    """,
}


def run(script, programs=None, **settings):
    """What a script prints, with the programs of a folder before all others."""
    path = [programs, os.path.dirname(sys.executable), os.environ["PATH"]]
    path = os.pathsep.join(str(folder) for folder in path if folder)
    nowhere = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy")}
    result = subprocess.run(
        ["bash", ROOT / "examples" / script],
        env={**os.environ, "PATH": path, **nowhere, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def smoke(recipe, work, programs=None, **settings):
    """What a recipe prints."""
    output = run(f"{recipe}/distill.sh", programs, SMOKE="1", WORK=str(work), **settings)
    assert not list(work.glob("*.new"))
    return output


def rows(output):
    """The cells of all lines of all tables."""
    lines = [line for line in output.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def decoded(output):
    """Names in the table of an evaluation, if each has a row for both ways of decoding."""
    found = {
        way: [row[0] for row in rows(output) if way in row] for way in ("greedy", "beam 5")
    }
    assert found["greedy"] == found["beam 5"]
    return found["greedy"]


def slurm(folder):
    """A folder with Slurm's programs."""
    folder.mkdir()
    for name, script in SLURM.items():
        (folder / name).write_text("#!/usr/bin/env bash\nset -e\n" + script)
        (folder / name).chmod(0o755)
    return folder


def test_iwslt14(tmp_path):
    methods = ["no distillation", "Seq-KD", "ImitKD", "ImitKD + Full", "ImitKD*"]
    assert decoded(smoke("iwslt14", tmp_path)) == ["teacher", *methods]
    # The second kind of student finds what the first has left.
    output = smoke("iwslt14", tmp_path, STUDENT="rnn", METHODS="imit_kd_full")
    assert decoded(output) == ["teacher", "ImitKD + Full"]
    assert re.findall("^== (.*)", output, re.M) == [
        "ImitKD + Full: the teacher's distribution",
        "the table, on the test set",
    ]


def test_wmt14_on_nodes(tmp_path):
    output = smoke("wmt14", tmp_path / "work", slurm(tmp_path / "slurm"), MODEL="transformer")
    assert decoded(output) == [
        *["teacher", "no distillation", "Seq-KD", "Seq-KD + Seq-Inter + Word-KD"],
        *["Seq-KD, 0.8 pruned", "Seq-KD + Seq-Inter, 0.8 pruned"],
    ]
    logs = tmp_path / "work" / "logs"
    assert "training on 2 devices" in (logs / "transformer-teacher.log").read_text()
    pruned = (logs / "transformer-pruned-0.8.log").read_text()
    assert re.findall(r"sparsity ([\d.]+)", pruned)[-1].startswith("80")


def test_wmt14_without_slurm(tmp_path):
    output = smoke("wmt14", tmp_path, METHODS="seq_kd")
    assert decoded(output) == ["teacher", "Seq-KD"]


def test_language_model(tmp_path):
    names, parameters, perplexities = zip(*rows(smoke("language_model", tmp_path))[1:])
    assert names == ("teacher", "no distillation", "Word-KD")
    teacher, *students = (int(number.replace(",", "")) for number in parameters)
    assert students[0] == students[1] < teacher
    # A uniform distribution over the dictionary would have its size.
    words = len((tmp_path / "data-bin" / "dict.txt").read_text().splitlines())
    assert all(1 < float(perplexity) < words for perplexity in perplexities)


def test_multi30k(tmp_path):
    output = run("multi30k/claims.sh", SMOKE="1", WORK=str(tmp_path), OUT=str(tmp_path / "out"))
    assert not list(tmp_path.glob("**/*.new"))
    methods = ["no distillation", "ImitKD + Full", "Seq-KD", "Seq-KD + Seq-Inter"]
    table = rows(output)
    assert [row[0] for row in table if row[3].startswith("[0](logs/")] == methods
    # Whatever a line is from is there, and says nothing of this machine.
    sources = set(re.findall(r"\]\(([^)]+\.(?:md|log))\)", output))
    assert len(sources) == 10
    for source in sources:
        text = (tmp_path / "out" / source).read_text()
        assert "fairseq-" in text and str(tmp_path) not in text
    # Again: all is there.
    output = run("multi30k/claims.sh", SMOKE="1", WORK=str(tmp_path), OUT=str(tmp_path / "out"))
    assert re.findall("^== (.*),", output, re.M) == ["published and measured"]
    assert rows(output) == table


def test_pseudo_targets_on_nodes(data, teacher, tmp_path):
    slurm_sets = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_CPUS_PER_TASK": "1"}
    own = {"DATA": str(data), "TEACHER": str(teacher), "STORE": str(tmp_path / "store")}
    output = run(
        "slurm/generate_nodes.sbatch",
        slurm(tmp_path / "slurm"),
        FLAGS="--beam 2",
        **own,
        **slurm_sets,
    )
    assert "sentences translated by the teacher" in output
    assert len(load_split(tmp_path / "store" / "best").dataset) == 160
