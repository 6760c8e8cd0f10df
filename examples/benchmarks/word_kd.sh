#!/usr/bin/env bash
# What word-level distillation costs beside plain cross-entropy, with the teacher and from a cache:
# on Multi30k, and on random sentences of 32,000 symbols. And how long the cache takes to build.
#
#   bash examples/benchmarks/word_kd.sh
#
# Some minutes. The student is the undistilled one of examples/multi30k/claims.sh, which has to
# have run. Settings, by environment variables: WORK as there; TEACHER and STUDENT, other
# checkpoints; ROUNDS (5), how often everything takes its turn; OUT, a folder for the tables
# (default: $WORK/benchmark). The recipes' settings of the memory allocator are not in force here:
# what is measured is what fairseq-train does by itself.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
WORK=${WORK:-$(dirname "$(dirname "$here")")/work/multi30k}
. "$here/../lib.sh"
unset MALLOC_MMAP_THRESHOLD_ MALLOC_TRIM_THRESHOLD_ MALLOC_TOP_PAD_
TEACHER=${TEACHER:-$WORK/teacher/checkpoint_best.pt}
STUDENT=${STUDENT:-$WORK/transformer-96-1000-none-1-0/checkpoint_best.pt}
ROUNDS=${ROUNDS:-5}
OUT=${OUT:-$WORK/benchmark}
for file in "$TEACHER" "$STUDENT"; do
    [ -e "$file" ] || fail "there is no $file: run examples/multi30k/claims.sh first"
done
random=$WORK/benchmark/random
mkdir -p "$random" "$OUT"

# train NAME FLAGS...: one update of a model on the random sentences.
train() {
    [ -e "$random/$1/checkpoint_last.pt" ] || run "random_$1" fairseq-train "$random/data-bin" \
        --cpu --save-dir "$random/$1" --task translation --arch transformer \
        --share-all-embeddings --criterion cross_entropy --optimizer adam --max-tokens 512 \
        --max-update 1 --disable-validation --no-epoch-checkpoints "${@:2}"
}

step "random sentences of 32,000 symbols"
if [ ! -e "$random/data-bin/dict.a.txt" ]; then
    python - "$random" <<'END'
import random, sys
random.seed(1)
words = [f"w{i}" for i in range(31996)]
with open(f"{sys.argv[1]}/dict.txt", "w") as file:
    file.writelines(f"{word} 1\n" for word in words)
for side in "ab":
    with open(f"{sys.argv[1]}/train.{side}", "w") as file:
        for _ in range(2000):
            file.write(" ".join(random.choices(words, k=random.randint(5, 25))) + "\n")
END
    run random_preprocess fairseq-preprocess --source-lang a --target-lang b \
        --joined-dictionary --srcdict "$random/dict.txt" --trainpref "$random/train" \
        --destdir "$random/data-bin"
fi
train teacher $(size 3 3 192 768)
train student $(size 2 1 96 192)

# compare NAME DATA TEACHER STUDENT: a table.
compare() {
    step "$1"
    run "cache_$1" fairseq-seqkd cache "$2" --teacher-path "$3" --teacher-data "$2" \
        --kd-cache "$WORK/benchmark/cache-$1" --threads "$OMP_NUM_THREADS"
    python "$here/word_kd.py" "$2" --teacher "$3" --student "$4" --rounds "$ROUNDS" \
        --cache "$WORK/benchmark/cache-$1" --out "$OUT/word_kd-$1.md"
}
compare multi30k "$WORK/data-bin" "$TEACHER" "$STUDENT"
compare random "$random/data-bin" "$random/teacher/checkpoint_last.pt" \
    "$random/student/checkpoint_last.pt"

step "building the cache of Multi30k's training set, and fairseq-validate on it, in turns"
for round in 1 2; do
    rm -rf "$WORK/benchmark/again"
    run "again_cache" fairseq-seqkd cache "$WORK/data-bin" --teacher-path "$TEACHER" \
        --teacher-data "$WORK/data-bin" --kd-cache "$WORK/benchmark/again" \
        --threads "$OMP_NUM_THREADS"
    run "again_validate" fairseq-validate "$WORK/data-bin" --user-dir "$USER_DIR" --cpu \
        --path "$TEACHER" --task translation --source-lang de --target-lang en \
        --valid-subset train --max-tokens 4096 --required-batch-size-multiple 1 \
        --log-format none
done
cmp "$WORK/benchmark/again/rows/sums.json" "$WORK/benchmark/cache-multi30k/rows/sums.json"
