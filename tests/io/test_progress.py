from fairseq_seqkd.io.progress import WorkProgress


def test_counts_tokens_and_shows_sentences(capsys):
    with WorkProgress(15, 4) as progress:
        for tokens in (4, 5):
            progress.add(tokens)
        progress.add(6, sentences=2)
    shown = capsys.readouterr().err
    assert "15.0/15.0" in shown and "tokens/s" in shown and "4 of 4 sentences" in shown


def test_the_time_left_is_that_of_the_tokens_left():
    """After the longest of 10 sentences, which has half of all tokens: as long again."""
    with WorkProgress(200, 10) as progress:
        progress.add(100)
        state = progress.bar.format_dict
    assert (state["n"], state["total"]) == (100, 200)


def test_disabled_it_shows_nothing(capsys):
    with WorkProgress(4, 1, disable=True) as progress:
        progress.add(4)
    assert capsys.readouterr().err == ""
