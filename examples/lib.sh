# Shell functions of the recipes. Sourced after WORK, a folder to write to, is set.
mkdir -p "$WORK/logs"
EXAMPLES=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
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

# run NAME COMMAND...: show the command, run it, add both it and its output to logs/NAME.log. With
# OUTPUT set, what it prints to standard output goes to that file instead.
run() {
    local name=$1 begin=$SECONDS log=$WORK/logs/$1.log status=0
    shift
    { printf '$'; printf ' %q' "$@"; printf '\n'; } | tee -a "$log"
    if [ -n "${OUTPUT:-}" ]; then
        "$@" >"$OUTPUT" 2>>"$log" || status=$?
    else
        "$@" >>"$log" 2>&1 || status=$?
    fi
    if [ $status != 0 ]; then
        tail -n 20 "$log" >&2
        fail "This command failed; its whole output is in $log"
    fi
    printf '  done in %d s, log: %s\n' $((SECONDS - begin)) "$log"
}

# once NAME "WHAT IT IS" COMMAND...: make $WORK/NAME, unless it is there. The command writes
# $WORK/NAME.new and goes on with what it finds there: only what is whole gets its name.
once() {
    [ ! -e "$WORK/$1" ] || return 0
    step "$2"
    "${@:3}"
    mv "$WORK/$1.new" "$WORK/$1"
}

# size ENCODER DECODER WIDTH FFN: a Transformer's flags: its layers, its width, that of its
# feed-forward layers.
size() {
    echo --encoder-layers "$1" --decoder-layers "$2" \
        --encoder-embed-dim "$3" --decoder-embed-dim "$3" \
        --encoder-ffn-embed-dim "$4" --decoder-ffn-embed-dim "$4" \
        --encoder-attention-heads 4 --decoder-attention-heads 4
}

# download FOLDER URL: into the folder, unless it is there.
download() {
    local file=$1/${2##*/}
    mkdir -p "$1"
    [ ! -e "$file" ] || return 0
    echo "$2"
    curl --fail --location --silent --show-error --output "$file.new" "$2"
    mv "$file.new" "$file"
}

# segments FILE...: the sentences of the campaigns' XML and SGML, one a line.
segments() {
    sed -n 's/.*<seg[^>]*> *//; t sentence; d; :sentence; s/ *<\/seg>.*//
        s/&quot;/"/g; s/&apos;/'"'"'/g; s/&lt;/</g; s/&gt;/>/g; s/&amp;/\&/g; p' "$@"
}

# learn_pieces MODEL SIZE FILE,FILE...: one sentencepiece BPE model of all these files.
learn_pieces() {
    python - "$@" <<'PYTHON'
import sys
import sentencepiece
model, size, files = sys.argv[1:]
# A sample of a large corpus says the same in less memory.
sentencepiece.SentencePieceTrainer.train(
    input=files, model_prefix=model, vocab_size=int(size), model_type="bpe",
    character_coverage=1.0, num_threads=2, input_sentence_size=4_000_000,
    shuffle_input_sentence=True, minloglevel=1)
PYTHON
    mv "$1.model" "$1"
    rm "$1.vocab" # pieces and scores, which are in the model as well
}

# cut_text MODEL FROM TO NAME...: these files of a folder in subwords, in another folder.
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

# keep_pairs FROM TO SOURCE TARGET LONGEST RATIO: the pairs of which both sides have 1 to LONGEST
# subwords, and neither more than RATIO times the other's (Moses' clean-corpus-n).
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
