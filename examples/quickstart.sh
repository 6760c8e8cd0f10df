#!/usr/bin/env bash
# Distillation from end to end on a made-up corpus, in minutes on two processor cores:
# a teacher, a student without distillation, three distilled ones, and a table.
# Every command that runs is shown; what it printed is kept in $WORK/logs.
set -euo pipefail
cd "$(dirname "$0")"
WORK=${WORK:-$PWD/../work/quickstart}
rm -rf "$WORK"
. ./lib.sh
WORK=$(cd "$WORK" && pwd)
begin=$SECONDS

UPDATES=600     # of every student
FINE_TUNING=150 # of those, in the row that is trained in two steps

step "1. Write a corpus whose sentences have several valid translations"
run corpus python synthetic.py "$WORK/text"

step "2. Binarise it with stock fairseq"
run preprocess fairseq-preprocess --source-lang src --target-lang tgt \
    --trainpref "$WORK/text/train" --validpref "$WORK/text/valid" \
    --testpref "$WORK/text/test" --destdir "$WORK/data-bin"

# What all trainings have in common. fairseq drops sentences of a last batch whose size is
# no multiple of 8 unless it is told 1. The checkpoint with the best validation BLEU is kept.
train() {
    local name=$1
    shift
    run "$name" fairseq-train "$WORK/data-bin" --user-dir "$(fairseq-seqkd user-dir)" \
        --cpu --seed 1 --optimizer adam --clip-norm 1.0 --max-tokens 2048 \
        --lr-scheduler inverse_sqrt --warmup-updates 100 --required-batch-size-multiple 1 \
        --arch transformer --share-decoder-input-output-embed --dropout 0.1 \
        --eval-bleu --eval-bleu-args '{"beam": 1}' --best-checkpoint-metric bleu \
        --maximize-best-checkpoint-metric --validate-interval-updates 50 \
        --keep-interval-updates 1 --no-epoch-checkpoints --no-last-checkpoints \
        --log-format simple --save-dir "$WORK/$name" "$@"
}

TEACHER_SIZE="--encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 160
    --decoder-embed-dim 160 --encoder-ffn-embed-dim 640 --decoder-ffn-embed-dim 640
    --encoder-attention-heads 4 --decoder-attention-heads 4"
STUDENT_SIZE="--encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 48
    --decoder-embed-dim 48 --encoder-ffn-embed-dim 96 --decoder-ffn-embed-dim 96
    --encoder-attention-heads 2 --decoder-attention-heads 2"
TEACHER=$WORK/teacher/checkpoint_best.pt

step "3. Train the teacher with stock fairseq"
train teacher --task translation --criterion label_smoothed_cross_entropy \
    --label-smoothing 0.1 $TEACHER_SIZE --lr 1e-3 --max-update 1200

step "4. A small student without distillation, stock as well"
train none --task translation --criterion label_smoothed_cross_entropy \
    --label-smoothing 0.1 $STUDENT_SIZE --lr 5e-3 --max-update $UPDATES

step "5. Word-KD: the same student, half its loss from the teacher's distributions"
train word_kd --task translation --criterion word_kd --teacher-path "$TEACHER" \
    --label-smoothing 0.1 $STUDENT_SIZE --lr 5e-3 --max-update $UPDATES

step "6. Seq-KD: the teacher translates the training set once, the student learns from that"
train seq_kd --task translation_seqkd --criterion seq_kd --teacher-path "$TEACHER" \
    --pseudo-targets "$WORK/pseudo-targets" --label-smoothing 0.1 \
    $STUDENT_SIZE --lr 5e-3 --max-update $UPDATES

step "7. All three: the Seq-KD student after $((UPDATES - FINE_TUNING)) updates, fine-tuned
   on the hypotheses closest to gold (Seq-Inter) with the teacher's distributions (Word-KD)"
train half_seq_kd --task translation_seqkd --criterion seq_kd --teacher-path "$TEACHER" \
    --pseudo-targets "$WORK/pseudo-targets" --label-smoothing 0.1 \
    $STUDENT_SIZE --lr 5e-3 --max-update $((UPDATES - FINE_TUNING))
train all_three --task translation_seqkd --criterion seq_inter --kd-alpha 0.5 \
    --teacher-path "$TEACHER" --pseudo-targets "$WORK/pseudo-targets" \
    --finetune-from-model "$WORK/half_seq_kd/checkpoint_best.pt" \
    $STUDENT_SIZE --lr 1e-3 --max-update $FINE_TUNING

step "8. Compare them on the test set"
run table fairseq-seqkd evaluate "$WORK/data-bin" --out "$WORK/table.md" --checkpoints \
    "teacher=$TEACHER" \
    "student without distillation=$WORK/none/checkpoint_best.pt" \
    "Word-KD=$WORK/word_kd/checkpoint_best.pt" \
    "Seq-KD=$WORK/seq_kd/checkpoint_best.pt" \
    "Seq-KD + Seq-Inter + Word-KD=$WORK/all_three/checkpoint_best.pt"
echo
cat "$WORK/table.md"

step "Done in $(((SECONDS - begin) / 60)) min $(((SECONDS - begin) % 60)) s. The students, ready for fairseq-generate: $WORK/*/checkpoint_best.pt"
