#!/usr/bin/env bash
# WikiText-103: Word-KD of a language model, from the published archive to perplexities.
#
#   bash examples/language_model/distill.sh
#   SMOKE=1 bash examples/language_model/distill.sh    # all steps in tiny, on made-up text
#
# A step whose output is there is skipped: run it again and it goes on where it stopped.
# Settings, by environment variables:
#   WORK      folder to write to (default: work/language_model)
#   SITE      where wikitext-103-v1.zip is (default: the address in fairseq's
#             examples/language_model); file:///FOLDER if you have it already
#   TOP_K     symbols in the cache, 8: with the 103 million tokens of the training text, 34 bytes a
#             token are 3.5 GB
#
# The teacher is the Transformer of fairseq's examples/language_model, trained as there. The student
# has a third of its layers and half of its width, nobody's in particular. A teacher with an
# adaptive softmax (--arch transformer_lm_wiki103) serves as well, and so do other divergences
# (--criterion distill --kd-divergence ...) and weightings, on the cache or with the teacher
# (--teacher-path in the place of --kd-cache). ImitKD, GKD and whatever else has the student's own
# prefixes do not: they need a source to write a target for, and refuse a language model.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
WORK=${WORK:-$(dirname "$(dirname "$here")")/work/language_model}
. "$here/../lib.sh"
WORK=$(cd "$WORK" && pwd)

# Settings, then tiny ones.
SITE=${SITE:-https://s3.amazonaws.com/research.metamind.io/wikitext}
TOP_K=${TOP_K:-8}
DEVICE="" PRECISION="--fp16"
WORKERS=16
TEACHER_SIZE="6 512 2048 8" STUDENT_SIZE="2 256 1024 4"
TOKENS=512 CONTEXT=400
LR=5e-4 WARMUP=4000 UPDATES=50000
BATCH="--max-tokens 2048 --update-freq 16"
if [ -n "${SMOKE:-}" ]; then
    python "$EXAMPLES/archives.py" "$WORK/archives"
    SITE=file://$WORK/archives
    DEVICE=--cpu PRECISION=""
    WORKERS=1
    TEACHER_SIZE="2 32 64 2" STUDENT_SIZE="1 16 16 2"
    TOKENS=32 CONTEXT=16
    LR=1e-2 WARMUP=4 UPDATES=20
    BATCH="--max-tokens 1024"
fi

raw_text() {
    download "$WORK/download" "$SITE/wikitext-103-v1.zip"
    python -m zipfile -e "$WORK/download/wikitext-103-v1.zip" "$WORK/raw.new"
}
once raw "raw text from $SITE" raw_text

# Words, as published: the vocabulary has 267,735.
binarise() {
    local text=$WORK/raw/wikitext-103/wiki
    run preprocess fairseq-preprocess --only-source --trainpref "$text.train.tokens" \
        --validpref "$text.valid.tokens" --testpref "$text.test.tokens" \
        --destdir "$WORK/data-bin.new" --workers $WORKERS
}
once data-bin "binarise" binarise

# layers LAYERS WIDTH FFN HEADS: a language model's flags. Embeddings would be 512 wide by default.
layers() {
    echo --arch transformer_lm --share-decoder-input-output-embed --decoder-layers "$1" \
        --decoder-embed-dim "$2" --decoder-input-dim "$2" --decoder-output-dim "$2" \
        --decoder-ffn-embed-dim "$3" --decoder-attention-heads "$4"
}

# What all trainings have in common: fairseq's example, which trains on 16 batches of 2,048 tokens
# an update, cut from the text every 512 tokens. Without a multiple of 1 fairseq would leave out
# blocks of a last batch.
train() {
    run "$1" fairseq-train "$WORK/data-bin" --user-dir "$USER_DIR" $DEVICE $PRECISION \
        --save-dir "$WORK/$1.new" --seed 1 --task language_modeling --tokens-per-sample $TOKENS \
        --sample-break-mode none --dropout 0.1 --optimizer adam --adam-betas "(0.9, 0.98)" \
        --weight-decay 0.01 --clip-norm 0.0 --lr $LR --lr-scheduler inverse_sqrt \
        --warmup-updates $WARMUP --warmup-init-lr 1e-07 --max-update $UPDATES \
        $BATCH --required-batch-size-multiple 1 --no-epoch-checkpoints --log-format simple "${@:2}"
}

TEACHER=$WORK/teacher/checkpoint_best.pt
STUDENT=$(layers $STUDENT_SIZE)
once teacher "the teacher" train teacher --criterion cross_entropy $(layers $TEACHER_SIZE)

# torchrun and Slurm share this among processes, see the README.
cache() {
    run cache fairseq-seqkd cache "$WORK/data-bin" --teacher-path "$TEACHER" --top-k "$TOP_K" \
        --kd-cache "$WORK/cache.new" $DEVICE
}
once cache "the teacher's $TOP_K most probable words at every position, written down" cache

once none "a student without distillation" train none --criterion cross_entropy $STUDENT
once word_kd "Word-KD: half of the loss from the cache, without the teacher" \
    train word_kd --criterion word_kd --kd-cache "$WORK/cache" $STUDENT

# perplexity NAME "ROW": a row of the table. As in fairseq's example, a word is scored with at least
# 400 words before it.
perplexity() {
    local log=$WORK/logs/$1-perplexity.log
    run "$1-perplexity" fairseq-eval-lm "$WORK/data-bin" --user-dir "$USER_DIR" $DEVICE \
        --path "$WORK/$1/checkpoint_best.pt" --batch-size 2 --required-batch-size-multiple 1 \
        --tokens-per-sample $TOKENS --context-window $CONTEXT >&2
    printf '| %s | %s | %s |\n' "$2" \
        "$(sed -n 's/.*num. model params: \([0-9,]*\).*/\1/p' "$log")" \
        "$(sed -n 's/.*Perplexity: \([0-9.]*\).*/\1/p' "$log")"
}
table() {
    {
        printf '| model | parameters | perplexity |\n|---|--:|--:|\n'
        perplexity teacher "teacher"
        perplexity none "no distillation"
        perplexity word_kd "Word-KD"
    } >"$WORK/table.md.new"
}
once table.md "perplexities of the test set" table
cat "$WORK/table.md"
