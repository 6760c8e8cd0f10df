# Sourced by the recipes beside it, after $here: settings, the data, the teacher, and how students
# are trained.
WORK=${WORK:-$(dirname "$(dirname "$here")")/work/multi30k}
. "$here/../lib.sh"
WORK=$(cd "$WORK" && pwd)
UPDATES=${UPDATES:-5000}
FINE_TUNING=${FINE_TUNING:-1000}
DEVICE=${DEVICE---cpu}
start=$((UPDATES - FINE_TUNING))

if [ -n "${TEACHER:-}" ] && [ -z "${SPM:-}" -o -z "${DICT:-}" ]; then
    fail "TEACHER is given without SPM or DICT, the subword model and dictionary it was trained with"
fi
. "$here/prepare.sh"

# What all trainings have in common. Every 250 updates the validation set is translated
# greedily, and the checkpoint with the best BLEU there is kept. Without a multiple of 1
# fairseq would leave out sentences of a last batch.
train() {
    run "$1" fairseq-train "$WORK/data-bin" --user-dir "$USER_DIR" $DEVICE \
        --save-dir "$WORK/$1.new" --seed 1 --arch transformer --share-all-embeddings \
        --optimizer adam --adam-betas "(0.9, 0.98)" --clip-norm 1.0 --label-smoothing 0.1 \
        --required-batch-size-multiple 1 \
        --eval-bleu --eval-bleu-args '{"beam": 1}' --eval-bleu-remove-bpe sentencepiece \
        --best-checkpoint-metric bleu --maximize-best-checkpoint-metric \
        --save-interval-updates 250 --keep-interval-updates 1 \
        --save-interval 1000 --validate-interval 1000 --no-epoch-checkpoints \
        --log-format simple "${@:2}"
    mv "$WORK/$1.new" "$WORK/$1"
}

if [ -z "${TEACHER:-}" ]; then
    TEACHER=$WORK/teacher/checkpoint_best.pt
    if [ ! -e "$TEACHER" ]; then
        step "the teacher, with stock fairseq"
        train teacher --task translation --criterion label_smoothed_cross_entropy \
            $(size 3 3 192 768) --dropout 0.2 --lr 2e-3 --lr-scheduler inverse_sqrt --warmup-updates 800 \
            --max-tokens 4096 --max-update 4200
    fi
fi

STUDENT="$(size 2 1 96 192) --dropout 0.1 --max-tokens 2048"
# The learning rate falls linearly to 0 at $UPDATES; fine-tuning takes over where it is then.
FROM_SCRATCH="--lr 3e-3 --lr-scheduler polynomial_decay --warmup-updates 400
    --total-num-update $UPDATES"
FINE="--lr 6e-4 --lr-scheduler polynomial_decay --total-num-update $FINE_TUNING"
STOCK="--task translation --criterion label_smoothed_cross_entropy"
DISTIL="--teacher-path $TEACHER"
# One store of 35-best lists, Kim & Rush's for Seq-Inter, serves Seq-KD as well.
PSEUDO="--task translation_seqkd --pseudo-targets $WORK/pseudo-targets
    --teacher-beam 35 --pseudo-remove-bpe sentencepiece"

# student NAME "WHAT IT IS" FLAGS...: trained from scratch for $UPDATES updates.
student() {
    [ -e "$WORK/$1" ] && return
    step "$2"
    train "$1" $STUDENT "${@:3}"
}

# longer NAME START: goes on with START's training up to $UPDATES updates.
longer() {
    [ -e "$WORK/$1" ] && return
    rm -rf "$WORK/$1.new"
    cp -r "$WORK/$2" "$WORK/$1.new"
    student "$1" "$2, on to $UPDATES updates" "${@:3}"
}
