#!/usr/bin/env bash
# WMT14 English-German as in Kim & Rush 2016 (arXiv 1606.07947), on several nodes: from the
# published archives to a table of a teacher, its students and a pruned one.
#
#   bash examples/wmt14/distill.sh                     # LSTMs: 4 x 1000 teaches 2 x 500
#   MODEL=transformer bash examples/wmt14/distill.sh   # Transformers
#   SMOKE=1 bash examples/wmt14/distill.sh             # all steps in tiny, on made-up text
#
# Run it where jobs are submitted: what needs GPUs becomes a Slurm job of nodes.sbatch, which is
# waited for. Without Slurm it runs here, in PROCESSES processes. A step whose output is there is
# skipped: run it again and it goes on where it stopped.
# Settings, by environment variables:
#   WORK       folder to write to, seen by all nodes (default: work/wmt14)
#   MODEL      lstm (the default) or transformer
#   METHODS    which rows: none seq_kd all_three pruned (the default); the last two need seq_kd
#   SPARSITY   of the pruned student, 0.8
#   PROCESSES  on every node, 8
#   JOB_FLAGS  for sbatch, such as "--partition gpu --nodes 2"; what nodes.sbatch asks for is 4
#              nodes of 8 GPUs
#
# From Kim & Rush: the LSTMs' sizes, alpha = 0.5 of Word-KD, the 35-best lists, and the steps:
# Seq-KD, then fine-tuning by Seq-Inter with Word-KD; the pruned student is retrained by Seq-KD,
# then fine-tuned by Seq-Inter. What differs, or is not theirs:
# - the text, see prepare.sh: BLEU is not comparable with the paper's;
# - Word-KD is on the teacher's 8 most probable subwords and the mass of all others, from a cache,
#   so that fine-tuning needs no teacher (theirs is on the whole vocabulary);
# - Adam and batches of 32 x 4096 tokens, in place of SGD on small ones, which does not scale to
#   many GPUs; dropout 0.2 and gradients of at most norm 5 are from Luong et al. 2015 (arXiv
#   1508.04025), from whose LSTMs the teacher's size is;
# - weights are pruned by and by, in the first half of retraining;
# - the Transformers: the teacher has the size, dropout, label smoothing and warm-up of Vaswani et
#   al. 2017's base model (arXiv 1706.03762), and the learning rate of fairseq's
#   examples/scaling_nmt for large batches. The student has fewer decoder layers than encoder
#   layers, since it is the decoder that decoding waits for (Kasai et al. 2021, arXiv 2006.10369);
# - the small Transformer's sizes, learning rates and the lengths of all trainings are nobody's in
#   particular.
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
LIMITS="" TABLE=""
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
    # Models that have learned nothing do not stop by themselves.
    LIMITS="--max-source-positions 64 --max-target-positions 64"
    TABLE="--rounds 1 --engines fairseq"
fi

. "$here/prepare.sh"

# lstm LAYERS WIDTH: its flags. fairseq's decoder attends, and feeds what it attended to back.
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

# on_nodes NAME COMMAND...: as a job on several nodes, waited for; without Slurm, on this machine.
on_nodes() {
    local job="bash" name=$1
    if command -v sbatch >/dev/null; then
        job="sbatch --wait --job-name $name --output $WORK/logs/$name.%j.log ${JOB_FLAGS:-}"
    fi
    run "$name" $job "$here/nodes.sbatch" "${@:2}"
}

# What all trainings have in common. Every 1,000 updates the validation set is translated greedily,
# and the checkpoint with the best BLEU there is kept. Without a multiple of 1 fairseq would leave
# out sentences of a last batch.
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

# The learning rate falls with the root of updates; in fine-tuning linearly, from a small one.
SCRATCH="--lr $lr --lr-scheduler inverse_sqrt --warmup-updates $WARMUP --max-update $UPDATES"
FINE="--lr $FINE_LR --lr-scheduler polynomial_decay --total-num-update $FINE_TUNING
    --max-update $FINE_TUNING"
STOCK="--task translation --criterion label_smoothed_cross_entropy $smoothing"
TEACHER=$WORK/$MODEL-teacher/checkpoint_best.pt
PSEUDO="--task translation_seqkd --pseudo-targets $WORK/$MODEL-pseudo-targets $smoothing"

once "$MODEL-teacher" "the teacher" train "$MODEL-teacher" $STOCK $teacher $SCRATCH

# The store's chunks are shared by all processes of all nodes. The lists serve Seq-KD (the best of
# them) and Seq-Inter (the closest to gold), which is chosen on one node.
translate() {
    local store=$WORK/$MODEL-pseudo-targets.new
    on_nodes "$MODEL-translate" fairseq-seqkd generate "$WORK/data-bin" $DEVICE \
        --teacher-path "$TEACHER" --pseudo-targets "$store" --beam $BEAM
    PROCESSES=1 JOB_FLAGS="${JOB_FLAGS:-} --nodes 1" on_nodes "$MODEL-choose" \
        fairseq-seqkd merge "$WORK/data-bin" --pseudo-targets "$store" \
        --select closest --remove-bpe sentencepiece
}
once "$MODEL-pseudo-targets" "the teacher translates the training set, $BEAM-best" translate

rows=()

# student NAME "WHAT IT IS" FLAGS...
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
    once "$MODEL-cache" "what the teacher says along the hypotheses closest to gold" cache
    student all_three "Seq-KD + Seq-Inter + Word-KD" $PSEUDO --criterion seq_inter --kd-alpha 0.5 \
        --kd-cache "$WORK/$MODEL-cache" $FINE --finetune-from-model "$seq_kd"
}

pruned() {
    # No validation before all that is to go has gone: the best checkpoint would be a denser one.
    local half=$((RETRAINING / 2))
    student "retrained-$SPARSITY" "Seq-KD, $SPARSITY pruned" $PSEUDO --criterion seq_kd \
        --lr $lr --lr-scheduler polynomial_decay --warmup-updates $WARMUP \
        --total-num-update $RETRAINING --max-update $RETRAINING --finetune-from-model "$seq_kd" \
        --prune-sparsity "$SPARSITY" --prune-schedule cubic --prune-end-update $half \
        --validate-after-updates $half
    # Zeros stay zeros.
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
        --checkpoints "teacher=$TEACHER" "${rows[@]}"
}
once "$MODEL-table.md" "the table, on newstest2014" compare
cat "$WORK/$MODEL-table.md"
