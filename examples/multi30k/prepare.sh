#!/usr/bin/env bash
# Multi30k German-English, from raw text to a fairseq data-bin in $WORK/data-bin.
# Sourced by claims.sh, which sets WORK and may set VOCABULARY, DATA, SPM, DICT, and SUMS and
# CAPTION_SUMS, the checksums of files other than the published ones.

REPOSITORY=https://raw.githubusercontent.com/multi30k/dataset/master/data
FILES="train.de train.en val.de val.en test_2016_flickr.de test_2016_flickr.en
    test_2018_flickr.de test_2018_flickr.en"
SUMS=${SUMS:-"\
9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8  test_2016_flickr.de.gz
611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9  test_2016_flickr.en.gz
ddd0130c7d97482dc5197a02141dae8dd79f20f03586c480d675c09a32daf608  test_2018_flickr.de.gz
ef4f4844037d4c5dea75c9a8ed5fd78905967a26f67c255e230cc9780032654d  test_2018_flickr.en.gz
726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6  train.de.gz
d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f  train.en.gz
f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a  val.de.gz
14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28  val.en.gz"}
CAPTION_SUMS=${CAPTION_SUMS:-"\
0002241b52aba5160c08d644ea0d64a9bf46a2dfffcf619c9e3cdaa55b357004  train.1.de.gz
a0e057f07a9733199c0d755d77f6d583dc6f40a3180734b1130a216e2fdf3a3b  train.1.en.gz
ac7c29258b90aec0b64d677c5bfc831fc402e6296d0aa9cc7a3433ddbff85c37  train.2.de.gz
d79dd70a9eafb2d1fe40151621278c4ae69b3c148c5052a53d7c7a41bf3ba023  train.2.en.gz
ec5e6508813814aa31311b34e26e24f903dd7701f8d0668313259b7f975d7aa0  train.3.de.gz
86e16fdcc699bcb6bca0f87c3cf1051f7de5ee3674dd588cedc5200194282749  train.3.en.gz
bcee8ac6eb47d8a7dc8cff47d9a0fbd80b4363cfda22021bacd297f9604221a4  train.4.de.gz
3771b84e010ad6197806d2a1188cb07c12149e3e0d178dd5966dee5763733686  train.4.en.gz
dccb0ca6ff25e0b1f0d385f59fb809184e0db89622d88371725e3ec46d43bfc0  train.5.de.gz
73988689307fe836994eae59735dc840c15da9775455fa76e6ed22606a042a91  train.5.en.gz"}

# fetch NAME FOLDER URL SUMS: gzipped text into $WORK/NAME.new, from the folder, or without one from
# the URL. Its checksums must be those of SUMS.
fetch() {
    local to=$WORK/$1.new file
    mkdir -p "$to"
    for file in $(echo "$4" | awk '{print $2}'); do
        if [ -n "$2" ]; then
            cp -f "$2/$file" "$to/" || missing "$2" "$4"
        else
            curl --fail --location --silent --show-error --output "$to/$file" "$3/$file" ||
                missing "$3" "$4"
        fi
    done
    (cd "$to" && echo "$4" | sha256 --check >/dev/null) ||
        fail "the files in $to are not the published ones: remove the folder, and check DATA"
}

# missing FROM SUMS: say which files are needed, and where they go.
missing() {
    printf '%s lacks some of these files (checksum, name):\n%s\n' "$1" "$2" >&2
    fail "Without a network, put them into a folder and name it by DATA=folder; the captions of" \
        "task 2 go into its subfolder task2"
}

once raw "raw text from ${DATA:-$REPOSITORY}" fetch raw "${DATA:-}" "$REPOSITORY/task1/raw" "$SUMS"

# captions: five captions of every training image in each language, by different people: no
# translations of each other.
captions() {
    once captions "captions from ${DATA:-$REPOSITORY}" \
        fetch captions "${DATA:+$DATA/task2}" "$REPOSITORY/task2/raw" "$CAPTION_SUMS"
}

plain_text() {
    local file
    mkdir -p "$WORK/plain.new"
    for file in $FILES; do gunzip -c "$WORK/raw/$file.gz" >"$WORK/plain.new/$file"; done
}
once plain "decompress" plain_text

# One sentencepiece BPE model for both languages.
if [ -z "${SPM:-}" ]; then
    SPM=$WORK/spm.model
    once spm.model "train sentencepiece, ${VOCABULARY:-6000} pieces" \
        learn_pieces "$SPM.new" ${VOCABULARY:-6000} "$WORK/plain/train.de,$WORK/plain/train.en"
fi

once text "split the text into subwords" \
    cut_text "$SPM" "$WORK/plain" "$WORK/text.new" $FILES

binarise() {
    rm -rf "$WORK/data-bin.new" # fairseq-preprocess does not go on with a dictionary that is there
    run preprocess fairseq-preprocess --source-lang de --target-lang en --joined-dictionary \
        ${DICT:+--srcdict "$DICT"} \
        --trainpref "$WORK/text/train" --validpref "$WORK/text/val" \
        --testpref "$WORK/text/test_2016_flickr,$WORK/text/test_2018_flickr" \
        --destdir "$WORK/data-bin.new" --workers 2
}
once data-bin "binarise" binarise
