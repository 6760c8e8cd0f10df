#!/usr/bin/env bash
# The time to select by minimum Bayes risk, relative to decoding the lists with CTranslate2, and
# whether it selects what a plain loop over sacreBLEU selects: 1,000 sentences of Multi30k.
#
#   bash examples/benchmarks/mbr.sh
#   SMOKE=1 bash examples/benchmarks/mbr.sh     # one round of 20 sentences, lists of 4
#
# It takes about ten minutes, most of it the plain loop over lists of 32. Settings, by
# environment variables:
#   WORK      the folder of examples/multi30k/claims.sh (default: work/multi30k)
#   DATA      another data-bin
#   TEACHER   another checkpoint
#   ROUNDS    how often every step takes its turn, 3
#   NBEST     sizes of the lists, "5 32"
#   OUT       file for the table (default: $WORK/benchmark/mbr.md)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
WORK=${WORK:-$(dirname "$(dirname "$here")")/work/multi30k}
export OMP_NUM_THREADS=1
. "$here/../lib.sh"
DATA=${DATA:-$WORK/data-bin}
TEACHER=${TEACHER:-$WORK/teacher/checkpoint_best.pt}
ROUNDS=${ROUNDS:-3} SENTENCES=1000 NBEST=${NBEST:-5 32}
if [ -n "${SMOKE:-}" ]; then ROUNDS=1 SENTENCES=20 NBEST=4; fi
for file in "$DATA" "$TEACHER"; do
    [ -e "$file" ] || fail "there is no $file: run examples/multi30k/claims.sh first"
done
mkdir -p "$WORK/benchmark"
python "$here/mbr.py" "$DATA" --teacher-path "$TEACHER" --teacher-data "$DATA" \
    --work "$WORK/benchmark" --sentences "$SENTENCES" --nbest $NBEST --rounds "$ROUNDS" \
    --out "${OUT:-$WORK/benchmark/mbr.md}"
