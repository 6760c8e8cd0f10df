from conftest import SIZES, synthetic


def files(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_follows_from_its_seed(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        synthetic().write_corpus(tmp_path / name, SIZES, seed)
    a, b, c = (files(tmp_path / name) for name in "abc")
    assert a == b != c


def test_pairs_line_by_line(tmp_path):
    synthetic().write_corpus(tmp_path, SIZES)
    for name, text in files(tmp_path).items():
        split, side = name.split(".")
        assert text.count("\n") == SIZES[split]
        assert side in ("src", "tgt")


def test_a_source_has_several_translations():
    module = synthetic()
    language = module.Language(module.random.Random(1), module.LEXICON)
    words = [language.words["noun"][1]] * 50  # every second word has a synonym
    assert len(set(language.translate(words))) == 2
