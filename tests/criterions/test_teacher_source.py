"""Teachers that read another source than the student, or none: ``--teacher-source``."""

import copy
import csv
import shutil

import pytest
import torch
from conftest import (
    CTRANSLATE2,
    LONG,
    S2T,
    TINY,
    all_nbest,
    batch_of,
    colons,
    files,
    logged,
    make_cache,
    tokens_of,
    train,
    without_dropout,
)
from fairseq.data import Dictionary, data_utils
from omegaconf import OmegaConf
from processes import fairseq

from fairseq_seqkd.cache.store import DistributionCache
from fairseq_seqkd.cli import main as cli
from fairseq_seqkd.criterions.config import DistillConfig
from fairseq_seqkd.criterions.distill import DistillCriterion
from fairseq_seqkd.decoding.search import SearchOptions
from fairseq_seqkd.models.language_tokens import config_of_task
from fairseq_seqkd.models.loading import load_models
from fairseq_seqkd.prefixes import PREFIXES, TrainingStep
from fairseq_seqkd.pseudo.online import with_pseudo_targets
from fairseq_seqkd.pseudo.selectors import Best
from fairseq_seqkd.teacher import FolderSource, load_teacher

TRAINED = {"finetune_from_model": "student.pt", "restore_file": "checkpoint_last.pt"}
COMMON = {**TRAINED, "sentence_avg": False, "seed": 1, "max_update": 10, "save_dir": "."}
COMMON["train_subset"] = "train"
STEP = TrainingStep(seed=1, update=7, progress=0.5)
POLICIES = {
    "data": {},
    "student": {"kd_schedule": "constant", "kd_beta": 0.5, "kd_max_len_a": 0.2},
    "interleaved": {"kd_accept_topk": 5, "kd_max_len_a": 0.2},
    "switch": {"kd_switch_threshold": 0.05, "kd_max_len_a": 0.2},
}
CASES = ["clean text", "transcript", "language model", "language model with BOS"]


def task_of(checkpoint):
    """A student's task with its splits loaded, and its model without dropout."""
    task = load_models(str(checkpoint))[1]
    for name in ("train", "valid"):
        task.load_dataset(name)
    return task, without_dropout(checkpoint)


@pytest.fixture(scope="module")
def students(noisy_student, speech_teacher):
    """{what a student reads: (task, model)}"""
    return {"noisy": task_of(noisy_student), "speech": task_of(speech_teacher)}


@pytest.fixture(scope="module")
def cases(request, data, transcripts, students):
    """{case: (task, student, the teacher's checkpoint, --teacher-source)}"""
    fixture = request.getfixturevalue
    models = fixture("language_models")
    return {
        "clean text": (*students["noisy"], fixture("teacher"), str(data)),
        "transcript": (*students["speech"], fixture("text_teacher"), str(transcripts)),
        "language model": (*students["speech"], models[False], "none"),
        "language model with BOS": (*students["speech"], models[True], "none"),
    }


def alone(checkpoint, source, split, id_, context, vocab):
    """(length, vocab) log-probabilities of the teacher's model, run by itself on one sentence.

    Its data set is loaded by fairseq.
    """
    (model,), task, _ = load_models(str(checkpoint))
    model.eval()
    context = context.unsqueeze(0)
    if source == "none":
        bos = [task.target_dictionary.bos()] * bool(task.args.add_bos_token)
        inputs = {"src_tokens": torch.cat([torch.tensor([bos]).long(), context], 1)}
    else:
        task.cfg.data = source
        task.load_dataset(split)
        tokens = task.dataset(split)[id_]["source"].unsqueeze(0)
        lengths = torch.tensor([tokens.size(1)])
        inputs = {"src_tokens": tokens, "src_lengths": lengths, "prev_output_tokens": context}
    with torch.no_grad():
        lprobs = model.get_normalized_probs(model(**inputs), log_probs=True)[0]
    return lprobs[-context.size(1) :, :vocab]


def check_scores(teacher, case, sample, split):
    """Compare the teacher's scores of a batch with those of the teacher run alone, to 1e-5."""
    task, _, checkpoint, source = case
    pad, contexts = task.target_dictionary.pad(), sample["net_input"]["prev_output_tokens"]
    logits = teacher.logits(teacher.inputs_of(sample, split == "train")).at(slice(None))
    lprobs = logits.log_softmax(-1).view(*contexts.shape, -1)
    for id_, context, found in zip(sample["id"].tolist(), contexts, lprobs):
        n = int(context.ne(pad).sum())
        how = id_, context[:n], len(task.target_dictionary)
        expected = alone(checkpoint, source, split, *how)
        torch.testing.assert_close(found[:n], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", CASES)
def test_scores_are_those_of_the_teacher_alone(cases, name, policy):
    """Of all rows, whoever generated their prefixes."""
    case = task, student, checkpoint, source = cases[name]
    teacher = load_teacher(str(checkpoint), student_task=task, source=source)
    teacher.check_dictionaries(task)
    sample = batch_of(task, [3, 20, 7, 11, 0])
    if policy != "data":
        generate = PREFIXES.resolve(policy, POLICIES[policy])()
        sample = generate(sample, student, teacher, task, STEP).sample
        assert "gold" in sample
    check_scores(teacher, case, sample, "train")
    # Token by token, as policies ask for them.
    scorer = teacher.incremental_scorer(teacher.inputs_of(sample))
    contexts = sample["net_input"]["prev_output_tokens"]
    expected = teacher.logits(teacher.inputs_of(sample)).at(slice(None))
    expected = expected.view(*contexts.shape, -1).log_softmax(-1)[:, 1]
    found = scorer.next_lprobs(contexts[:, :2])
    finite = found.isfinite() & contexts[:, 1:2].ne(task.target_dictionary.pad())
    torch.testing.assert_close(found[finite], expected[finite], rtol=0, atol=1e-5)


def criterion_of(case, **values):
    task, _, checkpoint, source = case
    given = {"teacher_path": str(checkpoint), "teacher_source": source, **values}
    config = OmegaConf.structured(DistillConfig(**{**COMMON, **given}))
    return DistillCriterion(task, config)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", CASES)
def test_the_criterion_learns_from_that_source(cases, name, policy):
    """Training and validation read the sources of their own splits."""
    case = task, student, *_ = cases[name]
    criterion = criterion_of(case, kd_prefixes=policy, kd_alpha=1.0, **POLICIES[policy])
    torch.manual_seed(1 + 7)  # update 7
    loss, _, log = criterion.train()(student, batch_of(task, [3, 20, 7]))
    loss.backward()
    assert loss > 0 and log["n_agree"] <= log["ntokens"]
    sample = batch_of(task, [3, 11, 0], "valid")
    teacher = criterion.get_teacher(student, "cpu")
    check_scores(teacher, case, sample, "valid")
    with torch.no_grad():
        loss, _, _ = criterion.eval()(student, sample)
    lprobs = student(**sample["net_input"])[0].log_softmax(-1)
    target_mask = sample["target"].ne(task.target_dictionary.pad())
    inputs, shape = teacher.inputs_of(sample, training=False), (*sample["target"].shape, -1)
    teacher_lprobs = teacher.logits(inputs).at(slice(None)).log_softmax(-1).view(shape)
    expected = (teacher_lprobs.exp() * (teacher_lprobs - lprobs)).sum(-1)[target_mask].sum()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)


def test_of_several_validation_sets_the_targets_tell_which_one(cases, data):
    """fairseq does not say of which split a batch is."""
    task, _, checkpoint, _ = cases["clean text"]
    task = copy.copy(task)
    task.datasets = dict(task.datasets)
    task.load_dataset("test")
    teacher = load_teacher(str(checkpoint), student_task=task, source=str(data))
    pad = teacher.task.source_dictionary.pad()
    for split in ("valid", "test"):
        sample = batch_of(task, [4, 0, 2], split)
        found = teacher.inputs_of(sample, training=False)["src_tokens"]
        sources = teacher.source.sources(split, None).src
        for id_, tokens in zip(sample["id"].tolist(), found):
            assert torch.equal(tokens[tokens.ne(pad)], sources[id_])


def test_a_batch_of_the_validation_that_training_repeats(cases):
    """A data-parallel process without batches repeats one, and fairseq ignores its loss."""
    task, _, checkpoint, source = cases["clean text"]
    task.load_dataset("test")
    task = copy.copy(task)
    task.cfg = copy.deepcopy(task.cfg)
    task.cfg.train_subset = "test"  # 20 sentences; valid has 24
    teacher = load_teacher(str(checkpoint), student_task=task, source=source)
    sample = batch_of(task, [22, 0], "valid")
    found = teacher.inputs_of(sample, training=True)["src_tokens"]
    assert torch.equal(found, teacher.inputs_of(sample, training=False)["src_tokens"])
    with pytest.raises(ValueError, match="sentence 500 is in no split .*train, valid, test"):
        teacher.inputs_of({**sample, "id": torch.tensor([500, 0])})


def test_padding_follows_the_teacher(cases):
    task, _, checkpoint, source = cases["clean text"]
    teacher = load_teacher(str(checkpoint), student_task=task, source=source)
    pad, sample = teacher.task.source_dictionary.pad(), batch_of(task, range(11, 40))
    assert teacher.inputs_of(sample)["src_tokens"][:, 0].eq(pad).any()
    teacher.task.cfg.left_pad_source = False
    right = FolderSource(source, teacher.task, task, 30).inputs(sample)["src_tokens"]
    assert not right[:, 0].eq(pad).any() and right[:, -1].eq(pad).any()


@pytest.mark.parametrize("lines", [25, 31])
def test_other_numbers_of_sentences(cases, transcripts, speech, tmp_path, lines):
    task, _, checkpoint, _ = cases["transcript"]
    for split in ("train", "valid"):
        for side in ("src", "tgt"):
            found = (speech.parent / "text" / f"{split}.{side}").read_text().splitlines()
            kept = [*found, *found][:lines] if split == "train" else found
            (tmp_path / f"{split}.{side}").write_text("\n".join(kept) + "\n")
    dictionaries = ["--srcdict", transcripts / "dict.src.txt", "--tgtdict", speech / "dict.txt"]
    pair = ["--source-lang", "src", "--target-lang", "tgt", "--destdir", tmp_path / "data-bin"]
    splits = ["--trainpref", tmp_path / "train", "--validpref", tmp_path / "valid"]
    fairseq("preprocess", *pair, *splits, *dictionaries)
    lacking = {25: "25, .* the data-bin's lacks", 31: "30, .* the student's lacks"}[lines]
    message = f"split 'train' has {lines} sentences, and the student's 30.*Sentence {lacking}"
    with pytest.raises(ValueError, match=message):
        load_teacher(str(checkpoint), student_task=task, source=str(tmp_path / "data-bin"))


MISFITS = {
    "no folder": ("clean text", "nowhere", FileNotFoundError, "there is no folder 'nowhere'"),
    "no split": (
        "clean text",
        "without valid",
        FileNotFoundError,
        "no binarised 'valid' split",
    ),
    "dictionary": ("clean text", "other dictionary", ValueError, "index 6 the teacher has '"),
    "two folders": ("clean text", "two", ValueError, "expected one data-bin, in which"),
    "reads a source": ("transcript", "none", ValueError, "none: the teacher, Transf.* no lang"),
    "reads none": ("language model", "data", ValueError, "LanguageModel, reads no source"),
    "not said": ("language model", None, ValueError, "--teacher-source none lets it score"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit_is_refused(cases, data, tmp_path, name):
    case, source, error, message = MISFITS[name]
    task, _, checkpoint, _ = cases[case]
    if source in ("data", "two", "without valid", "other dictionary"):
        folder = shutil.copytree(data, tmp_path / "data-bin")
        for path in folder.glob("valid.*") if source == "without valid" else ():
            path.unlink()
        if source == "other dictionary":
            lines = (folder / "dict.src.txt").read_text().splitlines(True)
            lines[2], lines[3] = lines[3], lines[2]
            (folder / "dict.src.txt").write_text("".join(lines))
        if source == "two":
            task = copy.copy(task)
            task.cfg = copy.deepcopy(task.cfg)
            task.cfg.data = f"{data}:{data}"
        source = str(folder)
    with pytest.raises(error, match=message):
        load_teacher(str(checkpoint), student_task=task, source=source)


def test_a_source_that_is_too_long_for_the_teacher(cases, teacher):
    """The teacher takes 30 tokens; the student may read less of the sentence."""
    task, _, checkpoint, source = cases["clean text"]
    teacher = load_teacher(str(checkpoint), student_task=task, source=source)
    with pytest.raises(ValueError, match=f"source of sentence {LONG} has .* takes 30"):
        teacher.inputs_of(batch_of(task, [3, LONG]))


def test_the_dictionary_of_the_folder_serves_if_no_other_is_found(
    cases, data, teacher, tmp_path, caplog
):
    task, _, _, source = cases["clean text"]
    (tmp_path / "alone").mkdir()
    state = torch.load(teacher, map_location="cpu")
    state["cfg"]["task"]["data"] = str(tmp_path / "gone")
    torch.save(state, tmp_path / "alone" / "teacher.pt")
    found = load_teacher(
        str(tmp_path / "alone" / "teacher.pt"), student_task=task, source=source
    )
    assert found.knows_dictionary and "only the sizes" not in caplog.text


def test_targets_with_language_tokens(cases, monkeypatch):
    task, _, checkpoint, source = cases["transcript"]
    monkeypatch.setitem(task.data_cfg.config, "prepend_tgt_lang_tag", True)
    with pytest.raises(ValueError, match="SpeechToTextTask have language tokens.*prepend_tgt"):
        load_teacher(str(checkpoint), student_task=task, source=source)


COMMANDS = {
    "clean text": ["--task", "translation", "--criterion", "word_kd"],
    "transcript": [
        *["--task", "speech_to_text", "--criterion", "imit_kd", "--kd-max-len-a", 0.2],
        *["--kd-schedule", "constant", "--kd-beta", 0.5],
    ],
    "language model": ["--task", "speech_to_text", "--criterion", "word_kd"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_as_a_command(cases, noisy, speech, tmp_path, name):
    _, _, checkpoint, source = cases[name]
    data, model = (noisy, TINY) if name == "clean text" else (speech, S2T)
    flags = [*COMMANDS[name], "--teacher-path", checkpoint, "--teacher-source", source]
    flags += ["--max-tokens", 2000, "--max-update", 3]
    if name == "clean text":  # its teacher takes no longer sources
        flags += ["--max-source-positions", 30]
    output = train(data, tmp_path, *flags, model=model)
    assert len(logged(output, "train_inner")) == 3
    assert all(float(line["valid_kd_loss"]) > 0 for line in logged(output, "valid"))


def cached(root, case, *flags):
    """The cache that ``fairseq-seqkd cache`` makes of a case's training split."""
    task, _, checkpoint, source = case
    where = config_of_task(task).data, checkpoint
    make_cache(root, *where, "--teacher-source", source, *flags)
    return str(root)


@pytest.mark.parametrize("name", CASES)
def test_cached_and_live_losses_are_equal(cases, tmp_path, name):
    case = task, student, *_ = cases[name]
    root = cached(tmp_path / "cache", case)
    again = files(root)
    cached(root, case)
    assert files(root) == again
    sample = batch_of(task, [3, 20, 7, 11, 0])
    live = criterion_of(case, kd_top_k=8).train()
    alone = criterion_of(case, kd_cache=root, teacher_path=None, teacher_source=None).train()
    beside = criterion_of(case, kd_cache=root, kd_top_k=8).train()
    losses = [one(student, sample) for one in (live, alone, beside)]
    for loss, _, log in losses[1:]:
        torch.testing.assert_close(loss, losses[0][0], rtol=1e-3, atol=1e-3)
        assert log["kd_loss"] > 0
    # Validation asks the teacher, with the source of its own split.
    sample = batch_of(task, [3, 11, 0], "valid")
    with torch.no_grad():
        live, beside = (one.eval()(student, sample)[0] for one in (live, beside))
    torch.testing.assert_close(beside, live, rtol=1e-3, atol=1e-3)


def test_a_cache_is_of_one_source(cases, transcripts, tmp_path, refused):
    case = task, student, checkpoint, source = cases["transcript"]
    root = cached(tmp_path / "cache", case)
    words = ["cache", task.args.data, "--teacher-path", checkpoint, "--kd-cache", root]
    other = shutil.copytree(transcripts, tmp_path / "other")
    path = other / "train.src-tgt.src.bin"
    path.write_bytes(path.read_bytes()[::-1])
    message = refused(*words, "--teacher-source", other)
    assert "made from other data" in message and "teacher_source.sha256.train.src-t" in message
    sample = batch_of(task, [3, 20])
    for source in (None, "none", str(other)):
        with pytest.raises(ValueError, match="was made from other data(.|\n)*teacher_source"):
            criterion_of(case, kd_cache=root, teacher_source=source).train()(student, sample)


def test_pairs_that_the_teacher_alone_takes_for_equal(cases, data, noisy, tmp_path):
    """Two noisy sources of the same clean text: both are in the cache, a third is a copy."""
    task, _, checkpoint, _ = cases["clean text"]
    symbols = task.source_dictionary.symbols[-2:]
    sides = {"noisy": [*symbols, symbols[0]], "src": [*"aaa"], "tgt": [*"bbb"]}
    for side, lines in sides.items():
        (tmp_path / f"train.{side}").write_text("\n".join(lines) + "\n")
    for lang, folder in (("noisy", noisy), ("src", data)):
        pair = ["--source-lang", lang, "--target-lang", "tgt", "--destdir", tmp_path / lang]
        dictionaries = ["--srcdict", folder / f"dict.{lang}.txt", "--tgtdict"]
        dictionaries.append(data / "dict.tgt.txt")
        fairseq("preprocess", *pair, "--trainpref", tmp_path / "train", *dictionaries)
    root = tmp_path / "cache"
    make_cache(root, tmp_path / "noisy", checkpoint, "--teacher-source", tmp_path / "src")
    manifest = DistributionCache(str(root)).manifest
    assert manifest["data"]["sentences"] == 3 and manifest["different_pairs"] == 2


def test_shards_are_cached_with_a_source_each(halves, cases, data, tmp_path, refused):
    """Here the source is the student's own, so that the caches equal those without."""
    _, _, checkpoint, _ = cases["clean text"]
    roots = {name: [tmp_path / f"{name}{i}" for i in (1, 2)] for name in ("with", "without")}
    make_cache(colons(*roots["without"]), colons(*halves), checkpoint)
    flags = ["--teacher-source", colons(*halves)]
    make_cache(colons(*roots["with"]), colons(*halves), checkpoint, *flags)
    for one, other in zip(*roots.values()):
        assert files(one / "rows") == files(other / "rows")
    where = ["--kd-cache", tmp_path / "one", "--teacher-path", checkpoint]
    message = refused("cache", data, *where, "--teacher-source", colons(*halves))
    assert "--teacher-source" in message and "found 2, expected 1" in message


def targets_of(folder, name="train"):
    """The targets of a data-bin of noisy sources, as lists of token ids."""
    dictionary = Dictionary.load(str(folder / "dict.tgt.txt"))
    prefix = str(folder / f"{name}.noisy-tgt.tgt")
    dataset = data_utils.load_indexed_dataset(prefix, dictionary)
    return [dataset[i].tolist() for i in range(len(dataset))]


@pytest.mark.parametrize("engine", ["fairseq", pytest.param("ctranslate2", marks=CTRANSLATE2)])
def test_pseudo_targets_of_noisy_text(data, noisy, teacher, tmp_path, engine):
    """They are those of the clean text, beside the student's own sources."""
    flags = ["--teacher-path", teacher, "--beam", 2, "--engine", engine, "--threads", 1]
    flags += ["--accept-unfinished", 1]
    clean, store = tmp_path / "clean", tmp_path / "noisy"
    cli.main([*map(str, ["generate", data, "--pseudo-targets", clean, *flags])])
    words = ["generate", noisy, "--pseudo-targets", store, *flags, "--teacher-source", data]
    cli.main([*map(str, words)])
    ours, theirs = all_nbest(store), all_nbest(clean)
    assert len(ours) == 160 and ours[LONG].status == theirs[LONG].status == "source too long"
    n_equal = sum(tokens_of(ours[i]) == tokens_of(theirs[i]) for i in ours)
    assert n_equal >= 158  # chunks are of other sentences, which may change a last bit
    name = "train.noisy-tgt.noisy.bin"
    assert (store / "best" / name).read_bytes() == (noisy / name).read_bytes()
    found = targets_of(store / "best")
    assert found[20] in tokens_of(ours[20]) or not ours[20].hypotheses
    assert sum(bool(one.hypotheses) for one in ours.values()) > 10


def test_a_training_makes_and_takes_such_a_store(data, noisy, teacher, tmp_path, refused):
    store = tmp_path / "store"
    common = ["--task", "translation_seqkd", "--criterion", "seq_kd", "--max-update", 2]
    common += ["--pseudo-targets", store]
    engine = ["--teacher-engine", "fairseq", "--teacher-beam", 2, "--accept-unfinished", 1]
    source = ["--teacher-path", teacher, "--teacher-source", data]
    train(noisy, tmp_path / "one", *common, *engine, *source)
    before = files(store)
    train(noisy, tmp_path / "two", *common, "--accept-unfinished", 1)  # no teacher is needed
    assert files(store) == before
    where = ["generate", noisy, "--pseudo-targets", store, "--teacher-path"]
    assert "teacher_source" in refused(*where, teacher)
    online = ["--task", "translation_seqkd", "--criterion", "seq_kd", "--max-update", 2]
    online += ["--pseudo-targets", "online", "--max-source-positions", 30, "--teacher-beam", 2]
    output = train(noisy, tmp_path / "three", *online, *source)
    assert len(logged(output, "train_inner")) == 2


def test_online_targets_are_of_the_teachers_source(cases):
    task, _, checkpoint, source = cases["clean text"]
    teacher = load_teacher(str(checkpoint), student_task=task, source=source)
    sample, search = batch_of(task, range(20, 40)), SearchOptions(beam=2, nbest=2)
    found = with_pseudo_targets(sample, teacher, search, Best())
    expected = teacher.generate(teacher.inputs_of(sample), search)
    pad, n_finished = task.target_dictionary.pad(), 0
    for tokens, gold, hypotheses in zip(found["target"], found["gold"]["target"], expected):
        finished = [h["tokens"].tolist() for h in hypotheses if h["finished"]]
        finished = [tokens for tokens in finished if len(tokens) > 1]
        n_finished += bool(finished)
        wanted = finished[0] if finished else gold[gold.ne(pad)].tolist()
        assert tokens[tokens.ne(pad)].tolist() == wanted
    assert n_finished


def test_a_language_model_does_not_translate(noisy, language_models, tmp_path, refused):
    words = ["generate", noisy, "--teacher-path", language_models[False], "--teacher-source"]
    message = refused(*words, "none", "--pseudo-targets", tmp_path / "store")
    assert "a language model scores targets, and does not translate" in message
    assert not (tmp_path / "store" / "manifest.json").exists()


SPEECH_SEARCH = ["--beam", 2, "--engine", "fairseq", "--threads", 1, "--accept-unfinished", 1]


def manifest_of(folder):
    """The rows of a training manifest, as dictionaries."""
    with open(folder / "train.tsv", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def test_pseudo_targets_of_speech(speech, transcripts, text_teacher, tmp_path, capsys):
    """Manifests whose texts are the teacher's translations of the transcripts."""
    store = tmp_path / "store"
    words = ["generate", speech, "--teacher-source", transcripts, "--pseudo-targets", store]
    words += ["--teacher-path", text_teacher, *SPEECH_SEARCH]
    cli.main([*map(str, words)])
    assert "--task speech_to_text" in capsys.readouterr().out
    found, before, lists = (
        manifest_of(store / "best-speech"),
        manifest_of(speech),
        all_nbest(store),
    )
    dictionary, n_translated = Dictionary.load(str(transcripts / "dict.tgt.txt")), 0
    for id_, (row, gold) in enumerate(zip(found, before)):
        expected = gold["tgt_text"]
        if lists[id_].hypotheses:
            expected = dictionary.string(lists[id_].hypotheses[0][0])
            n_translated += 1
        assert row == {**gold, "tgt_text": expected}
    assert len(found) == len(before) == 30 and n_translated
    assert (store / "best-speech" / "valid.tsv").read_bytes() == (
        speech / "valid.tsv"
    ).read_bytes()
    made = files(store)
    cli.main([*map(str, words)])
    assert files(store) == made
    loss = ["--task", "speech_to_text", "--criterion", "label_smoothed_cross_entropy"]
    limit = ["--max-tokens", 2000, "--max-update", 2]
    train(store / "best-speech", tmp_path / "student", *loss, *limit, model=S2T)


def test_speech_needs_a_source_that_fits(
    speech, data, transcripts, text_teacher, tmp_path, refused
):
    words = ["generate", speech, "--teacher-path", text_teacher, *SPEECH_SEARCH]
    words += ["--pseudo-targets", tmp_path / "store", "--teacher-source"]
    assert "give the data-bin with its transcripts" in refused(*words, "none")
    assert "has 160 sentences, and the student's 30" in refused(*words, data)
    message = refused(*words, transcripts, "--keep", 2)
    assert "a manifest of speech has one target for each utterance" in message
    assert "there is no file" in refused(*words, transcripts, "--config-yaml", "other.yaml")
    message = refused(*words, transcripts, "--text", "x")
    assert not (tmp_path / "store" / "manifest.json").exists()


def test_words_that_the_student_does_not_know(
    speech, transcripts, text_teacher, tmp_path, refused
):
    folder = tmp_path / "speech"
    shutil.copytree(speech, folder)
    lines = (folder / "dict.txt").read_text().splitlines()
    (folder / "dict.txt").write_text("\n".join(f"x{line}" for line in lines) + "\n")
    words = ["generate", folder, "--teacher-source", transcripts, *SPEECH_SEARCH]
    where = ["--pseudo-targets", tmp_path / "store", "--teacher-path", text_teacher]
    message = refused(*words, *where)
    assert "symbols of the translations are not in the dictionary" in message
    assert not (tmp_path / "store" / "best-speech").exists()
