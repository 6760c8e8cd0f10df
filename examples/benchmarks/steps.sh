#!/usr/bin/env bash
# The cost of a training step of each method, relative to plain cross-entropy, on Multi30k.
#
#   bash examples/benchmarks/steps.sh
#   SMOKE=1 bash examples/benchmarks/steps.sh     # one round of one batch
#
# It takes some minutes. The student is the undistilled one of examples/multi30k/claims.sh, so run
# that first. Settings, by environment variables:
#   WORK      the folder of examples/multi30k/claims.sh (default: work/multi30k)
#   DATA      another data-bin
#   TEACHER, STUDENT  other checkpoints
#   ROUNDS    how often every method takes its turn, 5
#   OUT       file for the table (default: $WORK/benchmark/steps.md)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
WORK=${WORK:-$(dirname "$(dirname "$here")")/work/multi30k}
. "$here/../lib.sh"
DATA=${DATA:-$WORK/data-bin}
TEACHER=${TEACHER:-$WORK/teacher/checkpoint_best.pt}
STUDENT=${STUDENT:-$WORK/none.wide.1/checkpoint_best.pt}
ROUNDS=${ROUNDS:-5} BATCHES=8
if [ -n "${SMOKE:-}" ]; then ROUNDS=1 BATCHES=1; fi
for file in "$DATA" "$TEACHER" "$STUDENT"; do
    [ -e "$file" ] || fail "there is no $file: run examples/multi30k/claims.sh first"
done
mkdir -p "$WORK/benchmark"
python "$here/steps.py" "$DATA" --teacher "$TEACHER" --student "$STUDENT" \
    --rounds "$ROUNDS" --batches $BATCHES --out "${OUT:-$WORK/benchmark/steps.md}"
