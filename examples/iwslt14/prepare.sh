# IWSLT14 German-English, from the published archive to a fairseq data-bin in $WORK/data-bin.
# Sourced by distill.sh, which sets WORK, SITE and VOCABULARY.
#
# The steps are those of fairseq's examples/translation/prepare-iwslt14.sh, with these differences:
# - sentencepiece splits untokenised text (fairseq: Moses' tokeniser and subword-nmt; Lin et al.:
#   NLTK's tokeniser and subword-nmt), so that BLEU is that of untokenised, lower-cased text;
# - lines of tags, such as the titles of talks, are dropped, and the test set does not include TEDX's
#   dev2012, both as in Lin et al.'s code.
# Every twenty-third training pair is held out for validation, as in fairseq (in Lin et al.'s code
# 4 % of them, drawn at random).

raw_text() {
    local to=$WORK/raw.new from=$WORK/download/de-en side set
    mkdir -p "$to"
    download "$WORK/download" "$SITE/de-en.tgz"
    tar -xzf "$WORK/download/de-en.tgz" -C "$WORK/download"
    for side in de en; do
        grep -v '^<' "$from/train.tags.de-en.$side" | lower >"$to/all.$side"
        awk 'NR % 23 != 0' "$to/all.$side" >"$to/train.$side"
        awk 'NR % 23 == 0' "$to/all.$side" >"$to/valid.$side"
        for set in dev2010 tst2010 tst2011 tst2012; do
            segments "$from/IWSLT14.TED.$set.de-en.$side.xml"
        done | lower >"$to/test.$side"
    done
    rm "$to"/all.*
}

# Lower-case standard input, letters beyond ASCII too, independently of the locale.
lower() {
    python -c 'import sys
sys.stdout.buffer.write(sys.stdin.buffer.read().decode().lower().encode())'
}

# Training and validation pairs with more than 125 subwords are dropped, as in Lin et al.'s code; the
# length ratio is fairseq's. Test sentences are all kept.
subwords() {
    cut_text "$WORK/spm.model" "$WORK/raw" "$WORK/text.new" {train,valid,test}.{de,en}
    for split in train valid; do
        keep_pairs "$WORK/text.new/$split" "$WORK/text.new/$split.short" de en 125 1.5
    done
}

binarise() {
    run preprocess fairseq-preprocess --source-lang de --target-lang en --joined-dictionary \
        --trainpref "$WORK/text/train.short" --validpref "$WORK/text/valid.short" \
        --testpref "$WORK/text/test" --destdir "$WORK/data-bin.new" --workers 1
}

once raw "raw text from $SITE" raw_text
once spm.model "sentencepiece, $VOCABULARY pieces for both languages" \
    learn_pieces "$WORK/spm.model.new" "$VOCABULARY" "$WORK/raw/train.de,$WORK/raw/train.en"
once text "split the text into subwords" subwords
once data-bin "binarise" binarise
