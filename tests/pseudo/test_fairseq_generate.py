"""``fairseq-generate --task translation_seqkd --pseudo-targets DIR``, by the real command."""

import os

import pytest
from conftest import EMPTY, LONG, USER_DIR, all_nbest, free_port, load_split
from processes import fairseq, output_of, start

from fairseq_seqkd.cli.main import main
from fairseq_seqkd.io.files import read_json
from fairseq_seqkd.pseudo.store import PseudoTargetStore

BEAM = ["--beam", 4, "--nbest", 3]
LONGEST = 59  # tokens with EOS, of the tests' teacher


def flags(data, teacher, *arguments, task="translation_seqkd"):
    return [
        *[data, "--user-dir", USER_DIR, "--task", task, "--path", teacher],
        *["--gen-subset", "train", "--cpu", "--skip-invalid-size-inputs-valid-test"],
        *["--required-batch-size-multiple", 1, "--num-workers", 0, *BEAM, *arguments],
    ]


def generate(*arguments, fails=False, **options):
    return fairseq("generate", *flags(*arguments, **options), fails=fails)


def printed(output, *kinds):
    """{kind-id: the fields of its lines}, in the order of the output."""
    found = {}
    for line in output.split("\n"):
        if line[:2] in kinds:
            name, *fields = line.split("\t")
            found.setdefault(name, []).append(fields)
    return found


@pytest.fixture(scope="module")
def filled(data, teacher, tmp_path_factory):
    """The folder of a store that fairseq-generate filled, and what it printed."""
    root = tmp_path_factory.mktemp("filled") / "store"
    return root, generate(data, teacher, "--pseudo-targets", root)


def test_store_equals_that_of_fairseq_seqkd_generate(filled, data, teacher, tmp_path):
    main(
        ["generate", str(data), "--teacher-path", str(teacher), "--engine", "fairseq"]
        + ["--pseudo-targets", str(tmp_path / "ours"), *map(str, BEAM), "--threads", "1"]
    )
    ours, theirs = PseudoTargetStore(str(tmp_path / "ours")), PseudoTargetStore(str(filled[0]))
    assert ours.manifest == theirs.manifest
    assert [os.path.basename(p) for p in ours.chunks.find().values()] == [
        os.path.basename(p) for p in theirs.chunks.find().values()
    ]
    targets = [load_split(one.path("best")).dataset.tgt for one in (ours, theirs)]
    assert [t.tolist() for t in targets[0]] == [t.tolist() for t in targets[1]]


def test_it_prints_what_stock_prints(filled, data, teacher):
    stock = generate(data, teacher, task="translation")
    ours, theirs = (printed(one, "S-", "T-", "H-", "D-") for one in (filled[1], stock))
    # A hypothesis that is EOS alone, or was cut at the longest length, is no translation.
    for name in [f"{kind}-{EMPTY}" for kind in "HD"]:
        theirs[name] = [["-inf", ""]]
    for name, lines in theirs.items():
        if name[0] in "HD":
            finished = [fields for fields in lines if len(fields[1].split()) < LONGEST]
            theirs[name] = finished or [["-inf", ""]]
    assert list(ours) == list(theirs) and f"S-{LONG}" not in ours
    for name in theirs:
        assert [fields[-1] for fields in ours[name]] == [fields[-1] for fields in theirs[name]]
        if name[0] == "H":
            for (one, _), (other, _) in zip(ours[name], theirs[name]):
                assert float(one) == pytest.approx(float(other), abs=1e-4)


def test_a_sentence_without_a_hypothesis_is_printed_as_such(filled):
    assert printed(filled[1], "H-")[f"H-{EMPTY}"] == [["-inf", ""]]


def test_a_finished_store_is_read_and_not_decoded_again(filled, data, teacher):
    before = os.stat(filled[0] / "manifest.json").st_mtime_ns
    again = generate(data, teacher, "--pseudo-targets", filled[0])
    assert printed(again, "H-", "D-") == printed(filled[1], "H-", "D-")
    assert "translates" not in again and "translates 160 sentences" in filled[1]
    assert os.stat(filled[0] / "manifest.json").st_mtime_ns == before


def test_two_processes(filled, data, teacher, tmp_path):
    shared = ["--distributed-world-size", 2, "--distributed-no-spawn"]
    shared += ["--distributed-backend", "gloo"]
    shared += ["--distributed-init-method", f"tcp://127.0.0.1:{free_port()}"]
    store = ["--pseudo-targets", tmp_path / "store"]
    running = [
        start(
            "generate",
            # Stock fairseq fails if a process has no batch.
            *flags(data, teacher, *store, "--batch-size", 16, *shared),
            *["--distributed-rank", rank],
        )
        for rank in range(2)
    ]
    outputs = [output_of(process) for process in running]
    both = {**printed(outputs[0], "H-"), **printed(outputs[1], "H-")}
    assert both == printed(filled[1], "H-")
    assert all_nbest(tmp_path / "store").keys() == all_nbest(filled[0]).keys()
    assert read_json(tmp_path / "store" / "best" / "target_spec.json") == read_json(
        filled[0] / "best" / "target_spec.json"
    )


@pytest.mark.parametrize(
    "options, named", [(["--prefix-size", 1], "--prefix-size"), (["--unkpen", 1], "--unkpen")]
)
def test_options_that_a_store_does_not_have_are_refused(
    data, teacher, tmp_path, options, named
):
    output = generate(
        data, teacher, "--pseudo-targets", tmp_path / "store", *options, fails=True
    )
    assert f"--pseudo-targets with {named}: a store supports only --beam" in output
    assert not (tmp_path / "store").exists()
