#!/usr/bin/env bash
# Multi30k German-English: the Seq-KD student of distill.sh, pruned and retrained (Kim & Rush 2016,
# section 4.2), and a table of what is left of it.
#
#   bash examples/multi30k/distill.sh     # first: the student, the teacher and its translations
#   bash examples/multi30k/prune.sh
#
# A step whose output is there is skipped. Settings, by environment variables: those of distill.sh,
# and
#   SPARSITIES  default: "0 0.5 0.61 0.8 0.9"; 0.61 leaves a thirteenth of the teacher
#   RETRAINING  updates, 3000; weights go during the first two thirds, most of them at the beginning
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/training.sh"
SPARSITIES=${SPARSITIES:-0 0.5 0.61 0.8 0.9}
RETRAINING=${RETRAINING:-3000}
[ -e "$WORK/seq_kd" ] || fail "there is no $WORK/seq_kd: run examples/multi30k/distill.sh first"

# No validation before all that is to go has gone: the best checkpoint would be a denser one.
pruned=$((RETRAINING * 2 / 3))
rows=()
for sparsity in $SPARSITIES; do
    student "pruned-$sparsity" "$sparsity of the weights pruned, $RETRAINING updates more" \
        $PSEUDO --criterion seq_kd $DISTIL --max-update "$RETRAINING" \
        --lr 3e-3 --lr-scheduler polynomial_decay --warmup-updates 400 \
        --total-num-update "$RETRAINING" \
        --finetune-from-model "$WORK/seq_kd/checkpoint_best.pt" \
        --prune-sparsity "$sparsity" --prune-schedule cubic --prune-every 100 \
        --prune-end-update $pruned --validate-after-updates $pruned
    rows+=("$sparsity pruned=$WORK/pruned-$sparsity/checkpoint_best.pt")
done

# The first row, unpruned, is what the others are compared with. How many times fewer than the
# teacher's their parameters are, each training says at its end.
step "the table, on test_2016_flickr"
OUTPUT=$WORK/pruned.md run pruned_table fairseq-seqkd evaluate "$WORK/data-bin" \
    --remove-bpe sentencepiece --ref "$WORK/raw/test_2016_flickr.en" \
    --engines fairseq --out "$WORK/pruned-report" --checkpoints "${rows[@]}" "teacher=$TEACHER"
cat "$WORK/pruned.md"

step "what a file takes: as a checkpoint without optimizer, and sparse"
for sparsity in $SPARSITIES; do
    for format in fairseq:pt sparse:safetensors; do
        fairseq-seqkd export "$WORK/pruned-$sparsity/checkpoint_best.pt" --to "${format%:*}" \
            --out "$WORK/pruned-$sparsity.${format#*:}" 2>/dev/null | head -n 1
    done
done
