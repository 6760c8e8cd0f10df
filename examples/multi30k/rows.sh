# The rows of the page: their text, their model and their flags. Sourced by claims.sh after its
# settings.
#
# A row is named METHOD.MODEL.SEED. The rows that carry a claim come first.
ALL="none.wide.1 seq_kd-captions.wide.1 none-all.wide.1 seq_kd-sources.wide.1
    none.wide.2 seq_kd-captions.wide.2 none-all.wide.2 seq_kd-sources.wide.2
    seq_kd-bitext.wide.1 mbr-captions.wide.1 lenpen-captions.wide.1 word_kd-captions.wide.1
    seq_inter.wide.1 none.narrow.1 seq_kd-captions.narrow.1 none.lstm.1 seq_kd-captions.lstm.1"
# Dropouts that are tried on each kind of text; all rows on that kind take the better one.
DROPOUTS=${DROPOUTS:-0 0.1}

# describe ROW: set the variables
#   corpus    the text: a function below makes it, in the folder $text
#   kind      of text, for the dropout: gold, all, captions
#   flags     of its method
#   begins    the row whose training it continues, if any
#   lr, model the model's learning rate, and its flags
#   label     its name on the page
#   seed
describe() {
    local method size
    IFS=. read -r method size seed <<<"$1"
    begins="" flags="--task translation --criterion label_smoothed_cross_entropy"
    case $method in
        none) corpus=data-bin kind=gold label="no distillation, bitext" ;;
        none-all) corpus=all kind=all label="no distillation, the teacher's text" ;;
        seq_kd-bitext) corpus=bitext kind=gold label="Seq-KD, bitext" ;;
        seq_kd-sources) corpus=sources kind=all label="Seq-KD, the teacher's sources" ;;
        seq_kd-captions) corpus=captions-best kind=captions label="Seq-KD, bitext + captions" ;;
        mbr-captions) corpus=captions-mbr kind=captions label="... MBR targets" ;;
        lenpen-captions) corpus=captions-lenpen kind=captions label="... re-ranked targets" ;;
        word_kd-captions)
            corpus=captions-best kind=captions label="... + Word-KD"
            flags="--task translation --criterion word_kd --kd-alpha 0.5"
            flags+=" --kd-cache $WORK/captions-cache"
            ;;
        seq_inter)
            corpus=closest kind=captions begins=seq_kd-captions.$size.$seed
            label="..., then Seq-Inter on the bitext"
            ;;
        *) fail "ROWS has $1, expected some of: $ALL" ;;
    esac
    text=$(text_of $corpus)
    case $size in
        wide) lr=5e-3 model=$(transformer $WIDE) ;;
        narrow) lr=5e-3 model=$(transformer $NARROW) label+=", width 64" ;;
        lstm) lr=2e-3 model=$(lstm $LSTM) label+=", LSTM" ;;
        *) fail "ROWS has $1, expected some of: $ALL" ;;
    esac
    [ "$seed" -gt 0 ] 2>/dev/null || fail "ROWS has $1, expected some of: $ALL"
}

# transformer ENCODER DECODER WIDTH FFN: its flags, see size() in lib.sh.
transformer() { echo --arch transformer --share-all-embeddings $(size "$@"); }

# lstm LAYERS WIDTH: its flags. It has attention, as Kim & Rush's LSTM.
lstm() {
    echo --arch lstm --share-all-embeddings --encoder-layers "$1" --decoder-layers "$1" \
        --encoder-embed-dim "$2" --decoder-embed-dim "$2" --decoder-out-embed-dim "$2" \
        --encoder-hidden-size "$2" --decoder-hidden-size "$2"
}

# The texts. Each is made once, with what it is made of.

# length_penalty: the teacher's best on the validation set.
length_penalty() { python "$here/claims.py" lenpen "$OUT/rows/teacher"; }

# store NAME TITLE DATA FLAGS...: n-best lists of the teacher.
store() {
    local flags
    [ ! -e "$WORK/$1" ] || return 0
    teacher
    flags="--teacher-path $TEACHER --teacher-data $WORK/data-bin --beam $BEAM"
    once "$1" "$2" workers "$1" generate "$3" --pseudo-targets "$WORK/$1.new" $flags \
        --lenpen "$(length_penalty)" --threads "$OMP_NUM_THREADS" $DEVICE $ACCEPT "${@:4}"
}

bitext_store() { store bitext-store "the teacher translates the bitext" "$WORK/data-bin"; }

captions_store() {
    captions
    store captions-store "the teacher translates German captions" "$WORK/data-bin" \
        --spm-model "$SPM" $(text_flags de) \
        --exclude $(plain_files de "train val test_2016_flickr test_2018_flickr")
}

# selected STORE FOLDER FLAGS...: other targets of the same lists.
selected() {
    [ -e "$WORK/$1/$2" ] || run "$1-$2" fairseq-seqkd merge "$WORK/data-bin" \
        --pseudo-targets "$WORK/$1" $ACCEPT "${@:3}"
}

# mixed NAME PART...: a mixture.
mixed() { once "$1" "mix $1" run "$1" fairseq-seqkd mix "$WORK/$1.new" "${@:2}"; }

# text_of CORPUS: its folder.
text_of() {
    case $1 in
        bitext) echo "$WORK/bitext-store/best" ;;
        closest) echo "$WORK/bitext-store/closest" ;;
        *) echo "$WORK/$1" ;;
    esac
}

# make_text CORPUS: make its folder, unless it is there.
make_text() {
    local lenpen
    case $1 in
        data-bin) ;;
        all) all ;;
        bitext) bitext_store ;;
        closest)
            bitext_store
            selected bitext-store closest --select closest --remove-bpe sentencepiece
            ;;
        sources)
            all
            bitext_store
            mixed back-translations "reverse:$WORK/back-translated/best"
            store sources-store "the teacher translates the back-translated captions" \
                "$WORK/back-translations"
            mixed sources "$WORK/bitext-store/best=2" "$WORK/sources-store/best"
            ;;
        captions-best)
            stores
            mixed captions-best "$WORK/bitext-store/best=2" "$WORK/captions-store/best"
            ;;
        captions-mbr)
            stores
            for one in bitext captions; do
                selected $one-store mbr --select mbr --remove-bpe sentencepiece
            done
            mixed captions-mbr "$WORK/bitext-store/mbr=2" "$WORK/captions-store/mbr"
            ;;
        captions-lenpen)
            stores
            lenpen=$(length_penalty)
            lenpen=$(python -c "print(f'{$lenpen + 0.6:.1f}')") # longer targets
            for one in bitext captions; do
                selected $one-store longer --lenpen "$lenpen" --databin longer
            done
            mixed captions-lenpen "$WORK/bitext-store/longer=2" "$WORK/captions-store/longer"
            ;;
    esac
}
stores() {
    bitext_store
    captions_store
}

# The cache is that of the targets that the row trains on.
make_cache() {
    teacher
    once captions-cache "the teacher's 8 most probable symbols at every position" \
        workers captions-cache cache "$WORK/captions-best" --teacher-path "$TEACHER" \
        --teacher-data "$WORK/data-bin" --kd-cache "$WORK/captions-cache.new" \
        --threads "$OMP_NUM_THREADS" $DEVICE
}
