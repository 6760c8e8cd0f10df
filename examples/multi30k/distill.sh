#!/usr/bin/env bash
# Multi30k German-English: from raw text to a table of a teacher and distilled students.
#
#   bash examples/multi30k/distill.sh
#
# A step whose output is there is skipped: run it again and it goes on where it stopped.
# Settings, by environment variables:
#   WORK      folder to write to (default: work/multi30k)
#   DATA      folder with the raw text, {train,val,test_2016_flickr}.{de,en}.gz
#             (default: downloaded from the data set's public repository)
#   TEACHER   a teacher's checkpoint, with SPM and DICT, the sentencepiece model and the
#             joined fairseq dictionary it was trained with (default: all are made here)
#   UPDATES   of every student, 5000; FINE_TUNING: the last of them, 1000, in rows of two steps
#   DEVICE    empty for a GPU (default: --cpu)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/training.sh"

student none-start "no distillation, $start updates" $STOCK $FROM_SCRATCH --max-update $start
longer none none-start $STOCK $FROM_SCRATCH --max-update "$UPDATES"

student word_kd "Word-KD" --task translation --criterion word_kd $DISTIL $FROM_SCRATCH \
    --max-update "$UPDATES"

if [ ! -e "$WORK/word_kd_cache" ]; then
    step "the teacher's 8 most probable symbols at every target position, written down"
    run cache fairseq-seqkd cache "$WORK/data-bin" --teacher-path "$TEACHER" \
        --teacher-data "$WORK/data-bin" --kd-cache "$WORK/cache" $DEVICE
fi
student word_kd_cache "Word-KD from that cache, without the teacher" --task translation \
    --criterion word_kd --kd-cache "$WORK/cache" $FROM_SCRATCH --max-update "$UPDATES"

for loss in opt full; do
    student imit_kd_$loss "ImitKD ($loss), on the student's own prefixes" --task translation \
        --criterion imit_kd --imit-kd-loss $loss --kd-max-len-b 10 $DISTIL $FROM_SCRATCH \
        --max-update "$UPDATES"
done

student seq_kd-start "Seq-KD, $start updates; the teacher translates the training set first" \
    $PSEUDO --criterion seq_kd $DISTIL $FROM_SCRATCH --max-update $start
longer seq_kd seq_kd-start $PSEUDO --criterion seq_kd $DISTIL $FROM_SCRATCH \
    --max-update "$UPDATES"

student seq_inter "Seq-Inter: no distillation, then $FINE_TUNING updates on what is closest to gold" \
    $PSEUDO --criterion seq_inter $DISTIL $FINE --max-update "$FINE_TUNING" \
    --finetune-from-model "$WORK/none-start/checkpoint_best.pt"

student all_three "all three: Seq-KD, then $FINE_TUNING updates of Seq-Inter with Word-KD" \
    $PSEUDO --criterion seq_inter --kd-alpha 0.5 $DISTIL $FINE --max-update "$FINE_TUNING" \
    --finetune-from-model "$WORK/seq_kd-start/checkpoint_best.pt"

step "the table, on test_2016_flickr"
[ -e "$WORK/report" ] || OUTPUT=$WORK/table.md run table fairseq-seqkd evaluate "$WORK/data-bin" \
    --remove-bpe sentencepiece --ref "$WORK/raw/test_2016_flickr.en" \
    --out "$WORK/report" --checkpoints "teacher=$TEACHER" \
    "no distillation=$WORK/none/checkpoint_best.pt" \
    "Word-KD=$WORK/word_kd/checkpoint_best.pt" \
    "Word-KD, cache of 8=$WORK/word_kd_cache/checkpoint_best.pt" \
    "ImitKD opt=$WORK/imit_kd_opt/checkpoint_best.pt" \
    "ImitKD full=$WORK/imit_kd_full/checkpoint_best.pt" \
    "Seq-KD=$WORK/seq_kd/checkpoint_best.pt" \
    "Seq-Inter=$WORK/seq_inter/checkpoint_best.pt" \
    "Seq-KD + Seq-Inter + Word-KD=$WORK/all_three/checkpoint_best.pt"
cat "$WORK/table.md"
