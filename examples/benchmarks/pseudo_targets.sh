#!/usr/bin/env bash
# The time to generate pseudo-targets for Multi30k's training set: stock fairseq-generate beside
# fairseq-seqkd generate with either engine. Then the memory that ten times the corpus takes, and the
# time to select from 35-best lists.
#
#   bash examples/benchmarks/pseudo_targets.sh              # about an hour on two cores
#   SMOKE=1 bash examples/benchmarks/pseudo_targets.sh      # on a tiny synthetic corpus
#
# Settings, by environment variables:
#   WORK      folder to write to (default: work/multi30k; work/multi30k-smoke with SMOKE=1)
#   DATA      folder with the raw text, as for examples/multi30k/claims.sh
#   TEACHER, SPM, DICT  a checkpoint, its sentencepiece model and its joined dictionary; required,
#             but made here with SMOKE=1
#   SENTENCES size of the corpus, 29000
#   ROUNDS    how often every system takes its turn, 1
#   QUICK     1: the first table alone
#   OUT       file for the table (default: $WORK/benchmark/table.md)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
WORK=${WORK:-$(dirname "$(dirname "$here")")/work/multi30k${SMOKE:+-smoke}}
threads=${OMP_NUM_THREADS:-}
. "$here/../lib.sh"
[ -n "$threads" ] || unset OMP_NUM_THREADS # every system sets its own
SENTENCES=${SENTENCES:-29000} ROUNDS=${ROUNDS:-1} BATCH=""
if [ -n "${SMOKE:-}" ]; then
    python "$EXAMPLES/archives.py" "$WORK/archives"
    DATA=$WORK/archives SUMS=$(cd "$WORK/archives" && sha256 -- *.gz)
    TEACHER=$WORK/teacher/checkpoint_last.pt SPM="" DICT=""
    SENTENCES=40 ROUNDS=1 BATCH="--max-tokens 400" VOCABULARY=200
elif [ -z "${TEACHER:-}" ] || [ -z "${SPM:-}" ] || [ -z "${DICT:-}" ]; then
    fail "TEACHER, SPM and DICT are required: a checkpoint, its sentencepiece model and dictionary"
fi
. "$here/../multi30k/prepare.sh"

# Hypotheses of this teacher are short enough for a smoke test, although it has learned little.
make_teacher() {
    run teacher fairseq-train "$WORK/data-bin" --cpu --save-dir "$WORK/teacher.new" --seed 1 \
        --task translation --criterion cross_entropy --arch transformer --share-all-embeddings \
        $(size 1 1 32 64) --max-target-positions 128 --optimizer adam --lr 0.01 \
        --max-tokens 1000 --max-update 60 --disable-validation --no-epoch-checkpoints
}
if [ -n "${SMOKE:-}" ]; then
    once teacher "a tiny teacher" make_teacher
    DICT=$WORK/data-bin/dict.en.txt
fi

# corpus NAME TIMES: the first $SENTENCES pairs, repeated that many times, as a data-bin.
corpus() {
    local folder=$WORK/benchmark/$1-$SENTENCES
    [ -e "$folder/done" ] && return
    step "$2 x $SENTENCES sentences"
    rm -rf "$folder"
    mkdir -p "$folder"
    for lang in de en; do
        for _ in $(seq "$2"); do head -n "$SENTENCES" "$WORK/text/train.$lang"; done >"$folder/text.$lang"
    done
    run "preprocess_$1" fairseq-preprocess --source-lang de --target-lang en --joined-dictionary \
        --srcdict "$DICT" --trainpref "$folder/text" --destdir "$folder/data-bin" --workers 2
    touch "$folder/done"
}
corpus once 1
tenfold=""
if [ -z "${QUICK:-}" ]; then
    corpus tenfold 10
    tenfold="--tenfold $WORK/benchmark/tenfold-$SENTENCES/data-bin"
fi

python "$here/pseudo_targets.py" "$WORK/benchmark/once-$SENTENCES/data-bin" \
    $tenfold --teacher-path "$TEACHER" --work "$WORK/benchmark" \
    --rounds "$ROUNDS" $BATCH --out "${OUT:-$WORK/benchmark/table.md}"
