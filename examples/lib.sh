# Shell functions of the recipes. Sourced after WORK, a folder to write to, is set.
mkdir -p "$WORK/logs"
# More threads than cores make small models several times slower; more than two, no faster.
cores=$(getconf _NPROCESSORS_ONLN)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores < 2 ? cores : 2))}
# On a CPU glibc would give large tensors back to the kernel at every step, and fetch their
# pages again one by one.
export MALLOC_MMAP_THRESHOLD_=8000000000 MALLOC_TRIM_THRESHOLD_=16000000000
export MALLOC_TOP_PAD_=500000000

USER_DIR=$(fairseq-seqkd user-dir 2>/dev/null)

# Say what comes next.
step() { printf '\n== %s\n' "$*"; }

fail() { echo "$*" >&2; exit 1; }

# run NAME COMMAND...: show the command, run it, keep its output in logs/NAME.log.
run() {
    local name=$1 begin=$SECONDS
    shift
    printf '$'; printf ' %q' "$@"; printf '\n'
    if ! "$@" >"$WORK/logs/$name.log" 2>&1; then
        tail -n 20 "$WORK/logs/$name.log" >&2
        fail "This command failed; its whole output is in $WORK/logs/$name.log"
    fi
    printf '  done in %d s, log: %s\n' $((SECONDS - begin)) "$WORK/logs/$name.log"
}

# size ENCODER DECODER WIDTH FFN: a Transformer's flags: its layers, its width, that of its
# feed-forward layers.
size() {
    echo --encoder-layers "$1" --decoder-layers "$2" \
        --encoder-embed-dim "$3" --decoder-embed-dim "$3" \
        --encoder-ffn-embed-dim "$4" --decoder-ffn-embed-dim "$4" \
        --encoder-attention-heads 4 --decoder-attention-heads 4
}
