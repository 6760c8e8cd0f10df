#!/usr/bin/env bash
# What a training step of each method costs against plain cross-entropy, on Multi30k.
#
#   bash examples/benchmarks/steps.sh
#
# Some minutes. The student is the undistilled one of examples/multi30k/claims.sh, which has to
# have run. Settings, by environment variables: WORK as there; TEACHER and STUDENT, other
# checkpoints; ROUNDS (5), how often everything takes its turn; OUT, a file for the table
# (default: $WORK/benchmark/steps.md).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
WORK=${WORK:-$(dirname "$(dirname "$here")")/work/multi30k}
. "$here/../lib.sh"
TEACHER=${TEACHER:-$WORK/teacher/checkpoint_best.pt}
STUDENT=${STUDENT:-$WORK/transformer-96-1000-none-1-0/checkpoint_best.pt}
for file in "$TEACHER" "$STUDENT"; do
    [ -e "$file" ] || fail "there is no $file: run examples/multi30k/claims.sh first"
done
mkdir -p "$WORK/benchmark"
python "$here/steps.py" "$WORK/data-bin" --teacher "$TEACHER" --student "$STUDENT" \
    --rounds "${ROUNDS:-5}" --out "${OUT:-$WORK/benchmark/steps.md}"
