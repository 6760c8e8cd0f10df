#!/usr/bin/env bash
# Multi30k German-English, from raw text to a fairseq data-bin in $WORK/data-bin.
# Sourced by claims.sh, which sets WORK and may set VOCABULARY, DATA, SPM, DICT, and SUMS, the
# checksums of files other than the published ones.

REPOSITORY=https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw
FILES="train.de train.en val.de val.en test_2016_flickr.de test_2016_flickr.en"
SUMS=${SUMS:-"\
9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8  test_2016_flickr.de.gz
611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9  test_2016_flickr.en.gz
726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6  train.de.gz
d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f  train.en.gz
f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a  val.de.gz
14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28  val.en.gz"}

# Raw text from the folder DATA, or from the data set's public repository.
if [ ! -e "$WORK/raw/done" ]; then
    step "raw text from ${DATA:-$REPOSITORY}"
    mkdir -p "$WORK/raw"
    for file in $FILES; do
        if [ -n "${DATA:-}" ]; then
            cp -f "$DATA/$file.gz" "$WORK/raw/"
        else
            curl --fail --location --output "$WORK/raw/$file.gz" "$REPOSITORY/$file.gz"
        fi
    done
    (cd "$WORK/raw" && echo "$SUMS" | sha256 --check >/dev/null) ||
        fail "the files in $WORK/raw are not the published ones: remove the folder, and check DATA"
    gunzip --force "$WORK"/raw/*.gz
    touch "$WORK/raw/done"
fi

# One sentencepiece BPE model for both languages.
if [ -z "${SPM:-}" ]; then
    SPM=$WORK/spm.model
    once spm.model "train sentencepiece, ${VOCABULARY:-6000} pieces" \
        learn_pieces "$SPM.new" ${VOCABULARY:-6000} "$WORK/raw/train.de,$WORK/raw/train.en"
fi

if [ ! -e "$WORK/text/done" ]; then
    step "split the text into subwords"
    cut_text "$SPM" "$WORK/raw" "$WORK/text" $FILES
    touch "$WORK/text/done"
fi

if [ ! -e "$WORK/data-bin/done" ]; then
    step "binarise"
    run preprocess fairseq-preprocess --source-lang de --target-lang en --joined-dictionary \
        ${DICT:+--srcdict "$DICT"} \
        --trainpref "$WORK/text/train" --validpref "$WORK/text/val" \
        --testpref "$WORK/text/test_2016_flickr" --destdir "$WORK/data-bin" --workers 2
    touch "$WORK/data-bin/done"
fi
