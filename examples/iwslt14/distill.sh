#!/usr/bin/env bash
# IWSLT14 German-English as in ImitKD (Lin et al. 2020, arXiv 2009.07253): from the published
# archive to a table that compares a Transformer teacher with small students.
#
#   bash examples/iwslt14/distill.sh                 # Transformer students
#   STUDENT=rnn bash examples/iwslt14/distill.sh     # RNN students of the same teacher
#   SMOKE=1 bash examples/iwslt14/distill.sh         # every step with tiny models, on synthetic text
#
# Steps whose output exists are skipped: run it again to resume after an interruption.
# Settings, by environment variables:
#   WORK      folder to write to (default: work/iwslt14)
#   STUDENT   transformer (the default) or rnn
#   METHODS   rows of the table: none seq_kd imit_kd_opt imit_kd_full imit_kd_star (the default)
#   SITE      address of the folder with de-en.tgz (default: the campaign's archive); file:///FOLDER
#             for a local copy
#   DEVICE    --cpu to ignore a GPU
#
# Model sizes, learning rates, numbers of updates and schedules are those of the configurations in
# the authors' code (github.com/asappresearch/imitkd, configs/iwslt). Differences:
# - the text, see prepare.sh: BLEU is not comparable with the paper's;
# - RNN students are fairseq's LSTMs; the paper's are GRUs;
# - batches have 128 sentences as in the paper, but of similar length;
# - the best checkpoint is selected by greedy BLEU on the validation set, every 1,000 updates, for
#   the teacher as well (in the paper by perplexity);
# - the authors have no configuration of ImitKD* for this data set: its schedule is the one of their
#   configuration for CNN/DailyMail.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
WORK=${WORK:-$(dirname "$(dirname "$here")")/work/iwslt14}
. "$here/../lib.sh"
WORK=$(cd "$WORK" && pwd)

# Settings of the paper, then tiny ones.
SITE=${SITE:-https://wit3.fbk.eu/archive/2014-01/texts/de/en}
STUDENT=${STUDENT:-transformer}
ALL="none seq_kd imit_kd_opt imit_kd_full imit_kd_star"
METHODS=${METHODS:-$ALL}
DEVICE=${DEVICE-}
VOCABULARY=10000
EMBED=256 LAYERS=8 TEACHER_FFN=1024 FFN=768 HIDDEN=256
TEACHER_UPDATES=50000 UPDATES=80000 WARMUP=5000
TEACHER_LR=1e-3 LR=1.414e-3
BATCH="--batch-size 128"
LIMITS="" TABLE="" ACCEPT=""
if [ -n "${SMOKE:-}" ]; then
    python "$EXAMPLES/archives.py" "$WORK/archives"
    SITE=file://$WORK/archives
    DEVICE=--cpu
    VOCABULARY=200
    EMBED=16 LAYERS=2 TEACHER_FFN=32 FFN=16 HIDDEN=8
    TEACHER_UPDATES=12 UPDATES=6 WARMUP=3
    TEACHER_LR=1e-2 LR=1e-2
    BATCH="--batch-size 32"
    # Models that have hardly learned anything rarely generate EOS.
    LIMITS="--max-source-positions 64 --max-target-positions 64"
    ACCEPT="--accept-unfinished 1"
    TABLE="--rounds 1 --engines fairseq"
fi

. "$here/prepare.sh"

# train NAME FLAGS...: the flags that all trainings share: Adam, whose learning rate rises for W
# updates and then falls with the square root of the update ("Noam"; its peak is 0.1 / sqrt(W)),
# gradients clipped to norm 5, dropout 0.1, no label smoothing. With fairseq's default batch size
# multiple of 8, the last batch could lose sentences.
train() {
    run "$1" fairseq-train "$WORK/data-bin" --user-dir "$USER_DIR" $DEVICE \
        --save-dir "$WORK/$1.new" --seed 1 --share-decoder-input-output-embed --dropout 0.1 \
        --optimizer adam --clip-norm 5 --lr-scheduler inverse_sqrt \
        $BATCH $LIMITS --required-batch-size-multiple 1 \
        --eval-bleu --eval-bleu-args '{"beam": 1, "max_len_a": 1.2, "max_len_b": 10}' \
        --eval-bleu-remove-bpe sentencepiece \
        --best-checkpoint-metric bleu --maximize-best-checkpoint-metric \
        --save-interval-updates 1000 --keep-interval-updates 1 \
        --save-interval 1000 --validate-interval 1000 --no-epoch-checkpoints \
        --log-format simple "${@:2}"
}

# Both kinds of students learn from a Transformer, as in the paper.
TEACHER=$WORK/teacher/checkpoint_best.pt
once teacher "the teacher, a Transformer of $LAYERS + $LAYERS layers" train teacher \
    --task translation --criterion cross_entropy \
    --arch transformer $(size $LAYERS $LAYERS $EMBED $TEACHER_FFN) \
    --lr $TEACHER_LR --warmup-updates $((2 * WARMUP)) --max-update $TEACHER_UPDATES

# Beam 5, as in the paper and in Kim & Rush's Seq-KD.
translate() {
    run translate fairseq-seqkd generate "$WORK/data-bin" --teacher-path "$TEACHER" \
        --pseudo-targets "$WORK/pseudo-targets.new" --beam 5 $DEVICE $ACCEPT
}
once pseudo-targets "the teacher translates the training set" translate

case $STUDENT in
    transformer) model="--arch transformer $(size 2 2 $EMBED $FFN)" ;;
    # The decoder is as wide as the encoder's two directions together.
    rnn) model="--arch lstm --encoder-bidirectional --encoder-layers 2 --decoder-layers 2
        --encoder-hidden-size $HIDDEN --decoder-hidden-size $((2 * HIDDEN))
        --encoder-embed-dim $EMBED --decoder-embed-dim $EMBED --decoder-out-embed-dim $EMBED" ;;
    *) fail "STUDENT is $STUDENT, expected transformer or rnn" ;;
esac

rows=()

# student NAME "TITLE: DESCRIPTION" FLAGS...: train a student; TITLE is its row of the table.
student() {
    once "$STUDENT-$1" "$2" train "$STUDENT-$1" $model --lr $LR --warmup-updates $WARMUP \
        --max-update $UPDATES "${@:3}"
    rows+=("${2%%:*}=$WORK/$STUDENT-$1/checkpoint_best.pt")
}

# The student's prefixes have at most 125 tokens in the paper; here 1.2 times the source and 10 more.
IMITATION="--teacher-path $TEACHER --kd-max-len-b 10"
PSEUDO="--task translation_seqkd --pseudo-targets $WORK/pseudo-targets $ACCEPT"

for method in $METHODS; do
    case $method in
        none) student none "no distillation" --task translation --criterion cross_entropy ;;
        seq_kd) student seq_kd "Seq-KD" $PSEUDO --criterion seq_kd ;;
        # beta = 200^(-t/N) is the default; tokens are drawn among the student's 5 most probable.
        imit_kd_opt) student imit_kd_opt "ImitKD: the teacher's most probable token" \
            --task translation --criterion imit_kd --kd-sampling-topk 5 $IMITATION ;;
        # Here the student generates greedily.
        imit_kd_full) student imit_kd_full "ImitKD + Full: the teacher's distribution" \
            --task translation --criterion imit_kd --imit-kd-loss full $IMITATION ;;
        # Data rows are the teacher's translations, and last longer: beta = 10^(-t/N).
        imit_kd_star) student imit_kd_star "ImitKD*: on the teacher's translations" \
            $PSEUDO --criterion imit_kd --kd-targets best --kd-schedule-base 10 $IMITATION ;;
        *) fail "METHODS has $method, expected some of: $ALL" ;;
    esac
done

compare() {
    OUTPUT=$WORK/table-$STUDENT.md.new run "table-$STUDENT" \
        fairseq-seqkd evaluate "$WORK/data-bin" $TABLE \
        --remove-bpe sentencepiece --ref "$WORK/raw/test.en" \
        --checkpoints "teacher=$TEACHER" ${rows[@]+"${rows[@]}"}
}
once "table-$STUDENT.md" "the table of results on the test set" compare
cat "$WORK/table-$STUDENT.md"
