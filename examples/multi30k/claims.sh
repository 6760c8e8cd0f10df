#!/usr/bin/env bash
# Multi30k German-English, from raw text to a page of published and measured results: a teacher that
# knows more text than its students, students without and with distillation after the same number of
# updates, the best of them pruned and exported.
#
#   bash examples/multi30k/claims.sh              # about 25 hours of one CPU core
#   SMOKE=1 bash examples/multi30k/claims.sh      # every step with tiny models, on synthetic text
#
# Run it again to resume after an interruption. Steps whose output is in WORK are skipped, and so are
# rows whose results are in OUT: there they are kept with the project, and the page is made of them.
# Settings, by environment variables:
#   WORK      folder to write to (default: work/multi30k)
#   DATA      folder with the raw text, {train,val,test_2016_flickr,test_2018_flickr}.{de,en}.gz and
#             task2/train.{1..5}.{de,en}.gz (default: downloaded from the data set's repository)
#   TEACHER   a teacher's checkpoint, with SPM and DICT, the sentencepiece model and the joined
#             fairseq dictionary of its training (default: all are made here)
#   ROWS      the rows to train, see rows.sh (default: all, those that carry a claim first)
#   AGAIN     rows to train once more although their results are in OUT
#   JOBS      number of parallel processes, of one thread each (default: the number of cores)
#   OUT       folder of the results to keep (default: the results beside this file)
#   DEVICE    --cpu to ignore a GPU; PRECISION, such as --fp16
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
WORK=${WORK:-$(dirname "$(dirname "$here")")/work/multi30k}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # of each process
. "$here/../lib.sh"
WORK=$(cd "$WORK" && pwd)

DEVICE=${DEVICE---cpu} PRECISION=${PRECISION-} JOBS=${JOBS:-$cores} ACCEPT=""
UPDATES=8000 TUNING=2000 RETRAINING=2000 WARMUP=400 VOCABULARY=6000 BATCH=2048 INTERVALS=20
WIDE="2 1 96 192" NARROW="2 1 64 128" LSTM="1 256"
REVERSE_MODEL="3 2 192 768" REVERSE_LR=2e-3 REVERSE_UPDATES=2000
TEACHER_MODEL="3 3 256 1024" TEACHER_LR=1.5e-3 TEACHER_DROPOUT=0.2 TEACHER_UPDATES=5000
BEAM=10 ENGINE=ctranslate2:float32 ROUNDS=5 SPARSITIES="0 0.35 0.61 0.8 0.9"
if [ -n "${SMOKE:-}" ]; then
    python "$EXAMPLES/archives.py" "$WORK/archives"
    DATA=$WORK/archives TEACHER="" DEVICE=--cpu PRECISION="" JOBS=2 OUT=${OUT:-$WORK/results}
    SUMS=$(cd "$DATA" && sha256 -- *.gz) CAPTION_SUMS=$(cd "$DATA/task2" && sha256 -- *.gz)
    UPDATES=10 TUNING=5 RETRAINING=6 WARMUP=2 DROPOUTS=0 INTERVALS=5 VOCABULARY=200
    WIDE="1 1 16 32" NARROW="1 1 8 16" LSTM="1 16"
    REVERSE_MODEL="1 1 32 64" REVERSE_LR=1e-2 REVERSE_UPDATES=60
    TEACHER_MODEL="1 1 32 64" TEACHER_LR=1e-2 TEACHER_UPDATES=60 TEACHER_DROPOUT=0
    BEAM=2 ROUNDS=1 SPARSITIES="0 0.61" SPACE=200
    # Models that have hardly learned anything rarely generate EOS.
    ACCEPT="--accept-unfinished 1"
fi
OUT=${OUT:-$here/results}
mkdir -p "$OUT/logs" "$OUT/rows"
given=${TEACHER:-}
if [ -n "$given" ] && [ -z "${SPM:-}" -o -z "${DICT:-}" ]; then
    fail "TEACHER is given without SPM or DICT, the sentencepiece model and dictionary of its training"
fi
TEACHER=$WORK/teacher/checkpoint_best.pt
. "$here/rows.sh"
[ -z "${SMOKE:-}" ] || ALL="none.wide.1 seq_kd-captions.wide.1 none-all.wide.1 seq_kd-sources.wide.1 seq_inter.wide.1"
for row in ${ROWS:=$ALL}; do describe "$row"; done

# The working folder belongs to one teacher, text and set of sizes.
settings="UPDATES=$UPDATES TEACHER=$given TEACHER_MODEL=$TEACHER_MODEL TEACHER_UPDATES=$TEACHER_UPDATES
DATA=${DATA:-} SPM=${SPM:-} DICT=${DICT:-} BEAM=$BEAM"
if [ ! -e "$WORK/settings" ]; then
    echo "$settings" >"$WORK/settings"
elif [ "$settings" != "$(cat "$WORK/settings")" ]; then
    fail "$WORK has been made with other settings:
$(cat "$WORK/settings")
now: $settings
Name another folder by WORK, or repeat its settings"
fi
free=$(df -Pk "$WORK" | awk 'NR == 2 {print int($4 / 1024)}') # MB
((free > ${SPACE:=4000})) || fail "$WORK has $free MB left, expected $SPACE: name another folder by WORK"

# falling LR UPDATES: flags for a learning rate that falls linearly to 0.
falling() {
    echo --lr "$1" --lr-scheduler polynomial_decay --total-num-update "$2" --max-update "$2"
}

# train NAME DATA FLAGS...: the flags that all trainings share. The validation set is translated
# greedily at every 20th of UPDATES, and the checkpoint with the best BLEU is kept. With fairseq's default
# batch size multiple of 8, the last batch could lose sentences.
train() {
    run "$1" fairseq-train "$2" --user-dir "$USER_DIR" $DEVICE $PRECISION \
        --save-dir "$WORK/$1.new" --optimizer adam --adam-betas "(0.9, 0.98)" --clip-norm 1.0 \
        --label-smoothing 0.1 --max-tokens $BATCH --required-batch-size-multiple 1 \
        --max-target-positions 256 \
        --eval-bleu --eval-bleu-args '{"beam": 1}' --eval-bleu-remove-bpe sentencepiece \
        --best-checkpoint-metric bleu --maximize-best-checkpoint-metric \
        --save-interval-updates $((UPDATES / INTERVALS)) --keep-interval-updates 1 \
        --save-interval 1000 --validate-interval 1000 --no-epoch-checkpoints \
        --log-format simple "${@:3}"
    keep_log "$1"
}

# keep_log NAME: the command (of several attempts the last), the validations and the time of a training,
# without this machine's paths.
keep_log() {
    portable "$WORK/logs/$1.log" >"$OUT/logs/$1.all"
    grep '^\$ ' "$OUT/logs/$1.all" | tail -n 1 >"$OUT/logs/$1.log"
    sed -n "/ valid on /p; /done training/p" "$OUT/logs/$1.all" >>"$OUT/logs/$1.log"
    rm "$OUT/logs/$1.all"
}
portable() {
    sed "s#--user-dir [^ ]*/fairseq_seqkd#--user-dir \$(fairseq-seqkd user-dir)#g
        s#$WORK#work/multi30k#g; s#$here#examples/multi30k#g" "$1"
}

# side_by_side COMMAND ARGUMENTS...: run the command once with each of the arguments, JOBS at a time.
# After a failure no more are started, and those that run are waited for.
side_by_side() {
    local arguments ended number=0 running=" " failed=0
    for arguments in "${@:2}"; do
        if [ $number = "$JOBS" ]; then
            wait_any $running || failed=1
            running=${running/ $ended / } number=$((number - 1))
        fi
        [ $failed = 0 ] || break
        "$1" $arguments &
        running="$running$! " number=$((number + 1))
    done
    for ended in $running; do wait "$ended" || failed=1; done
    [ $failed = 0 ] || fail "something failed: see above"
}

# workers NAME SUBCOMMAND FLAGS...: run a subcommand of fairseq-seqkd in JOBS processes that divide the
# work among them.
workers() {
    local name=$1 command=("${@:2}")
    side_by_side worker $(seq 0 $((JOBS - 1)))
}
worker() { run "$name-$1" fairseq-seqkd "${command[@]}" --num-shards "$JOBS" --shard-id "$1"; }

. "$here/prepare.sh"
. "$here/teacher.sh"

# validated NAME: the best greedy BLEU of a training on the validation set.
validated() { grep -o 'best_bleu [0-9.]*' "$OUT/logs/$1.log" | tail -n 1 | cut -d ' ' -f 2; }

# best NAME...: the training with the best greedy BLEU on the validation set.
best() {
    for name; do echo "$(validated "$name") $name"; done | sort -rn | head -n 1 | cut -d ' ' -f 2
}

# tune KIND DROPOUT: a short training of the first row on that kind of text.
tune() {
    local name=tuning-$1-$2
    [ ! -e "$OUT/logs/$name.log" ] || return 0
    describe "$(first_of "$1")"
    once "$name" "$label: dropout $2, $TUNING updates" train "$name" "$text" $model $flags --seed 1 \
        --dropout "$2" $(falling $lr $TUNING) --warmup-updates $WARMUP
}
first_of() {
    case $1 in
        gold) echo none.wide.1 ;;
        all) echo none-all.wide.1 ;;
        captions) echo seq_kd-captions.wide.1 ;;
    esac
}

# dropout_of KIND: the dropout that is best on the validation set.
dropout_of() {
    local name
    name=$(best $(for dropout in $DROPOUTS; do echo "tuning-$1-$dropout"; done))
    echo "${name##*-}"
}

# trained ROW: a row's training, unless its checkpoints are in WORK. Seq-Inter continues at the learning
# rate that the first step had at that update.
trained() {
    [ ! -e "$WORK/$1" ] || return 0
    local start=$((UPDATES * 4 / 5)) dropout
    describe "$1"
    dropout=$(dropout_of $kind)
    if [ -n "$begins" ]; then
        trained "$begins"
        describe "$1"
        lr=$(python -c "print(f'{$lr * ($UPDATES - $start) / ($UPDATES - $WARMUP):.2g}')")
        flags+=" $(falling $lr $((UPDATES - start))) --finetune-from-model"
        flags+=" $(echo "$WORK/$begins/checkpoint_"*"_$start.pt")"
    else
        flags+=" $(falling $lr $UPDATES) --warmup-updates $WARMUP"
        flags+=" --keep-interval-updates-pattern $start"
    fi
    once "$1" "$label: seed $seed, dropout $dropout" \
        train "$1" "$text" $model $flags --seed "$seed" --dropout "$dropout"
}

# evaluated NAME: translate the test sets with $WORK/NAME, greedily and by beam search at the length
# penalty that is best on the validation set, and keep the translations.
evaluated() {
    local engine=$ENGINE folder=$WORK/evaluations/$1
    [ ! -e "$OUT/rows/$1" ] || return 0
    case $1 in *.lstm.*) engine=fairseq ;; esac
    mkdir -p "$WORK/evaluations"
    once "evaluations/$1" "translations of $1" run "evaluate-$1" \
        fairseq-seqkd evaluate "$WORK/data-bin" --split test,test1 --spm-model "$SPM" \
        --ref $(plain_files en "test_2016_flickr test_2018_flickr") \
        --beams 1 5 --tune-lenpen valid --engines $engine --devices ${DEVICES:-cpu} --rounds 1 \
        --threads "$OMP_NUM_THREADS" --checkpoints "$1=$WORK/$1/checkpoint_best.pt" \
        --out "$folder.new"
    keep_log "evaluate-$1"
    rm -rf "$OUT/rows/$1.new"
    mkdir -p "$OUT/rows/$1.new"
    python "$here/claims.py" keep "$folder" "$OUT/rows/$1.new"
    portable "$folder/report.json" >"$OUT/rows/$1.new/report.json"
    mv "$OUT/rows/$1.new" "$OUT/rows/$1"
}

row() {
    trained "$1"
    evaluated "$1"
}

# The rows that are left; their texts; dropouts; trainings.
for row in ${AGAIN:-}; do
    describe "$row" # refuses what is no row
    rm -rf "$OUT/rows/$row" "$WORK/$row" "$WORK/evaluations/$row"
done
left=() kinds=""
for row in $ROWS; do
    [ ! -e "$OUT/rows/$row" ] || continue
    describe "$row"
    left+=("$row")
    [[ " $kinds " == *" $kind "* ]] || kinds+=" $kind"
done
if [ ${#left[@]} != 0 ]; then
    todo=()
    for kind in $kinds; do
        describe "$(first_of $kind)"
        make_text $corpus
        for dropout in $DROPOUTS; do todo+=("$kind $dropout"); done
    done
    side_by_side tune ${todo[@]+"${todo[@]}"}
    for row in ${left[@]+"${left[@]}"}; do
        describe "$row"
        make_text $corpus
        case $flags in *captions-cache*) make_cache ;; esac
    done
    # A row that continues another begins when that one is there, so that none is trained twice at once.
    first=() later=()
    for row in ${left[@]+"${left[@]}"}; do
        describe "$row"
        if [ -n "$begins" ]; then later+=("$row"); else first+=("$row"); fi
    done
    side_by_side row ${first[@]+"${first[@]}"}
    for row in ${later[@]+"${later[@]}"}; do
        describe "$row"
        trained "$begins"
    done
    side_by_side row ${later[@]+"${later[@]}"}
fi

page() {
    step "published and measured results, in $OUT"
    python "$here/claims.py" page "$OUT" | tee "$OUT/claims.md"
}

# The best distilled student by validation. The file is committed before the test sets are scored.
finished=$(for row in $ALL; do [ ! -e "$OUT/rows/$row" ] || echo "$row"; done)
if [ "$(echo $finished)" != "$(echo $ALL)" ]; then
    step "some rows are not done, and not on the page"
    for row in $ALL; do [ -e "$OUT/rows/$row" ] || echo "$row"; done
    page
    exit 0
fi
[ -e "$OUT/best" ] ||
    best $(for row in $ALL; do case $row in none*) ;; *.wide.1) echo "$row" ;; esac; done) >"$OUT/best"
winner=$(cat "$OUT/best")

# prune SPARSITY: train the best student on with its method while it is pruned gradually, during the first
# two thirds of the updates (Kim & Rush, section 5.2). No validation before that: a denser checkpoint
# would win.
prune() {
    local name=pruned-$1
    describe "$winner"
    flags=${flags/--task translation/--task translation_seqkd} # which has the pruning hook
    once "$name" "$label, $1 pruned" \
        train "$name" "$text" $model $flags --seed "$seed" --dropout "$(dropout_of $kind)" \
        $(falling $lr $RETRAINING) --warmup-updates $WARMUP \
        --finetune-from-model "$WORK/$winner/checkpoint_best.pt" \
        --prune-sparsity "$1" --prune-schedule cubic --prune-every $((RETRAINING / 25 + 1)) \
        --prune-end-update $((RETRAINING * 2 / 3)) \
        --validate-after-updates $((RETRAINING * 2 / 3))
    evaluated "$name"
}
describe "$winner"
todo=()
for sparsity in $SPARSITIES; do
    [ -e "$OUT/rows/pruned-$sparsity" ] || todo+=("$sparsity")
done
if [ ${#todo[@]} != 0 ]; then
    make_text $corpus
    trained "$winner"
fi
side_by_side prune ${todo[@]+"${todo[@]}"}

# Speed, without other processes on the machine: the teacher, the undistilled student, the best student
# and the same student pruned.
measure_speed() {
    local name models=()
    teacher
    for name in none.wide.1 "$winner"; do
        describe "$name"
        make_text $corpus
        trained "$name"
    done
    [ -e "$WORK/pruned-0.61" ] || prune 0.61
    for name in teacher none.wide.1 "$winner" pruned-0.61; do
        models+=("$name=$WORK/$name/checkpoint_best.pt")
    done
    run speed fairseq-seqkd evaluate "$WORK/data-bin" --spm-model "$SPM" \
        --ref "$WORK/plain/test_2016_flickr.en" --lenpen "$(length_penalty)" --engines fairseq \
        ctranslate2:float32 ctranslate2:int8 --devices ${DEVICES:-cpu} --rounds $ROUNDS \
        --threads "$OMP_NUM_THREADS" --checkpoints ${models[@]+"${models[@]}"} --out "$WORK/speed.new"
}
if [ ! -e "$OUT/speed" ]; then
    once speed "speed" measure_speed
    mkdir -p "$OUT/speed.new"
    for file in report.json report.md; do portable "$WORK/speed/$file" >"$OUT/speed.new/$file"; done
    cp "$WORK"/speed/speed.svg "$OUT/speed.new/" 2>/dev/null || true # without matplotlib there is none
    mv "$OUT/speed.new" "$OUT/speed"
fi
if [ ! -e "$WORK/shipped" ]; then
    describe "$winner"
    make_text $corpus
    trained "$winner"
fi
once shipped "export of the best student" run ship fairseq-seqkd export \
    "$WORK/$winner/checkpoint_best.pt" --to ctranslate2 --quantization int8 \
    --spm-model "$SPM" --out "$WORK/shipped.new"

for log in "$WORK"/logs/*.log; do keep_log "$(basename "$log" .log)"; done
page
