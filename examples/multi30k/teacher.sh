# The teacher learns from the bitext and from English captions that a reverse model translated
# into German. Sourced by claims.sh after its settings.

# reverse: an English-German model of the bitext.
reverse() {
    once reverse "a reverse model, English to German" \
        train reverse "$WORK/data-bin" --task translation -s en -t de \
        --criterion label_smoothed_cross_entropy --arch transformer --share-all-embeddings \
        $(size $REVERSE_MODEL) --dropout 0.1 --seed 1 \
        $(falling $REVERSE_LR $REVERSE_UPDATES) --warmup-updates $WARMUP
}

# translated NAME TITLE FLAGS...: the store $WORK/NAME of a model's translations of the data-bin.
translated() {
    once "$1" "$2" workers "$1" generate "$WORK/data-bin" --pseudo-targets "$WORK/$1.new" \
        --spm-model "$SPM" --threads "$OMP_NUM_THREADS" $DEVICE $ACCEPT "${@:3}"
}

# all: the text that the teacher learns from: the bitext twice, and the captions with their
# translations as sources. No line of the validation and test sets is in it.
all() {
    captions
    reverse
    translated back-translated "the reverse model translates English captions" -s en -t de \
        --teacher-path "$WORK/reverse/checkpoint_best.pt" --beam 1 \
        $(text_flags en) --exclude $(plain_files en "train val test_2016_flickr test_2018_flickr")
    once all "mix the teacher's text" run all fairseq-seqkd mix "$WORK/all.new" \
        "$WORK/data-bin=2" "reverse:$WORK/back-translated/best"
}

# text_flags LANGUAGE: the captions in this language as flags.
text_flags() {
    local number
    for number in 1 2 3 4 5; do echo --text "$WORK/captions/train.$number.$1.gz"; done
}

# plain_files LANGUAGE SETS: files of text.
plain_files() {
    local name
    for name in $2; do echo "$WORK/plain/$name.$1"; done
}

teacher() {
    once teacher "the teacher${given:+ is $given}" train_teacher
    evaluated teacher
}
train_teacher() {
    if [ -n "$given" ]; then
        mkdir -p "$WORK/teacher.new"
        cp "$given" "$WORK/teacher.new/checkpoint_best.pt"
    else
        all
        train teacher "$WORK/all" --task translation --criterion label_smoothed_cross_entropy \
            --arch transformer --share-all-embeddings $(size $TEACHER_MODEL) --max-tokens 4096 \
            --dropout $TEACHER_DROPOUT --seed 1 \
            $(falling $TEACHER_LR $TEACHER_UPDATES) --warmup-updates $((2 * WARMUP))
    fi
}
