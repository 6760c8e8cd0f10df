#!/usr/bin/env bash
# How fast pseudo-targets are made: Multi30k's training set, stock fairseq-generate against
# fairseq-seqkd generate with either backend; and how much memory ten times the corpus takes.
#
#   bash examples/benchmarks/pseudo_targets.sh
#
# On two cores it takes about an hour. Settings, by environment variables: WORK, DATA, TEACHER, SPM
# and DICT as for examples/multi30k/distill.sh (TEACHER, SPM and DICT are needed); ROUNDS (1), how often
# everything takes its turn; OUT, a file for the table (default: $WORK/benchmark/table.md).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
WORK=${WORK:-$(dirname "$(dirname "$here")")/work/multi30k}
threads=${OMP_NUM_THREADS:-}
. "$here/../lib.sh"
[ -n "$threads" ] || unset OMP_NUM_THREADS # each side sets its own
[ -n "${TEACHER:-}" ] && [ -n "${SPM:-}" ] && [ -n "${DICT:-}" ] ||
    fail "TEACHER, SPM and DICT are needed: a checkpoint, its subword model and its dictionary"
. "$here/../multi30k/prepare.sh"

if [ ! -e "$WORK/benchmark/ten/done" ]; then
    step "ten times the corpus"
    rm -rf "$WORK/benchmark/ten"
    mkdir -p "$WORK/benchmark"
    for lang in de en; do
        for _ in 1 2 3 4 5 6 7 8 9 10; do cat "$WORK/text/train.$lang"; done >"$WORK/benchmark/ten.$lang"
    done
    run preprocess_ten fairseq-preprocess --source-lang de --target-lang en --joined-dictionary \
        --srcdict "$DICT" --trainpref "$WORK/benchmark/ten" --destdir "$WORK/benchmark/ten" --workers 2
    touch "$WORK/benchmark/ten/done"
fi

python "$here/pseudo_targets.py" "$WORK/data-bin" --ten "$WORK/benchmark/ten" --teacher-path "$TEACHER" \
    --work "$WORK/benchmark" --rounds "${ROUNDS:-1}" --out "${OUT:-$WORK/benchmark/table.md}"
