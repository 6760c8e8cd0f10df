#!/usr/bin/env bash
# Time and memory of reading, comparing and binarising made-up text, as generate --text does first.
#
#   bash examples/benchmarks/text.sh              # some minutes, and 2 GB of disk
#   SMOKE=1 bash examples/benchmarks/text.sh
#
# Settings, by environment variables:
#   WORK      folder to write to (default: work/text, or work/text-smoke with SMOKE=1)
#   LINES     lines of the text, 10000000; with SMOKE=1 20000
#   SPM       a sentencepiece model that cuts the text (default: it is cut at spaces)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
WORK=${WORK:-$(dirname "$(dirname "$here")")/work/text${SMOKE:+-smoke}}
LINES=${LINES:-${SMOKE:+20000}}
python "$here/text.py" "$WORK" --lines "${LINES:-10000000}" ${SPM:+--spm-model "$SPM"}
