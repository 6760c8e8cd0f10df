# A synthetic corpus, a tiny teacher and a tiny student, for recipes that want them given. Sourced
# after lib.sh, with WORK; sets DATA, TEACHER and STUDENT. MODEL is the student's architecture.
DATA=$WORK/data-bin TEACHER=$WORK/teacher/checkpoint_last.pt
STUDENT=$WORK/begin/checkpoint_last.pt

synthetic_data() {
    run text python "$EXAMPLES/synthetic.py" "$WORK/text"
    for split in train valid test; do
        for side in src tgt; do
            head -n 200 "$WORK/text/$split.$side" >"$WORK/text/$split.short.$side"
        done
    done
    run preprocess fairseq-preprocess --source-lang src --target-lang tgt \
        --trainpref "$WORK/text/train.short" --validpref "$WORK/text/valid.short" \
        --testpref "$WORK/text/test.short" --destdir "$WORK/data-bin.new"
}
# tiny NAME FLAGS...: some updates of a model.
tiny() {
    run "$1" fairseq-train "$DATA" --cpu --save-dir "$WORK/$1.new" --task translation \
        --criterion cross_entropy --optimizer adam --lr 2e-2 --max-tokens 400 --seed 1 \
        --max-update 150 --disable-validation --no-epoch-checkpoints \
        --required-batch-size-multiple 1 "${@:2}"
}
once data-bin "synthetic text" synthetic_data
once teacher "a tiny teacher" tiny teacher --arch transformer \
    --share-decoder-input-output-embed $(size 1 1 32 64)
once begin "a tiny student" tiny begin $MODEL
