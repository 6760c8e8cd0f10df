# WMT14 English-German, from the published archives to a fairseq data-bin in $WORK/data-bin.
# Sourced by distill.sh, which sets WORK, WMT13, WMT14, DEV, VOCABULARY and WORKERS.
#
# The steps are those of fairseq's examples/translation/prepare-wmt14en2de.sh with the news commentary
# of WMT14 (its --icml17), with these differences:
# - sentencepiece splits untokenised text (fairseq: Moses' normaliser and tokeniser, and subword-nmt;
#   Kim & Rush: the 50,000 most frequent words of each language, no subwords), so that BLEU is that
#   of untokenised text;
# - the validation set is newstest2013 (fairseq: every hundredth training pair).

raw_text() {
    local to=$WORK/raw.new from=$WORK/download url file
    mkdir -p "$to"
    for url in "$WMT13/training-parallel-europarl-v7.tgz" \
        "$WMT13/training-parallel-commoncrawl.tgz" "$WMT14/training-parallel-nc-v9.tgz" \
        "$DEV/dev.tgz" "$WMT14/test-full.tgz"; do
        download "$from" "$url"
        tar -xzf "$from/${url##*/}" -C "$from"
    done
    for side in en de; do
        cat "$from/training/europarl-v7.de-en.$side" "$from/commoncrawl.de-en.$side" \
            "$from/training/news-commentary-v9.de-en.$side" >"$to/train.$side"
        cp "$from/dev/newstest2013.$side" "$to/valid.$side"
    done
    segments "$from/test-full/newstest2014-deen-src.en.sgm" >"$to/test.en"
    segments "$from/test-full/newstest2014-deen-ref.de.sgm" >"$to/test.de"
}

subwords() {
    cut_text "$WORK/spm.model" "$WORK/raw" "$WORK/text.new" {train,valid,test}.{en,de}
    keep_pairs "$WORK/text.new/train" "$WORK/text.new/train.short" en de 250 1.5
}

binarise() {
    run preprocess fairseq-preprocess --source-lang en --target-lang de --joined-dictionary \
        --trainpref "$WORK/text/train.short" --validpref "$WORK/text/valid" \
        --testpref "$WORK/text/test" --destdir "$WORK/data-bin.new" --workers $WORKERS
}

once raw "raw text from $WMT14, $WMT13 and $DEV" raw_text
once spm.model "sentencepiece, $VOCABULARY pieces for both languages" \
    learn_pieces "$WORK/spm.model.new" "$VOCABULARY" "$WORK/raw/train.en,$WORK/raw/train.de"
once text "split the text into subwords" subwords
once data-bin "binarise" binarise
