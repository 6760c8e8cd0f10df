#!/usr/bin/env bash
# How fast pseudo-targets are made: Multi30k's training set, stock fairseq-generate against
# fairseq-seqkd generate with either backend; and how much memory ten times the corpus takes.
#
#   bash examples/benchmarks/pseudo_targets.sh
#
# On two cores it takes about an hour. Settings, by environment variables: WORK, DATA, TEACHER, SPM
# and DICT as for examples/multi30k/claims.sh (TEACHER, SPM and DICT are needed); ROUNDS (1), how often
# everything takes its turn; SENTENCES (29000), of the corpus; OUT, a file for the table (default: $WORK/benchmark/table.md).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
WORK=${WORK:-$(dirname "$(dirname "$here")")/work/multi30k}
threads=${OMP_NUM_THREADS:-}
. "$here/../lib.sh"
[ -n "$threads" ] || unset OMP_NUM_THREADS # each side sets its own
[ -n "${TEACHER:-}" ] && [ -n "${SPM:-}" ] && [ -n "${DICT:-}" ] ||
    fail "TEACHER, SPM and DICT are needed: a checkpoint, its subword model and its dictionary"
SENTENCES=${SENTENCES:-29000}
. "$here/../multi30k/prepare.sh"

# corpus NAME TIMES: the first $SENTENCES pairs, that many times over, in a data-bin.
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
corpus ten 10

python "$here/pseudo_targets.py" "$WORK/benchmark/once-$SENTENCES/data-bin" --ten "$WORK/benchmark/ten-$SENTENCES/data-bin" --teacher-path "$TEACHER" \
    --work "$WORK/benchmark" --rounds "${ROUNDS:-1}" --out "${OUT:-$WORK/benchmark/table.md}"
