#!/usr/bin/env bash
# Distillation from end to end on a synthetic corpus, in minutes on two processor cores:
# a teacher, a student without distillation, three distilled students, a table that compares them,
# and an exported student. Shows every command; its output goes to $WORK/logs.
set -euo pipefail
cd "$(dirname "$0")"
WORK=$(dirname "$PWD")/work/quickstart # deleted at every start
rm -rf "$WORK"
. ./lib.sh
WORK=$(cd "$WORK" && pwd)
begin=$SECONDS

UPDATES=600     # of every student
FINE_TUNING=200 # more, for the student that is trained in two steps

step "1. Generate a corpus whose sentences have several valid translations"
run corpus python synthetic.py "$WORK/text"

step "2. Binarise it with stock fairseq"
run preprocess fairseq-preprocess --source-lang src --target-lang tgt \
    --trainpref "$WORK/text/train" --validpref "$WORK/text/valid" \
    --testpref "$WORK/text/test" --destdir "$WORK/data-bin"

# train NAME FLAGS...: the flags that all trainings share. The validation set is translated every 200
# updates, and the checkpoint with the best BLEU is kept. With fairseq's default batch size multiple
# of 8, the last batch could lose sentences.
train() {
    run "$1" fairseq-train "$WORK/data-bin" --user-dir "$USER_DIR" --cpu \
        --save-dir "$WORK/$1" --seed 1 --arch transformer --share-decoder-input-output-embed \
        --dropout 0.1 --optimizer adam --clip-norm 1.0 --lr-scheduler inverse_sqrt \
        --warmup-updates 100 --max-tokens 2048 --required-batch-size-multiple 1 \
        --eval-bleu --eval-bleu-args '{"beam": 1}' --best-checkpoint-metric bleu \
        --maximize-best-checkpoint-metric --save-interval-updates 200 \
        --keep-interval-updates 1 --save-interval 1000 --validate-interval 1000 \
        --no-epoch-checkpoints --log-format simple --log-interval 20 "${@:2}"
}

size() { # layers, width, feed-forward width, heads
    echo --encoder-layers "$1" --decoder-layers "$1" \
        --encoder-embed-dim "$2" --decoder-embed-dim "$2" \
        --encoder-ffn-embed-dim "$3" --decoder-ffn-embed-dim "$3" \
        --encoder-attention-heads "$4" --decoder-attention-heads "$4"
}

STOCK="--task translation --criterion label_smoothed_cross_entropy --label-smoothing 0.1"
STUDENT=$(size 1 48 96 2)
FROM_SCRATCH="--lr 8e-3"
TEACHER=$WORK/teacher/checkpoint_best.pt
DISTIL="--label-smoothing 0.1 --teacher-path $TEACHER"
PSEUDO="--task translation_seqkd --pseudo-targets $WORK/pseudo-targets"

step "3. Train the teacher with stock fairseq"
train teacher $STOCK $(size 2 128 512 4) --lr 2e-3 --max-update 800

step "4. Train a small student without distillation, also with stock fairseq"
train none $STOCK $STUDENT $FROM_SCRATCH --max-update $UPDATES

step "5. Word-KD: the same student; half of its loss compares it with the teacher's distributions"
train word_kd --task translation --criterion word_kd $DISTIL $STUDENT $FROM_SCRATCH \
    --max-update $UPDATES

step "6. Seq-KD: the teacher translates the training set once; the student trains on its translations"
train seq_kd $PSEUDO --criterion seq_kd $DISTIL $STUDENT $FROM_SCRATCH \
    --max-update $UPDATES

step "7. All three: fine-tune it on the hypotheses closest to gold (Seq-Inter), with the teacher's
   distributions (Word-KD), for $FINE_TUNING updates more"
train all_three $PSEUDO --criterion seq_inter --kd-alpha 0.5 $DISTIL $STUDENT \
    --lr 1e-3 --max-update $FINE_TUNING \
    --finetune-from-model "$WORK/seq_kd/checkpoint_best.pt"

step "8. Compare all models on the test set"
OUTPUT=$WORK/table.md run table fairseq-seqkd evaluate "$WORK/data-bin" --engines fairseq --rounds 2 \
    --out "$WORK/report" --checkpoints \
    "student without distillation=$WORK/none/checkpoint_best.pt" \
    "Word-KD=$WORK/word_kd/checkpoint_best.pt" \
    "Seq-KD=$WORK/seq_kd/checkpoint_best.pt" \
    "Seq-KD + Seq-Inter + Word-KD=$WORK/all_three/checkpoint_best.pt" \
    "teacher=$TEACHER"
echo
cat "$WORK/table.md"

step "9. Export a student to a folder that needs neither fairseq nor torch"
run export fairseq-seqkd export "$WORK/seq_kd/checkpoint_best.pt" --to ctranslate2 \
    --quantization int8 --out "$WORK/shipped"
echo "Input of $WORK/shipped/translate.py:"
head -n 3 "$WORK/text/test.src"
echo "Output:"
head -n 3 "$WORK/text/test.src" | python "$WORK/shipped/translate.py"

step "Done in $(((SECONDS - begin) / 60)) min $(((SECONDS - begin) % 60)) s"
cat <<END
Open $WORK/report/report.html: the table with plots and the command behind each row.
The students are $WORK/*/checkpoint_best.pt. Three commands to try next:

  fairseq-seqkd flags word_kd
  fairseq-seqkd cache $WORK/data-bin --teacher-path $TEACHER --kd-cache $WORK/cache
  fairseq-seqkd prune $WORK/seq_kd/checkpoint_best.pt $WORK/pruned.pt --sparsity 0.5

For your own data, go on with README.md: "Use it on your own data".
END
