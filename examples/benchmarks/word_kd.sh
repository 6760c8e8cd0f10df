#!/usr/bin/env bash
# The cost of word-level distillation relative to plain cross-entropy, with a live teacher and with
# a cache: on Multi30k, and on random sentences of 32,000 symbols. Then the time to build the cache,
# beside fairseq-validate on the same data.
#
#   bash examples/benchmarks/word_kd.sh
#   SMOKE=1 bash examples/benchmarks/word_kd.sh     # one round of one batch, fewer random sentences
#
# It takes some minutes. The student is the undistilled one of examples/multi30k/claims.sh, so run
# that first. Settings, by environment variables:
#   WORK      the folder of examples/multi30k/claims.sh (default: work/multi30k)
#   DATA      another data-bin
#   TEACHER, STUDENT  other checkpoints
#   ROUNDS    how often every variant takes its turn, 5
#   OUT       folder for the tables (default: $WORK/benchmark)
#
# The recipes' settings of the memory allocator are not used here: this measures fairseq-train as
# users run it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
WORK=${WORK:-$(dirname "$(dirname "$here")")/work/multi30k}
. "$here/../lib.sh"
unset MALLOC_MMAP_THRESHOLD_ MALLOC_TRIM_THRESHOLD_ MALLOC_TOP_PAD_
DATA=${DATA:-$WORK/data-bin}
TEACHER=${TEACHER:-$WORK/teacher/checkpoint_best.pt}
STUDENT=${STUDENT:-$WORK/none.wide.1/checkpoint_best.pt}
OUT=${OUT:-$WORK/benchmark}

# Settings, then tiny ones.
ROUNDS=${ROUNDS:-5} BATCHES=6 BUILDS="1 2" FLAGS=""
SYMBOLS=32000 SENTENCES=2000
RANDOM_TEACHER="3 3 192 768" RANDOM_STUDENT="2 1 96 192"
if [ -n "${SMOKE:-}" ]; then
    ROUNDS=1 BATCHES=1 BUILDS=1 FLAGS=--fork
    SYMBOLS=200 SENTENCES=100
    RANDOM_TEACHER="1 1 32 64" RANDOM_STUDENT="1 1 16 32"
fi
for file in "$DATA" "$TEACHER" "$STUDENT"; do
    [ -e "$file" ] || fail "there is no $file: run examples/multi30k/claims.sh first"
done
random=$WORK/benchmark/random-$SYMBOLS
caches=$WORK/benchmark/cache${SMOKE:+-smoke}
mkdir -p "$random" "$OUT"

# train NAME FLAGS...: one update of a model on the random sentences.
train() {
    [ -e "$random/$1/checkpoint_last.pt" ] || run "random_$1" fairseq-train "$random/data-bin" \
        --cpu --save-dir "$random/$1" --task translation --arch transformer \
        --share-all-embeddings --criterion cross_entropy --optimizer adam --max-tokens 512 \
        --max-update 1 --disable-validation --no-epoch-checkpoints "${@:2}"
}

step "$SENTENCES random sentences of $SYMBOLS symbols"
if [ ! -e "$random/data-bin/dict.a.txt" ]; then
    python "$here/random_sentences.py" "$random" $SYMBOLS $SENTENCES
    run random_preprocess fairseq-preprocess --source-lang a --target-lang b \
        --joined-dictionary --srcdict "$random/dict.txt" --trainpref "$random/train" \
        --validpref "$random/train" --destdir "$random/data-bin"
fi
train teacher $(size $RANDOM_TEACHER)
train student $(size $RANDOM_STUDENT)

# build_cache NAME DATA TEACHER CACHE
build_cache() {
    run "$1" fairseq-seqkd cache "$2" --teacher-path "$3" --teacher-data "$2" \
        --kd-cache "$4" --threads "$OMP_NUM_THREADS"
}

# compare NAME DATA TEACHER STUDENT: two tables.
compare() {
    local cache=$caches-$1
    step "$1"
    build_cache "cache_$1" "$2" "$3" "$cache"
    python "$here/word_kd.py" "$2" --teacher "$3" --student "$4" --rounds "$ROUNDS" \
        --batches $BATCHES $FLAGS --cache "$cache" --out "$OUT/word_kd-$1.md"
}
compare multi30k "$DATA" "$TEACHER" "$STUDENT"
compare random "$random/data-bin" "$random/teacher/checkpoint_last.pt" \
    "$random/student/checkpoint_last.pt"

step "building the cache of Multi30k's training set, and fairseq-validate on it, in turns"
again=$WORK/benchmark/again
for round in $BUILDS; do
    rm -rf "$again"
    build_cache again_cache "$DATA" "$TEACHER" "$again"
    run again_validate fairseq-validate "$DATA" --user-dir "$USER_DIR" --cpu \
        --path "$TEACHER" --task translation --valid-subset train --max-tokens 4096 \
        --required-batch-size-multiple 1 --skip-invalid-size-inputs-valid-test \
        --log-format none
done
cmp "$again/rows/sums.json" "$caches-multi30k/rows/sums.json"
