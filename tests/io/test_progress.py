from fairseq_seqkd.io.progress import SentenceProgress


def test_counts_sentences_and_shows_tokens_per_second(capsys):
    with SentenceProgress(3) as progress:
        for tokens in (4, 5, 6):
            progress.add(tokens)
    assert progress.tokens == 15
    shown = capsys.readouterr().err
    assert "3/3" in shown and "tokens/s" in shown


def test_disabled_it_shows_nothing(capsys):
    with SentenceProgress(1, disable=True) as progress:
        progress.add(4)
    assert capsys.readouterr().err == ""
