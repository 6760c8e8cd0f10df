"""Every recipe with SMOKE=1: all steps, with tiny models and synthetic text, offline."""

import re
import shutil

from conftest import CTRANSLATE2, load_split
from recipes import rows_of, run_script, scores_of

from fairseq_seqkd.io.files import read_json

# Substitutes for Slurm's programs, which run jobs on this machine. Jobs whose result does not
# depend on the number of nodes get two.
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


def smoke(recipe, work, programs=None, **settings):
    """Run a recipe in a folder; returns its output."""
    output = run_script(f"{recipe}/distill.sh", programs, SMOKE=1, WORK=work, **settings)
    assert not list(work.glob("*.new"))
    return output


def decoded(output):
    """The names in an evaluation's table; each has a row for greedy decoding and for beam 5."""
    greedy, beam = (
        [row[0] for row in scores_of(output) if search in row]
        for search in ("greedy", "beam 5")
    )
    assert greedy == beam
    return greedy


def decoded_greedily(output):
    """The names in an evaluation's table of greedy rows."""
    return [row[0] for row in scores_of(output)]


def slurm(folder):
    """Make a folder with the substitutes for Slurm's programs."""
    folder.mkdir()
    for name, script in SLURM.items():
        (folder / name).write_text("#!/usr/bin/env bash\nset -e\n" + script)
        (folder / name).chmod(0o755)
    return folder


def test_iwslt14(tmp_path):
    methods = ["no distillation", "Seq-KD", "ImitKD", "ImitKD + Full", "ImitKD*"]
    assert decoded(smoke("iwslt14", tmp_path)) == ["teacher", *methods]
    # The second kind of student reuses the data and the teacher of the first.
    output = smoke("iwslt14", tmp_path, STUDENT="rnn", METHODS="imit_kd_full")
    assert decoded(output) == ["teacher", "ImitKD + Full"]
    assert re.findall("^== (.*)", output, re.M) == [
        "ImitKD + Full: the teacher's distribution",
        "the table of results on the test set",
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
    names, parameters, perplexities = zip(*rows_of(smoke("language_model", tmp_path))[1:])
    assert names == ("teacher", "no distillation", "Word-KD")
    teacher, *students = (int(number.replace(",", "")) for number in parameters)
    assert students[0] == students[1] < teacher
    # The perplexity of a uniform distribution is the size of the dictionary.
    words = len((tmp_path / "data-bin" / "dict.txt").read_text().splitlines())
    assert all(1 < float(perplexity) < words for perplexity in perplexities)


def test_speech_to_text(tmp_path):
    names, parameters, bleu = zip(*rows_of(smoke("speech_to_text", tmp_path))[1:])
    of_text = ("Word-KD from text", "Seq-KD from text", "Word-KD from a language model")
    assert names == ("teacher", "no distillation", "Word-KD", "ImitKD + Full", *of_text)
    teacher, *students = (int(number.replace(",", "")) for number in parameters)
    assert len(set(students)) == 1 and students[0] < teacher
    assert all(0 <= float(score) < 100 for score in bleu)
    logs = tmp_path / "logs"
    assert "student_rows" in (logs / "imit_kd.log").read_text()
    for name in ("word_kd_text", "word_kd_lm"):
        assert "kd_loss" in (logs / f"{name}.log").read_text()
    assert "utterances with the teacher's target" in (logs / "pseudo-generate.log").read_text()


@CTRANSLATE2
def test_multi30k(tmp_path):
    settings = {"SMOKE": 1, "WORK": tmp_path, "OUT": tmp_path / "out"}
    output = run_script("multi30k/claims.sh", **settings)
    assert not list(tmp_path.glob("**/*.new"))
    table = rows_of(output)
    assert {row[0] for row in table} > {
        "best distilled student over no distillation, bitext, greedy",
        "Seq-KD over no distillation, both on the teacher's text, beam 5",
    }
    kept = tmp_path / "out"
    assert "[no distillation, bitext](logs/evaluate-none.wide.1.log)" in output
    # The sources of all lines exist, and do not name paths of this machine.
    sources = set(re.findall(r"\]\((logs/[^)]+)\)", output))
    assert len(sources) > 12
    for source in sources:
        text = (kept / source).read_text()
        assert "fairseq-" in text and str(tmp_path) not in text
    # A line of the bitext stands among the captions, and is left out.
    lines = read_json(tmp_path / "captions-store" / "text" / "text.json")["lines"]
    assert lines["excluded"] > 0 and lines["kept"] > 300
    # Run again, it skips all steps, on another machine too: the kept rows suffice.
    again = run_script("multi30k/claims.sh", **settings)
    assert re.findall("^== (.*),", again, re.M) == ["published and measured results"]
    assert rows_of(again) == table
    shutil.rmtree(tmp_path / "none.wide.1")
    assert rows_of(run_script("multi30k/claims.sh", **settings)) == table


def test_pseudo_targets_on_nodes(data, teacher, tmp_path):
    of_slurm = {"SLURM_JOB_ID": 7, "SLURM_NTASKS": 2, "SLURM_CPUS_PER_TASK": 1}
    settings = {"DATA": data, "TEACHER": teacher, "STORE": tmp_path / "store"}
    output = run_script(
        "slurm/generate_nodes.sbatch",
        slurm(tmp_path / "slurm"),
        FLAGS="--beam 2 --accept-unfinished 1",
        **settings,
        **of_slurm,
    )
    assert "sentences translated by the teacher" in output
    assert len(load_split(tmp_path / "store" / "best").dataset) == 160


def test_near_policy(tmp_path):
    settings = {"SMOKE": 1, "WORK": tmp_path}
    output = run_script("near_policy.sh", **settings)
    assert not list(tmp_path.glob("**/*.new"))
    head, *rounds = rows_of((tmp_path / "rounds.md").read_text())
    assert [row[0] for row in rounds] == ["1", "2"]
    columns = [dict(zip(head, row)) for row in rounds]
    # The second round's text is of the student that the first one trained.
    assert [row["text of update"] for row in columns] == ["0", "6"]
    assert [row["trained to update"] for row in columns] == ["6", "12"]
    assert "round 2: text of the student of update 6, stale by 6 updates" in output
    for row in columns:
        assert float(row["teacher's score"]) < 0 and float(row["validation BLEU"]) >= 0
        assert int(row["rejected"]) == 3 and int(row["mixed in"]) == 15
        assert int(row["pairs"]) == 72 and float(row["read"].split()[0]) > 1
    # Optimizer and learning rate go on: only the first round warms up.
    log = (tmp_path / "logs" / "student-2.log").read_text()
    rates = re.findall(r"num_updates (\d+) \| lr ([\d.e-]+)", log)
    assert rates == [("10", "0.0001"), ("12", "0")]
    assert re.search(r"student-1/checkpoint_last.pt \(epoch \d @ 6 updates\)", log)
    # Run again, it makes what is missing, and nothing else.
    shutil.rmtree(tmp_path / "student-2")
    again = run_script("near_policy.sh", **settings)
    assert re.findall("^== (.*)", again, re.M) == ["round 2 of 2: 6 updates", "all rounds"]
    assert rows_of((tmp_path / "rounds.md").read_text()) == [head, *rounds]


def test_near_policy_without_its_settings(tmp_path):
    output = run_script("near_policy.sh", fails=True, WORK=tmp_path, DATA=tmp_path)
    assert "TEACHER is not set: see the head of" in output


def test_compare_methods(tmp_path):
    """Every method trains, and the table has a row and a gain over the control for each."""
    output = run_script("compare_methods.sh", SMOKE=1, WORK=tmp_path)
    methods = ["word_kd", "imit_kd", "gkd", "skew_kl", "skd", "switch", "tie_kd"]
    assert decoded_greedily(output) == ["warm-start", *methods]
    assert "gain over word_kd, greedy" in output
    for method in methods:
        log = (tmp_path / "logs" / f"{method}.1.log").read_text()
        assert "num_updates 4" in log and "random weights" not in log
    # Run again, it compares what is there.
    again = run_script("compare_methods.sh", SMOKE=1, WORK=tmp_path)
    assert [line for line in again.splitlines() if line.startswith("== ")] == [
        "== greedy decoding and beam search of the validation set"
    ]


def test_compare_methods_refuses_another_name(tmp_path):
    settings = dict(SMOKE=1, WORK=tmp_path, METHODS="word_kd reinforce")
    output = run_script("compare_methods.sh", fails=True, **settings)
    assert "METHODS has reinforce, expected some of the names" in output
