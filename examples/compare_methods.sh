#!/usr/bin/env bash
# Methods side by side from one warm start: each trains the same student on for as many updates, with
# every seed, and the validation set compares them. For a student that is trained already.
#
#   DATA=data-bin TEACHER=teacher.pt STUDENT=student.pt MODEL="--arch transformer ..." \
#       bash examples/compare_methods.sh
#   SMOKE=1 bash examples/compare_methods.sh      # every step with tiny models, on synthetic text
#
# With the models of examples/multi30k/claims.sh: DATA=work/multi30k/sources (the teacher's
# translations of its own training sources), TEACHER=work/multi30k/teacher/checkpoint_best.pt,
# STUDENT=work/multi30k/seq_kd-sources.wide.1/checkpoint_best.pt.
#
# Trainings whose output exists are skipped: run it again to resume after an interruption.
# Settings, by environment variables:
#   DATA      data-bin with the teacher's and the student's dictionaries
#   TEACHER, STUDENT  checkpoints
#   MODEL     the student's architecture, as in its training
#   WORK      folder to write to (default: work/compare-methods)
#   METHODS   some of the names in flags_of below (default: all); the first one is the control
#   SEEDS     default: 1 2
#   UPDATES   of each training, 1000
#   LR        of the first update, falling linearly to 0; a tenth of the student's own, 5e-4
#   TRAINING  more flags of fairseq-train, such as --fp16
#   REMOVE_BPE  how subwords are joined for BLEU (default: sentencepiece)
#   JOBS      trainings that run at a time, of one thread each (default: the number of cores)
#   DEVICE    --cpu to ignore a GPU
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
WORK=${WORK:-$(dirname "$here")/work/compare-methods}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # of each process
. "$here/lib.sh"
WORK=$(cd "$WORK" && pwd)

METHODS=${METHODS:-word_kd imit_kd gkd skew_kl skd switch tie_kd} SEEDS=${SEEDS:-1 2}
UPDATES=${UPDATES:-1000} LR=${LR:-5e-4} TRAINING=${TRAINING-} DEVICE=${DEVICE-}
REMOVE_BPE=${REMOVE_BPE-sentencepiece} BATCH=2048 JOBS=${JOBS:-$cores} BEAMS="1 5"
if [ -n "${SMOKE:-}" ]; then
    UPDATES=4 DEVICE=--cpu REMOVE_BPE="" BATCH=400 JOBS=2 BEAMS=1 SEEDS=1
    MODEL="--arch transformer --share-decoder-input-output-embed $(size 1 1 16 32)"
    . "$here/synthetic.sh"
fi
required DATA TEACHER STUDENT MODEL
existing "$DATA" "$TEACHER" "$STUDENT"

# flags_of METHOD: as in docs/methods.md. All learn from the teacher alone but Word-KD, ImitKD and
# TIE-KD, whose data rows also have their targets.
flags_of() {
    local on_policy="--criterion distill --kd-alpha 1 --kd-prefixes student --kd-schedule constant"
    case $1 in
        word_kd) echo --criterion word_kd ;;
        imit_kd) echo --criterion imit_kd ;;
        imit_kd_full) echo --criterion imit_kd --imit-kd-loss full ;;
        gkd) echo --criterion gkd ;;
        skew_kl) echo $on_policy --kd-beta 0.5 --kd-sampling-topk -1 --kd-divergence skew_kl ;;
        skd)
            echo --criterion distill --kd-alpha 1 --kd-prefixes interleaved \
                --kd-sampling-temperature 0.5 --kd-sampling-topp 0.5 \
                --kd-replacement-temperature 0.2 --kd-replacement-topp 0.5
            ;;
        switch) echo --criterion distill --kd-alpha 1 --kd-prefixes switch ;;
        tie_kd)
            echo --criterion distill --kd-divergence ranked_kl --kd-passes 3 --label-smoothing 0.1
            ;;
        *) fail "METHODS has $1, expected some of the names in flags_of in $0" ;;
    esac
}
for method in $METHODS; do flags_of "$method" >/dev/null; done

# trained METHOD SEED: without a validation on the way, so that all are compared after UPDATES.
trained() {
    once "$1.$2" "$1, seed $2: $UPDATES updates" run "$1.$2" fairseq-train "$DATA" \
        --user-dir "$USER_DIR" $DEVICE --save-dir "$WORK/$1.$2.new" --seed "$2" \
        --task translation $MODEL --teacher-path "$TEACHER" --teacher-data "$DATA" \
        $(flags_of "$1") --optimizer adam --adam-betas "(0.9, 0.98)" --clip-norm 1.0 \
        --max-tokens $BATCH --required-batch-size-multiple 1 --lr "$LR" \
        --lr-scheduler polynomial_decay --total-num-update "$UPDATES" --max-update "$UPDATES" \
        --finetune-from-model "$STUDENT" --disable-validation --no-epoch-checkpoints \
        --save-interval-updates $((UPDATES / 4)) --keep-interval-updates 1 \
        --log-format simple $TRAINING
}

running="" number=0
for seed in $SEEDS; do
    for method in $METHODS; do
        if [ $number = "$JOBS" ]; then
            wait_any $running
            running=" $running " running=${running/ $ended / } number=$((number - 1))
        fi
        trained "$method" "$seed" &
        running="$running $!" number=$((number + 1))
    done
done
for ended in $running; do wait "$ended"; done

step "greedy decoding and beam search of the validation set"
control=${METHODS%% *}
checkpoints="warm-start=$STUDENT" against=""
for method in $METHODS; do
    of_seeds=""
    for seed in $SEEDS; do of_seeds="$of_seeds,$WORK/$method.$seed/checkpoint_last.pt"; done
    checkpoints="$checkpoints $method=${of_seeds#,}"
done
for beam in $BEAMS; do against="$against --against $control:beam$beam"; done
OUTPUT=$WORK/table.md run evaluate fairseq-seqkd evaluate "$DATA" --split valid \
    ${REMOVE_BPE:+--remove-bpe $REMOVE_BPE} --beams $BEAMS --engines fairseq --rounds 1 \
    --threads "$OMP_NUM_THREADS" --devices ${DEVICES:-cpu} --checkpoints $checkpoints $against \
    --out "$WORK/report"
cat "$WORK/table.md"
