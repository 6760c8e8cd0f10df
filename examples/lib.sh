# Shell functions of the recipes. Sourced after WORK, a folder to write to, is set.
mkdir -p "$WORK/logs"
EXAMPLES=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# More threads than cores slow small models down several times; more than two do not speed them up.
cores=$(getconf _NPROCESSORS_ONLN)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores < 2 ? cores : 2))}
# By default glibc returns large tensors to the kernel at every step, and then gets their pages back
# one by one, which is slow.
export MALLOC_MMAP_THRESHOLD_=8000000000 MALLOC_TRIM_THRESHOLD_=16000000000
export MALLOC_TOP_PAD_=500000000

USER_DIR=$(fairseq-seqkd user-dir 2>/dev/null)

# step TITLE...: print the title of the next step.
step() { printf '\n== %s\n' "$*"; }

fail() { echo "$*" >&2; exit 1; }

# required NAME...: fail unless each of these settings has a value.
required() {
    local name value
    for name; do
        eval "value=\${$name:-}"
        [ -n "$value" ] || fail "$name is not set: see the head of $0"
    done
}

# existing FILE...: fail unless each of them is there.
existing() {
    local file
    for file; do [ -e "$file" ] || fail "there is no $file"; done
}

# sha256 ARGUMENTS...: sha256sum, or on macOS shasum.
sha256() {
    if command -v sha256sum >/dev/null; then sha256sum "$@"; else shasum -a 256 "$@"; fi
}

# wait_any PID...: wait until one of these children has ended, set `ended` to it and return its
# exit status. bash 3.2, which macOS has, lacks `wait -n`.
wait_any() {
    while true; do
        for ended; do
            kill -0 "$ended" 2>/dev/null || { wait "$ended"; return; }
        done
        sleep 0.2
    done
}

# run NAME COMMAND...: print the command, run it, and append it and its output to logs/NAME.log. With
# OUTPUT set, the command's standard output goes to that file instead. If it takes longer than ten
# seconds, its progress is shown. With TIMES set, a line is appended to that file: the log, and the
# seconds of time, of processor time in the program, and of processor time in the system.
run() {
    local name=$1 begin=$SECONDS log=$WORK/logs/$1.log status=0 watcher
    local TIMEFORMAT="$log %R %U %S"
    shift
    { printf '$'; printf ' %q' "$@"; printf '\n'; } | tee -a "$log"
    python "$EXAMPLES/watch.py" "$log" "$@" &
    watcher=$!
    if [ -n "${OUTPUT:-}" ]; then
        { time "$@" >"$OUTPUT" 2>>"$log"; } 2>>"${TIMES:-/dev/null}" || status=$?
    else
        { time "$@" >>"$log" 2>&1; } 2>>"${TIMES:-/dev/null}" || status=$?
    fi
    kill $watcher 2>/dev/null || true
    wait $watcher || true
    if [ $status != 0 ]; then
        tail -n 20 "$log" >&2
        fail "This command failed; its whole output is in $log"
    fi
    printf '  done in %d s, log: %s\n' $((SECONDS - begin)) "$log"
}

# once NAME TITLE COMMAND...: make $WORK/NAME, unless it exists. The command makes $WORK/NAME.new, and
# resumes an unfinished one; it is renamed once it is complete.
once() {
    [ ! -e "$WORK/$1" ] || return 0
    step "$2"
    "${@:3}"
    mv "$WORK/$1.new" "$WORK/$1"
}

# size ENCODER DECODER WIDTH FFN: a Transformer's flags: numbers of layers, width of the model and of its
# feed-forward layers.
size() {
    echo --encoder-layers "$1" --decoder-layers "$2" \
        --encoder-embed-dim "$3" --decoder-embed-dim "$3" \
        --encoder-ffn-embed-dim "$4" --decoder-ffn-embed-dim "$4" \
        --encoder-attention-heads 4 --decoder-attention-heads 4
}

# download FOLDER URL: download a file into the folder, unless it exists.
download() {
    local file=$1/${2##*/}
    mkdir -p "$1"
    [ ! -e "$file" ] || return 0
    echo "$2"
    curl --fail --location --silent --show-error --output "$file.new" "$2"
    mv "$file.new" "$file"
}

# segments FILE...: print the sentences of the campaigns' XML and SGML files, one per line.
segments() {
    sed -n '/<seg/ {
        s/.*<seg[^>]*> *//
        s/ *<\/seg>.*//
        s/&quot;/"/g
        s/&apos;/'"'"'/g
        s/&lt;/</g
        s/&gt;/>/g
        s/&amp;/\&/g
        p
    }' "$@"
}

# learn_pieces MODEL SIZE FILE,FILE...: train one sentencepiece BPE model on all these files.
learn_pieces() {
    python - "$@" <<'PYTHON'
import sys
import sentencepiece
model, size, files = sys.argv[1:]
# A sample of a large corpus gives practically the same pieces in less memory.
sentencepiece.SentencePieceTrainer.train(
    input=files, model_prefix=model, vocab_size=int(size), model_type="bpe",
    character_coverage=1.0, num_threads=2, input_sentence_size=4_000_000,
    shuffle_input_sentence=True, minloglevel=1)
PYTHON
    mv "$1.model" "$1"
    rm "$1.vocab" # pieces and scores, which are in the model as well
}

# cut_text MODEL FROM TO NAME...: split files of the folder FROM into subwords, in the folder TO.
cut_text() {
    mkdir -p "$3"
    python - "$@" <<'PYTHON'
import sys
import sentencepiece
model, source, to, *names = sys.argv[1:]
pieces = sentencepiece.SentencePieceProcessor(model_file=model)
for name in names:
    with open(f"{source}/{name}", encoding="utf-8") as lines, \
         open(f"{to}/{name}", "w", encoding="utf-8") as out:
        for line in lines:
            print(" ".join(pieces.encode(line.strip(), out_type=str)), file=out)
PYTHON
}

# keep_pairs FROM TO SOURCE TARGET LONGEST RATIO: keep the pairs with 1 to LONGEST subwords on both
# sides, of which neither has more than RATIO times the other's (Moses' clean-corpus-n).
keep_pairs() {
    python - "$@" <<'PYTHON'
import sys
before, after, *sides = sys.argv[1:5]
longest, ratio = int(sys.argv[5]), float(sys.argv[6])
inputs = [open(f"{before}.{side}", encoding="utf-8") for side in sides]
outputs = [open(f"{after}.{side}", "w", encoding="utf-8") for side in sides]
for pair in zip(*inputs):
    shorter, longer = sorted(len(line.split()) for line in pair)
    if 0 < shorter and longer <= min(longest, ratio * shorter):
        for line, output in zip(pair, outputs):
            output.write(line)
PYTHON
}
