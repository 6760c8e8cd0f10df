#!/usr/bin/env bash
# WMT14 English-German as in Kim & Rush 2016 (arXiv 1606.07947), on several nodes: from the
# published archives to a table that compares a teacher, its students and a pruned student.
#
#   bash examples/wmt14/distill.sh                     # LSTMs: 4 x 1000 teaches 2 x 500
#   MODEL=transformer bash examples/wmt14/distill.sh   # Transformers
#   SMOKE=1 bash examples/wmt14/distill.sh             # every step with tiny models, on synthetic text
#
# Run it on a login node: each step that needs GPUs is submitted to Slurm with nodes.sbatch, and the
# script waits for it. Without Slurm, steps run on this machine in PROCESSES processes. Steps whose
# output exists are skipped: run it again to resume after an interruption.
# Settings, by environment variables:
#   WORK       folder to write to, shared by all nodes (default: work/wmt14)
#   MODEL      lstm (the default) or transformer
#   METHODS    rows of the table: none seq_kd all_three pruned (the default); the last two need seq_kd
#   SPARSITY   of the pruned student, 0.8
#   PROCESSES  per node, 8
#   JOB_FLAGS  for sbatch, such as "--partition gpu --nodes 2"; nodes.sbatch requests 4 nodes of 8
#              GPUs
#
# From Kim & Rush: the sizes of the LSTMs, alpha = 0.5 of Word-KD, the 35-best lists, and the steps:
# Seq-KD, then fine-tuning by Seq-Inter with Word-KD; the pruned student is retrained by Seq-KD,
# then fine-tuned by Seq-Inter. Differences and additions:
# - the text, see prepare.sh: BLEU is not comparable with the paper's;
# - Word-KD compares the teacher's 8 most probable subwords and the mass of all others, from a cache,
#   so that fine-tuning needs no teacher (in the paper the whole vocabulary);
# - Adam and batches of 32 x 4096 tokens replace SGD on small batches, which does not scale to many
#   GPUs; dropout 0.2 and gradients clipped to norm 5 are from Luong et al. 2015 (arXiv 1508.04025),
#   as is the size of the teacher;
# - weights are pruned gradually, during the first half of retraining;
# - the Transformer teacher has the size, dropout, label smoothing and warm-up of the base model of
#   Vaswani et al. 2017 (arXiv 1706.03762), and the learning rate of fairseq's examples/scaling_nmt
#   for large batches. The student has fewer decoder layers than encoder layers, since the decoder
#   takes most of the decoding time (Kasai et al. 2021, arXiv 2006.10369);
# - the sizes of the small Transformer, its learning rates and all numbers of updates are not taken
#   from a paper.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
WORK=${WORK:-$(dirname "$(dirname "$here")")/work/wmt14}
. "$here/../lib.sh"
WORK=$(cd "$WORK" && pwd)

# Settings, then tiny ones.
WMT13=${WMT13:-http://statmt.org/wmt13}
WMT14=${WMT14:-http://statmt.org/wmt14}
DEV=${DEV:-http://data.statmt.org/wmt17/translation-task}
MODEL=${MODEL:-lstm}
ALL="none seq_kd all_three pruned"
METHODS=${METHODS:-$ALL}
SPARSITY=${SPARSITY:-0.8}
export PROCESSES=${PROCESSES:-8}
DEVICE="" TRAINING="--fp16"
VOCABULARY=32000 WORKERS=16 BEAM=35
UPDATES=30000 FINE_TUNING=3000 RETRAINING=10000 WARMUP=4000
TEACHER_LSTM="4 1000" STUDENT_LSTM="2 500"
TEACHER_SIZE="6 6 512 2048" STUDENT_SIZE="6 2 256 1024"
LSTM_LR=1e-3 TRANSFORMER_LR=1e-3 FINE_LR=1e-4
BATCH="--max-tokens 4096"
LIMITS="" TABLE="" ACCEPT=""
if [ -n "${SMOKE:-}" ]; then
    python "$EXAMPLES/archives.py" "$WORK/archives"
    WMT13=file://$WORK/archives WMT14=file://$WORK/archives DEV=file://$WORK/archives
    DEVICE=--cpu TRAINING="--cpu --distributed-backend gloo --ddp-backend legacy_ddp"
    PROCESSES=1
    VOCABULARY=200 WORKERS=1 BEAM=6
    UPDATES=8 FINE_TUNING=4 RETRAINING=8 WARMUP=3
    TEACHER_LSTM="2 24" STUDENT_LSTM="1 16"
    TEACHER_SIZE="2 2 24 32" STUDENT_SIZE="2 1 16 16"
    LSTM_LR=1e-2 TRANSFORMER_LR=1e-2 FINE_LR=1e-3
    BATCH="--max-tokens 600"
    # Models that have hardly learned anything rarely generate EOS.
    LIMITS="--max-source-positions 64 --max-target-positions 64"
    ACCEPT="--accept-unfinished 1"
    TABLE="--rounds 1 --engines fairseq"
fi

. "$here/prepare.sh"

# lstm LAYERS WIDTH: its flags. fairseq's decoder has attention with input feeding.
lstm() {
    echo --arch lstm --encoder-layers "$1" --decoder-layers "$1" \
        --encoder-embed-dim "$2" --encoder-hidden-size "$2" --decoder-embed-dim "$2" \
        --decoder-hidden-size "$2" --decoder-out-embed-dim "$2"
}

# transformer ENCODER DECODER WIDTH FFN
transformer() {
    echo --arch transformer $(size "$@") --encoder-attention-heads 8 --decoder-attention-heads 8
}

case $MODEL in
    lstm)
        teacher=$(lstm $TEACHER_LSTM) student=$(lstm $STUDENT_LSTM) lr=$LSTM_LR
        common="--dropout 0.2 --clip-norm 5"
        smoothing="" ;;
    transformer)
        teacher=$(transformer $TEACHER_SIZE) student=$(transformer $STUDENT_SIZE)
        lr=$TRANSFORMER_LR
        common="--share-all-embeddings --dropout 0.1"
        smoothing="--label-smoothing 0.1" ;;
    *) fail "MODEL is $MODEL, expected lstm or transformer" ;;
esac

# on_nodes NAME COMMAND...: run a command as a job on several nodes and wait for it; without Slurm,
# run it on this machine.
on_nodes() {
    local job="bash" name=$1
    if command -v sbatch >/dev/null; then
        job="sbatch --wait --job-name $name --output $WORK/logs/$name.%j.log ${JOB_FLAGS:-}"
    fi
    run "$name" $job "$here/nodes.sbatch" "${@:2}"
}

# train NAME FLAGS...: the flags that all trainings share. The validation set is translated greedily
# every 1,000 updates, and the checkpoint with the best BLEU is kept. With fairseq's default batch
# size multiple of 8, the last batch could lose sentences.
train() {
    on_nodes "$1" fairseq-train "$WORK/data-bin" --user-dir "$USER_DIR" $TRAINING \
        --save-dir "$WORK/$1.new" --seed 1 $common \
        --optimizer adam --adam-betas "(0.9, 0.98)" \
        $BATCH $LIMITS --required-batch-size-multiple 1 \
        --eval-bleu --eval-bleu-args '{"beam": 1, "max_len_a": 1.2, "max_len_b": 10}' \
        --eval-bleu-remove-bpe sentencepiece \
        --best-checkpoint-metric bleu --maximize-best-checkpoint-metric \
        --save-interval-updates 1000 --keep-interval-updates 1 \
        --save-interval 1000 --validate-interval 1000 --no-epoch-checkpoints \
        --log-format simple "${@:2}"
}

# The learning rate falls with the square root of the update; in fine-tuning it is small and falls
# linearly.
SCRATCH="--lr $lr --lr-scheduler inverse_sqrt --warmup-updates $WARMUP --max-update $UPDATES"
FINE="--lr $FINE_LR --lr-scheduler polynomial_decay --total-num-update $FINE_TUNING
    --max-update $FINE_TUNING"
STOCK="--task translation --criterion label_smoothed_cross_entropy $smoothing"
TEACHER=$WORK/$MODEL-teacher/checkpoint_best.pt
PSEUDO="--task translation_seqkd --pseudo-targets $WORK/$MODEL-pseudo-targets $ACCEPT $smoothing"

once "$MODEL-teacher" "the teacher" train "$MODEL-teacher" $STOCK $teacher $SCRATCH

# All processes of all nodes divide the store's chunks among them. Seq-KD trains on the best
# hypothesis of each n-best list, Seq-Inter on the one closest to gold, which one node selects.
translate() {
    local store=$WORK/$MODEL-pseudo-targets.new
    on_nodes "$MODEL-translate" fairseq-seqkd generate "$WORK/data-bin" $DEVICE \
        --teacher-path "$TEACHER" --pseudo-targets "$store" --beam $BEAM $ACCEPT
    PROCESSES=1 JOB_FLAGS="${JOB_FLAGS:-} --nodes 1" on_nodes "$MODEL-closest" \
        fairseq-seqkd merge "$WORK/data-bin" --pseudo-targets "$store" \
        --select closest --remove-bpe sentencepiece $ACCEPT
}
once "$MODEL-pseudo-targets" "the teacher translates the training set, $BEAM-best" translate

rows=()

# student NAME "TITLE" FLAGS...: train a student; TITLE is its row of the table.
student() {
    once "$MODEL-$1" "$2" train "$MODEL-$1" $student "${@:3}"
    rows+=("$2=$WORK/$MODEL-$1/checkpoint_best.pt")
}

seq_kd="$WORK/$MODEL-seq_kd/checkpoint_best.pt"

cache() {
    on_nodes "$MODEL-cache" fairseq-seqkd cache "$WORK/$MODEL-pseudo-targets/closest" $DEVICE \
        --teacher-path "$TEACHER" --kd-cache "$WORK/$MODEL-cache.new"
}

all_three() {
    once "$MODEL-cache" "the teacher's distributions at the hypotheses closest to gold" cache
    student all_three "Seq-KD + Seq-Inter + Word-KD" $PSEUDO --criterion seq_inter --kd-alpha 0.5 \
        --kd-cache "$WORK/$MODEL-cache" $FINE --finetune-from-model "$seq_kd"
}

pruned() {
    # No validation before pruning is complete: a denser checkpoint would win.
    local half=$((RETRAINING / 2))
    student "retrained-$SPARSITY" "Seq-KD, $SPARSITY pruned" $PSEUDO --criterion seq_kd \
        --lr $lr --lr-scheduler polynomial_decay --warmup-updates $WARMUP \
        --total-num-update $RETRAINING --max-update $RETRAINING --finetune-from-model "$seq_kd" \
        --prune-sparsity "$SPARSITY" --prune-schedule cubic --prune-end-update $half \
        --validate-after-updates $half
    # Fine-tuning keeps pruned weights at zero.
    student "pruned-$SPARSITY" "Seq-KD + Seq-Inter, $SPARSITY pruned" $PSEUDO \
        --criterion seq_inter $FINE --prune-sparsity "$SPARSITY" \
        --finetune-from-model "$WORK/$MODEL-retrained-$SPARSITY/checkpoint_best.pt"
}

for method in $METHODS; do
    case $method in
        none) student none "no distillation" $STOCK $SCRATCH ;;
        seq_kd) student seq_kd "Seq-KD" $PSEUDO --criterion seq_kd $SCRATCH ;;
        all_three) all_three ;;
        pruned) pruned ;;
        *) fail "METHODS has $method, expected some of: $ALL" ;;
    esac
done

compare() {
    OUTPUT=$WORK/$MODEL-table.md.new run "$MODEL-table" \
        fairseq-seqkd evaluate "$WORK/data-bin" $TABLE \
        --remove-bpe sentencepiece --ref "$WORK/raw/test.de" \
        --checkpoints "teacher=$TEACHER" ${rows[@]+"${rows[@]}"}
}
once "$MODEL-table.md" "the table of results on newstest2014" compare
cat "$WORK/$MODEL-table.md"
