#!/usr/bin/env bash
# Live on-policy distillation (imit_kd, gkd) against near-policy distillation, whose text is made in
# rounds and read 1, 2, 4 or 8 times: the cost of an update relative to cross-entropy, with all
# generating, scoring and starting of programs, and BLEU on the validation set after the same number
# of updates and after the same time. All begin with the same student.
#
#   bash examples/benchmarks/on_policy.sh           # some hours on one core
#   UPDATES=400 SENTENCES=7000 READS=4 INTERVALS=2 bash examples/benchmarks/on_policy.sh # a try
#   SMOKE=1 bash examples/benchmarks/on_policy.sh   # a few updates of tiny models
#
# The student is the undistilled one of examples/multi30k/claims.sh, so run that first. Steps whose
# output exists are skipped. Settings, by environment variables:
#   WORK      the folder of examples/multi30k/claims.sh (default: work/multi30k)
#   DATA      another data-bin
#   TEACHER, STUDENT  other checkpoints; MODEL, the student's architecture
#   UPDATES   updates of every training, 2000, of which one reading takes an eighth
#   SENTENCES the sentences of a round, so that one reading takes about UPDATES / 8 updates (default:
#             all, as fits Multi30k)
#   INTERVALS validations of a live training, 8
#   READS     how often the text of a round is read: some of 1 2 4 8
#   LIVE      live methods to train: imit_kd imit_kd-full gkd (default: all)
#   LR        learning rate of all trainings, 5e-4, which falls to 0
#   DEVICE    --cpu (the default)
#   OUT       file for the tables (default: $WORK/benchmark/on_policy.md)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
WORK=${WORK:-$(dirname "$(dirname "$here")")/work/multi30k}
. "$here/../lib.sh"
WORK=$(cd "$WORK" && pwd)
UPDATES=${UPDATES:-2000} READS=${READS:-1 2 4 8} LIVE=${LIVE-imit_kd imit_kd-full gkd}
INTERVALS=${INTERVALS:-8} SENTENCES=${SENTENCES:-}
LR=${LR:-5e-4} WARMUP=100 BATCH=2048 DEVICE=${DEVICE---cpu}
SIZE="2 1 96 192"
REMOVE_BPE=${REMOVE_BPE-sentencepiece} TEXT="--max-len-a 1.2 --max-len-b 3"
folder=on-policy-$UPDATES${SENTENCES:+-$SENTENCES}
if [ -n "${SMOKE:-}" ]; then
    UPDATES=8 READS=8 LIVE=imit_kd SENTENCES=20 WARMUP=2 BATCH=400 REMOVE_BPE="" folder=on-policy
    TEXT="--max-len-a 1.2 --max-len-b 3 --accept-unfinished 1 --engine fairseq" SIZE="1 1 16 32"
fi
MODEL=${MODEL:---arch transformer --share-all-embeddings $(size $SIZE)}
DATA=${DATA:-$WORK/data-bin}
TEACHER=${TEACHER:-$WORK/teacher/checkpoint_best.pt}
STUDENT=${STUDENT:-$WORK/none.wide.1/checkpoint_best.pt}
for file in "$DATA" "$TEACHER" "$STUDENT"; do
    [ -e "$file" ] || fail "there is no $file: run examples/multi30k/claims.sh first"
done
bench=$WORK/benchmark/$folder
out=${OUT:-$WORK/benchmark/on_policy.md}
mkdir -p "$bench"

# live NAME FLAGS...: a training on DATA from the student's weights, with the flags that all share.
live() {
    run "on_policy-$1" fairseq-train "$DATA" --user-dir "$USER_DIR" $DEVICE \
        --save-dir "$bench/$1.new" --seed 1 --task translation $MODEL \
        --finetune-from-model "$STUDENT" \
        --optimizer adam --adam-betas "(0.9, 0.98)" --clip-norm 1.0 --max-tokens $BATCH \
        --lr "$LR" --lr-scheduler polynomial_decay --total-num-update "$UPDATES" \
        --warmup-updates $WARMUP --max-update "$UPDATES" \
        --required-batch-size-multiple 1 --skip-invalid-size-inputs-valid-test \
        --eval-bleu --eval-bleu-args '{"beam": 1, "max_len_a": 1.2, "max_len_b": 10}' \
        ${REMOVE_BPE:+--eval-bleu-remove-bpe $REMOVE_BPE} \
        --best-checkpoint-metric bleu --maximize-best-checkpoint-metric \
        --save-interval-updates $((UPDATES / INTERVALS)) --keep-interval-updates 1 \
        --save-interval 100000 --validate-interval 100000 --no-epoch-checkpoints \
        --log-format simple --log-interval 100 "${@:2}"
}

# near READS: rounds whose text is read so often, by the recipe.
near() {
    WORK="$bench/near-$1.new" SMOKE="" DATA="$DATA" TEACHER="$TEACHER" STUDENT="$STUDENT" \
        MODEL="$MODEL" ROUNDS=$((8 / $1)) UPDATES=$((UPDATES / 8 * $1)) SENTENCES="$SENTENCES" \
        TEXT="$TEXT" LR="$LR" WARMUP=$WARMUP TRAINING="--max-tokens $BATCH" DEVICE="$DEVICE" \
        REMOVE_BPE="$REMOVE_BPE" bash "$here/../near_policy.sh"
}

# measured NAME COMMAND...: run a step once, and keep the times of its commands.
measured() {
    TIMES=$bench/$1.times once "benchmark/$folder/$1" "$1: $UPDATES updates" "${@:2}"
}

measured cross-entropy live cross-entropy \
    --criterion label_smoothed_cross_entropy --label-smoothing 0.1
for reads in $READS; do measured "near-$reads" near "$reads"; done
LIMIT="--kd-max-len-a 1.2 --kd-max-len-b 3"
for method in $LIVE; do
    flags="--criterion ${method%-full} --teacher-path $TEACHER $LIMIT"
    case $method in
        # The student generates all rows, as in near-policy.
        imit_kd) flags+=" --kd-schedule constant --kd-beta 0" ;;
        imit_kd-full) flags+=" --kd-schedule constant --kd-beta 0 --imit-kd-loss full" ;;
        gkd) flags+=" --kd-beta 0" ;;
        *) fail "LIVE has $method, expected some of: imit_kd imit_kd-full gkd" ;;
    esac
    measured "$method" live "$method" $flags
done
python "$here/on_policy.py" "$bench" cross-entropy $(for n in $READS; do echo "near-$n"; done) $LIVE |
    tee "$out"
