#!/usr/bin/env bash
# Near-policy distillation: the student translates in bulk, the teacher scores that once, and the
# student is trained on it at the price of cross-entropy; then a new round begins with the newer
# student. For a student that is trained already.
#
#   DATA=data-bin TEACHER=teacher.pt STUDENT=student.pt MODEL="--arch transformer ..." \
#       bash examples/near_policy.sh
#   SMOKE=1 bash examples/near_policy.sh          # every step with tiny models, on synthetic text
#
# Steps whose output exists are skipped: run it again to resume after an interruption.
# Settings, by environment variables:
#   DATA      data-bin with the teacher's and the student's dictionaries
#   TEACHER, STUDENT  checkpoints
#   MODEL     the student's architecture, as in its training
#   WORK      folder to write to (default: work/near-policy)
#   ROUNDS    number of rounds, 4
#   UPDATES   updates of a round, 800
#   SENTENCES sentences that the student translates for a round (default: all of DATA)
#   TEXT      flags of fairseq-seqkd round, such as --sampling; default: greedy, at most 1.2 times
#             the source's length and 10 more, without the 5 % that the teacher scores worst
#   LOSS      flags of the criterion distill (default: forward KL on all pairs)
#   LR, WARMUP  of the learning rate, which falls linearly to 0 over all rounds; 5e-4 and 100
#   TRAINING  more flags of fairseq-train, such as --fp16
#   SAVE      updates between two checkpoints in a round (default: UPDATES)
#   REMOVE_BPE  how subwords are joined for BLEU on the validation set (default: sentencepiece)
#   DEVICE    --cpu to ignore a GPU
#
# What continues from round to round: the first training starts from STUDENT's weights alone
# (--finetune-from-model), since that checkpoint had another loss and its learning rate is spent.
# All further rounds restore the last one's checkpoint (--restore-file) with Adam's moments, the
# update number and the learning rate's schedule: one training over all rounds, in which only the
# text changes. The position in the old text means nothing in the new one (--reset-dataloader).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
WORK=${WORK:-$(dirname "$here")/work/near-policy}
. "$here/lib.sh"
WORK=$(cd "$WORK" && pwd)

ROUNDS=${ROUNDS:-4} UPDATES=${UPDATES:-800} SENTENCES=${SENTENCES:-}
TEXT=${TEXT---max-len-a 1.2 --max-len-b 10 --filter-length-ratio 3 --filter-score-percentile 5}
LOSS=${LOSS-} LR=${LR:-5e-4} WARMUP=${WARMUP:-100} TRAINING=${TRAINING-} DEVICE=${DEVICE-}
REMOVE_BPE=${REMOVE_BPE-sentencepiece} BATCH=2048
if [ -n "${SMOKE:-}" ]; then
    ROUNDS=2 UPDATES=6 SENTENCES=60 WARMUP=2 DEVICE=--cpu REMOVE_BPE="" BATCH=400
    TEXT="--max-len-a 1.2 --max-len-b 10 --filter-score-percentile 5 --mix-fraction 0.2
        --accept-unfinished 1 --engine fairseq"
    MODEL="--arch transformer --share-decoder-input-output-embed $(size 1 1 16 32)"
    . "$here/synthetic.sh"
fi
required DATA TEACHER STUDENT MODEL
existing "$DATA" "$TEACHER" "$STUDENT"
total=$((ROUNDS * UPDATES))

# generated ROUND STUDENT: the data of a round, from the student's checkpoint. That its conversion is
# faithful is checked once: all students have the same architecture.
generated() {
    local check=""
    [ "$1" = 1 ] || check=--no-check
    run "round-$1" fairseq-seqkd round "$DATA" --out "$WORK/round-$1.new" --student "$2" \
        --student-data "$DATA" --teacher-path "$TEACHER" --seed "$1" $check \
        --threads "$OMP_NUM_THREADS" ${SENTENCES:+--sentences $SENTENCES} $TEXT $DEVICE
}

# trained ROUND FROM: UPDATES more updates on the data of a round. FROM is the checkpoint that it
# goes on from; a training that was interrupted has one of its own.
trained() {
    local from="--finetune-from-model $2"
    [ "$1" = 1 ] || from="--restore-file $2 --reset-dataloader"
    [ ! -e "$WORK/student-$1.new/checkpoint_last.pt" ] || from=""
    run "student-$1" fairseq-train "$WORK/round-$1/data-bin" --user-dir "$USER_DIR" $DEVICE \
        --save-dir "$WORK/student-$1.new" --seed 1 --task translation $MODEL \
        --criterion distill --kd-alpha 1 --kd-cache "$WORK/round-$1/cache" $LOSS \
        --optimizer adam --adam-betas "(0.9, 0.98)" --clip-norm 1.0 --max-tokens $BATCH \
        --lr "$LR" --lr-scheduler polynomial_decay --total-num-update $total \
        --warmup-updates "$WARMUP" --max-update $(($1 * UPDATES)) \
        --required-batch-size-multiple 1 --skip-invalid-size-inputs-valid-test \
        --eval-bleu --eval-bleu-args '{"beam": 1, "max_len_a": 1.2, "max_len_b": 10}' \
        ${REMOVE_BPE:+--eval-bleu-remove-bpe $REMOVE_BPE} \
        --best-checkpoint-metric bleu --maximize-best-checkpoint-metric \
        --save-interval-updates "${SAVE:-$UPDATES}" --keep-interval-updates 1 \
        --save-interval 100000 --validate-interval 100000 --no-epoch-checkpoints \
        --log-format simple --log-interval 100 $TRAINING $from
}

student=$STUDENT
for round in $(seq "$ROUNDS"); do
    once "round-$round" "round $round of $ROUNDS: the student's text, scored by the teacher" \
        generated "$round" "$student"
    once "student-$round" "round $round of $ROUNDS: $UPDATES updates" trained "$round" "$student"
    student=$WORK/student-$round/checkpoint_last.pt
    python "$here/near_policy.py" "$WORK" "$round"
done

step "all rounds"
python "$here/near_policy.py" "$WORK" $(seq "$ROUNDS") | tee "$WORK/rounds.md"
echo "The student of the last round: $student"
