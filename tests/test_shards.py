"""``DATA1:DATA2``: fairseq trains on one data-bin an epoch, with a store or a cache each."""

import shutil

import pytest
import torch
from conftest import (
    HALF_SEARCH,
    HALF_SIZE,
    RESUMES,
    TINY,
    TRAINING,
    USER_DIR,
    all_nbest,
    colons,
    files,
    logged,
    make_cache,
    train,
)
from processes import fairseq
from test_commands import parameters

from fairseq_seqkd.cli.main import main


@pytest.fixture
def second(halves, data, tmp_path):
    """The second data-bin by itself, with its own copies of the dictionaries."""
    folder = shutil.copytree(halves[1], tmp_path / "second")
    for side in ("src", "tgt"):
        shutil.copy(data / f"dict.{side}.txt", folder)
    return folder


def test_each_store_is_the_one_of_its_data_bin_alone(half_stores, second, teacher, tmp_path):
    flags = ["--pseudo-targets", tmp_path / "store", "--teacher-path", teacher, "--threads", 1]
    words = "generate", second, *flags, *HALF_SEARCH
    main([str(word) for word in words])
    found, expected = files(half_stores[1]), files(tmp_path / "store")
    for names in (found, expected):
        names.pop("best/preprocess.log")
    assert found == expected


def test_each_cache_is_the_one_of_its_data_bin_alone(half_caches, second, teacher, tmp_path):
    make_cache(tmp_path / "cache", second, teacher)
    assert files(half_caches[1]) == files(tmp_path / "cache")


def test_stock_fairseq_trains_on_their_data_bins(half_stores, tmp_path):
    databins = colons(*(store / "best" for store in half_stores))
    task = ["--task", "translation", "--criterion", "cross_entropy", "--max-epoch", "2"]
    log = fairseq("train", databins, *TRAINING, *TINY, *task, "--save-dir", tmp_path)
    assert "fairseq_seqkd" not in log
    for number, sentences in enumerate((HALF_SIZE, 160 - HALF_SIZE)):
        assert f"{half_stores[number]}/best train src-tgt {sentences} examples" in log


def test_merge_selects_in_all_of_them(halves, half_stores, tmp_path):
    stores = [shutil.copytree(store, tmp_path / store.name) for store in half_stores]
    words = "merge", colons(*halves), "--pseudo-targets", colons(*stores), "--select", "closest"
    main([*map(str, words), "--accept-unfinished", "0.5"])
    assert all((store / "closest" / "train.src-tgt.tgt.bin").exists() for store in stores)


@RESUMES
@pytest.mark.parametrize(
    "criterion, flags",
    [
        ("seq_kd", ["--pseudo-targets", "{stores}", "--gold-weight", "0.25"]),
        ("word_kd", ["--kd-cache", "{caches}"]),
        ("seq_kd", ["--pseudo-targets", "online", "--teacher-beam", "2"]),
    ],
)
def test_ten_updates_equal_five_resume_five(
    halves, half_stores, half_caches, teacher, tmp_path, criterion, flags
):
    """The restart is in the second data-bin; after it the first and the second come again."""
    folders = {"stores": colons(*half_stores), "caches": colons(*half_caches)}
    run = [
        *["--task", "translation_seqkd", "--criterion", criterion, "--dropout", "0.1"],
        *[flag.format(**folders) for flag in flags],
        *["--teacher-path", teacher, "--max-update", "10", "--save-interval-updates", "5"],
        *["--max-tokens", "800"],
        *["--accept-unfinished", "0.5"],
    ]
    log = train(colons(*halves), tmp_path / "unbroken", *run)
    (saved,) = (tmp_path / "unbroken").glob("checkpoint_*_5.pt")
    train(colons(*halves), tmp_path / "resumed", *run, "--restore-file", saved)
    unbroken, resumed = (
        parameters(tmp_path / name / "checkpoint_last.pt") for name in ("unbroken", "resumed")
    )
    assert all(torch.equal(unbroken[name], resumed[name]) for name in unbroken)
    assert {line["epoch"] for line in logged(log, "train_inner")} >= {1, 2, 3}


def test_the_teacher_makes_all_stores_before_the_first_update(halves, teacher, tmp_path):
    stores = tmp_path / "1", tmp_path / "2"
    train(
        *[colons(*halves), tmp_path / "run", "--task", "translation_seqkd"],
        *["--criterion", "seq_kd", "--teacher-path", teacher, "--teacher-engine", "fairseq"],
        *["--pseudo-targets", colons(*stores), "--teacher-beam", "3", "--max-update", "1"],
        *["--accept-unfinished", "0.5"],
    )
    sizes = [len(all_nbest(store)) for store in stores]
    assert sizes == [HALF_SIZE, 160 - HALF_SIZE]


def test_import_and_fairseq_generate_take_one_data_bin(halves, teacher, refused, tmp_path):
    both, stores = colons(*halves), colons(tmp_path / "1", tmp_path / "2")
    message = refused("import", both, teacher, "--pseudo-targets", stores)
    assert "expected one data-bin here, found 2" in message
    flags = ["--user-dir", USER_DIR, "--task", "translation_seqkd", "--path", teacher]
    flags.append("--skip-invalid-size-inputs-valid-test")
    output = fairseq(
        "generate",
        both,
        *flags,
        "--gen-subset",
        "train",
        "--pseudo-targets",
        stores,
        fails=True,
    )
    assert "expected one data-bin here, found 2" in output


@pytest.mark.parametrize(
    "command, flag", [("generate", "--pseudo-targets"), ("cache", "--kd-cache")]
)
def test_another_number_of_folders(halves, teacher, refused, tmp_path, command, flag):
    words = [command, colons(*halves), "--teacher-path", teacher, flag, tmp_path / "one"]
    message = refused(*words)
    assert (
        f"{flag} {str(tmp_path / 'one')!r}: found 1, expected 2: one folder for each" in message
    )


def test_other_dictionaries_in_the_second(halves, second, teacher, refused, tmp_path):
    with open(second / "dict.tgt.txt", "a") as file:
        file.write("more 1\n")
    for command, flag in (("generate", "--pseudo-targets"), ("cache", "--kd-cache")):
        folders = colons(tmp_path / "1", tmp_path / "2")
        both = colons(halves[0], second)
        message = refused(command, both, "--teacher-path", teacher, flag, folders)
        assert "dict.tgt.txt' (337 symbols) is not" in message
        assert "which fairseq uses for all data-bins" in message
