#!/usr/bin/env bash
# Checks and measurements of what only a GPU can show, in at most eight minutes on one GPU: training
# in half precision with each method and with pruning, resuming it, stores and caches in float16,
# CTranslate2 on CUDA, evaluate's GPU rows, and the cost of word-level distillation at 32,000 symbols
# and the size of Transformer-base. The exit status is not 0 if a check fails.
#
#   bash examples/benchmarks/gpu.sh
#   SMOKE=1 bash examples/benchmarks/gpu.sh     # a dry run on the CPU, with tiny models
#
# Settings, by environment variables:
#   WORK      folder to write to, made anew (default: work/gpu)
#   JOBS      checks that run at a time (default: half of the cores, at most 6)
#   ONLY      only the checks whose names contain this, and no measurement
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
WORK=${WORK:-$(dirname "$(dirname "$here")")/work/gpu}

DEVICE="" ON_DEVICE="--device cuda --amp" CORPUS="4000 100 200" UPDATES=20 TEACHER_UPDATES=300
LAYERS=6 WIDTH=512 FFN=2048 SYMBOLS=32000 SENTENCES=20000 TOKENS=8192 ROUNDS=5 BATCHES=6
if [ -n "${SMOKE:-}" ]; then
    DEVICE=--cpu ON_DEVICE=--fork CORPUS="200 20 20" UPDATES=4 TEACHER_UPDATES=20
    LAYERS=1 WIDTH=16 FFN=32 SYMBOLS=200 SENTENCES=100 TOKENS=512 ROUNDS=1 BATCHES=1
elif ! python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    {
        echo "torch sees no GPU here. Expected one, or SMOKE=1 for a dry run on the CPU. It would"
        echo "have checked:"
        python "$here/gpu.py" --work "$WORK" --list
        echo "and measured the cost of word_kd at $SYMBOLS symbols, $LAYERS layers, width $WIDTH"
    } >&2
    exit 2
fi
rm -rf "$WORK"
. "$here/../lib.sh"
WORK=$(cd "$WORK" && pwd)
half=$((cores / 2))
JOBS=${JOBS:-$((half < 1 ? 1 : half > 6 ? 6 : half))}

step "a synthetic corpus, a teacher and a student"
python - "$here/.." "$WORK/text" $CORPUS <<'PYTHON'
import sys
sys.path.insert(0, sys.argv[1])
from synthetic import write_corpus
sizes = dict(zip(("train", "valid", "test"), map(int, sys.argv[3:])))
write_corpus(sys.argv[2], sizes, 1)
PYTHON
run preprocess fairseq-preprocess --source-lang src --target-lang tgt \
    --trainpref "$WORK/text/train" --validpref "$WORK/text/valid" \
    --testpref "$WORK/text/test" --destdir "$WORK/data-bin"

# train NAME DATA UPDATES FLAGS...
train() {
    run "$1" fairseq-train "$2" $DEVICE --save-dir "$WORK/$1" --task translation \
        --criterion label_smoothed_cross_entropy --label-smoothing 0.1 --seed 1 \
        --optimizer adam --lr 1e-3 --lr-scheduler inverse_sqrt --warmup-updates 50 \
        --max-tokens 2048 --required-batch-size-multiple 1 --max-update "$3" \
        --disable-validation --no-epoch-checkpoints --log-format simple "${@:4}"
}
train teacher "$WORK/data-bin" $TEACHER_UPDATES --arch transformer_iwslt_de_en \
    --share-decoder-input-output-embed $(size 2 2 128 512)
train student "$WORK/data-bin" $TEACHER_UPDATES --arch transformer_iwslt_de_en \
    --share-decoder-input-output-embed $(size 1 1 64 128)
TEACHER=$WORK/teacher/checkpoint_last.pt STUDENT=$WORK/student/checkpoint_last.pt

step "what the checks are compared with: a store and a cache, made on the CPU in float32"
run pseudo fairseq-seqkd generate "$WORK/data-bin" --teacher-path "$TEACHER" --cpu \
    --engine fairseq --accept-unfinished 1 --pseudo-targets "$WORK/pseudo"
run cache fairseq-seqkd cache "$WORK/data-bin" --teacher-path "$TEACHER" --cpu \
    --kd-cache "$WORK/cache"

step "checks, $JOBS at a time"
status=0
python "$here/gpu.py" --work "$WORK" --data "$WORK/data-bin" --teacher "$TEACHER" \
    --student "$STUDENT" --updates $UPDATES --jobs "$JOBS" --only "${ONLY:-}" $DEVICE || status=$?
[ -z "${ONLY:-}" ] || exit $status

step "the cost of word-level distillation: $SYMBOLS symbols, $LAYERS + $LAYERS layers, width $WIDTH"
mkdir -p "$WORK/random"
python "$here/random_sentences.py" "$WORK/random" $SYMBOLS $SENTENCES
run random_preprocess fairseq-preprocess --source-lang a --target-lang b --joined-dictionary \
    --srcdict "$WORK/random/dict.txt" --trainpref "$WORK/random/train" \
    --validpref "$WORK/random/train" --destdir "$WORK/random/data-bin"
for name in base.teacher base.student; do
    train $name "$WORK/random/data-bin" 1 --arch transformer --share-all-embeddings \
        $(size $LAYERS $LAYERS $WIDTH $FFN)
done
run base.cache fairseq-seqkd cache "$WORK/random/data-bin" $DEVICE \
    --teacher-path "$WORK/base.teacher/checkpoint_last.pt" --kd-cache "$WORK/random/cache"
python "$here/word_kd.py" "$WORK/random/data-bin" --cache "$WORK/random/cache" \
    --teacher "$WORK/base.teacher/checkpoint_last.pt" \
    --student "$WORK/base.student/checkpoint_last.pt" --max-tokens $TOKENS --rounds $ROUNDS \
    --batches $BATCHES $ON_DEVICE --out "$WORK/cost.md"
cat "$WORK/checks.md" "$WORK/cost.md" >"$WORK/gpu.md"
step "written to $WORK/gpu.md"
exit $status
