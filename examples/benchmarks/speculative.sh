#!/usr/bin/env bash
# Speculative decoding beside the teacher alone: its greedy search and its beam, a line at a time
# and in batches, on the first sentences of Multi30k's test set.
#
#   bash examples/benchmarks/speculative.sh
#   SMOKE=1 bash examples/benchmarks/speculative.sh     # one round of 8 sentences
#
# It takes some minutes. Settings, by environment variables:
#   WORK      the folder of examples/multi30k/claims.sh (default: work/multi30k)
#   DATA      another data-bin
#   TEACHER, STUDENT  other checkpoints, with the dictionaries of DATA
#   SENTENCES how many, 200
#   DRAFTS    numbers of drafted tokens a round, "2 4 6"
#   ROUNDS    how often everything takes its turn, 5
#   OUT       file for the table (default: $WORK/benchmark/speculative.md)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
WORK=${WORK:-$(dirname "$(dirname "$here")")/work/multi30k}
export OMP_NUM_THREADS=1
. "$here/../lib.sh"
DATA=${DATA:-$WORK/data-bin}
TEACHER=${TEACHER:-$WORK/teacher/checkpoint_best.pt}
STUDENT=${STUDENT:-$WORK/seq_kd.wide.1/checkpoint_best.pt}
ROUNDS=${ROUNDS:-5} SENTENCES=${SENTENCES:-200} DRAFTS=${DRAFTS:-2 4 6}
if [ -n "${SMOKE:-}" ]; then ROUNDS=1 SENTENCES=8 DRAFTS=2; fi
for file in "$DATA" "$TEACHER" "$STUDENT"; do
    [ -e "$file" ] || fail "there is no $file: run examples/multi30k/claims.sh first"
done
mkdir -p "$WORK/benchmark"
python "$here/speculative.py" "$DATA" --teacher "$TEACHER" --student "$STUDENT" \
    --sentences "$SENTENCES" --draft-tokens $DRAFTS --rounds "$ROUNDS" \
    --out "${OUT:-$WORK/benchmark/speculative.md}"
