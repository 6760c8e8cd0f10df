#!/usr/bin/env bash
# Multi30k German-English, from raw text to a table of published and measured results: students of
# every method after the same number of updates, the best of them pruned and exported.
#
#   bash examples/multi30k/claims.sh              # two CPU cores
#   SIZE=gpu bash examples/multi30k/claims.sh     # one large GPU: a larger teacher, more students
#   SMOKE=1 bash examples/multi30k/claims.sh      # every step with tiny models, on synthetic text
#
# Steps whose output exists are skipped: run it again to resume after an interruption.
# Settings, by environment variables:
#   WORK      folder to write to (default: work/multi30k)
#   DATA      folder with the raw text, {train,val,test_2016_flickr}.{de,en}.gz
#             (default: downloaded from the data set's public repository)
#   TEACHER   a teacher's checkpoint, with SPM and DICT, the sentencepiece model and the joined
#             fairseq dictionary of its training (default: all are made here)
#   STUDENTS, ROWS  students and methods, see methods.sh; a method of two steps needs the method of
#             its first step
#   SEEDS     of the first student; other students are trained with the first seed
#   DROPOUTS  every student is trained with each of them; the best on the validation set is kept
#   UPDATES   of every row; in rows of two steps the last fifth of them is fine-tuning
#   SPARSITIES, RETRAINING  of the best student: the fractions of its weights to prune, and the updates
#             of its retraining; it is pruned gradually during the first two thirds of them, most of
#             it at the beginning; an empty SPARSITIES skips pruning
#   JOBS      number of parallel processes
#   OUT       folder for the results to keep (default: $WORK/claims)
#   DEVICE    --cpu to ignore a GPU
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
WORK=${WORK:-$(dirname "$(dirname "$here")")/work/multi30k}
SIZE=${SIZE:-cpu}
[ $SIZE != cpu ] || export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # of each process
. "$here/../lib.sh"
WORK=$(cd "$WORK" && pwd)
OUT=${OUT:-$WORK/claims}

# Settings of both sizes, settings of one size, tiny settings.
RETRAINING=${RETRAINING:-1500} WARMUP=400 VOCABULARY=6000
ALL="gkd skew_kl imit_kd_star imit_kd_full imit_kd_opt seq_kd+word_kd word_kd seq_kd none"
ALL="$ALL all_three seq_kd+seq_inter none+seq_inter"
ENGINES="fairseq ctranslate2:float32 ctranslate2:int8" ROUNDS=5 ACCEPT=""
case $SIZE in
    cpu)
        DEVICE=${DEVICE---cpu} DEVICES=cpu JOBS=${JOBS:-$cores} PRECISION=""
        STUDENTS=${STUDENTS:-transformer-96} SEEDS=${SEEDS:-1}
        UPDATES=${UPDATES:-1000} DROPOUTS=${DROPOUTS:-0}
        ROWS=${ROWS:-$ALL}
        SPARSITIES=${SPARSITIES-0 0.61 0.8 0.9} # 0.61 leaves a thirteenth of the teacher
        TEACHER_MODEL="3 3 192 768" TEACHER_LR=2e-3 TEACHER_DROPOUT=0.2 TEACHER_UPDATES=4200
        ;;
    gpu)
        DEVICE=${DEVICE-} DEVICES="cpu cuda" JOBS=${JOBS:-8} PRECISION=--fp16
        STUDENTS=${STUDENTS:-transformer-96 transformer-256 lstm-256} SEEDS=${SEEDS:-1 2}
        UPDATES=${UPDATES:-3000} DROPOUTS=${DROPOUTS:-0.1}
        ROWS=${ROWS:-$ALL}
        SPARSITIES=${SPARSITIES-0 0.8 0.9}
        TEACHER_MODEL="6 6 512 2048" TEACHER_LR=1e-3 TEACHER_DROPOUT=0.3 TEACHER_UPDATES=4000
        ;;
    *) fail "SIZE is $SIZE, expected cpu or gpu" ;;
esac
if [ -n "${SMOKE:-}" ]; then
    python "$EXAMPLES/archives.py" "$WORK/archives"
    DATA=$WORK/archives SUMS=$(cd "$WORK/archives" && sha256 -- *.gz)
    DEVICE=--cpu DEVICES=cpu PRECISION="" JOBS=2
    STUDENTS=transformer-16 ROWS="imit_kd_full seq_kd none seq_kd+seq_inter"
    UPDATES=10 RETRAINING=6 WARMUP=2 VOCABULARY=200
    SPARSITIES="0 0.8" ENGINES=fairseq ROUNDS=1
    TEACHER_MODEL="1 1 32 64" TEACHER_UPDATES=12 TEACHER=""
    # A teacher that has hardly learned anything rarely generates EOS.
    ACCEPT="--accept-unfinished 1"
fi
given=${TEACHER:-}
if [ -n "$given" ] && [ -z "${SPM:-}" -o -z "${DICT:-}" ]; then
    fail "TEACHER is given without SPM or DICT, the sentencepiece model and dictionary of its training"
fi
((UPDATES % 10 == 0)) || fail "UPDATES is $UPDATES, expected a multiple of 10"
FINE_TUNING=$((UPDATES / 5)) EVERY=$((UPDATES / 10))
start=$((UPDATES - FINE_TUNING))
TEACHER=$WORK/teacher/checkpoint_best.pt
. "$here/methods.sh"
for one in $STUDENTS; do model "$one" >/dev/null; done
has() { [[ " $ROWS " == *" $1 "* ]]; }
without() { printf '%s\n' $ROWS | grep -vx "$1"; } # all other rows
[ "$ROWS" != none ] || fail "ROWS is none, expected other methods as well, to compare with it"
for row in $ROWS; do
    method "$row" >/dev/null
    for needed in none $(beginning "$row"); do
        has "$needed" || fail "ROWS is $ROWS, expected $needed as well: the others need it"
    done
done
. "$here/prepare.sh"

# train NAME FLAGS...: the flags that all trainings share. The validation set is translated greedily
# every $EVERY updates. The checkpoint with the best BLEU is kept, and the one of update $start, for
# fine-tuning. With fairseq's default batch size multiple of 8, the last batch could lose sentences.
train() {
    run "$1" fairseq-train "$WORK/data-bin" --user-dir "$USER_DIR" $DEVICE $PRECISION \
        --save-dir "$WORK/$1.new" --optimizer adam --adam-betas "(0.9, 0.98)" --clip-norm 1.0 \
        --label-smoothing 0.1 --max-tokens 2048 --required-batch-size-multiple 1 \
        --max-target-positions 256 \
        --eval-bleu --eval-bleu-args '{"beam": 1}' --eval-bleu-remove-bpe sentencepiece \
        --best-checkpoint-metric bleu --maximize-best-checkpoint-metric \
        --save-interval-updates $EVERY --keep-interval-updates 1 \
        --keep-interval-updates-pattern $start \
        --save-interval 1000 --validate-interval 1000 --no-epoch-checkpoints \
        --log-format simple "${@:2}"
}

# falling LR UPDATES: flags for a learning rate that falls linearly to 0.
falling() {
    echo --lr "$1" --lr-scheduler polynomial_decay --total-num-update "$2" --max-update "$2"
}

make_teacher() {
    if [ -n "$given" ]; then
        mkdir -p "$WORK/teacher.new"
        cp "$given" "$WORK/teacher.new/checkpoint_best.pt"
    else
        train teacher --task translation --criterion label_smoothed_cross_entropy --seed 1 \
            --arch transformer --share-all-embeddings $(size $TEACHER_MODEL) --max-tokens 4096 \
            --dropout $TEACHER_DROPOUT --lr $TEACHER_LR --lr-scheduler inverse_sqrt \
            --warmup-updates $((2 * WARMUP)) --max-update $TEACHER_UPDATES
    fi
}
once teacher "the teacher${given:+ is $given}" make_teacher

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

# The teacher's translations are 35-best lists. Seq-KD trains on the best hypothesis of each list and
# Seq-Inter on the one closest to gold, as in Kim & Rush.
translate() {
    workers translate generate "$WORK/data-bin" --teacher-path "$TEACHER" --teacher-data "$WORK/data-bin" \
        --pseudo-targets "$WORK/pseudo-targets.new" --beam 35 --threads "$OMP_NUM_THREADS" $DEVICE \
        $ACCEPT
    run closest fairseq-seqkd merge "$WORK/data-bin" --pseudo-targets "$WORK/pseudo-targets.new" \
        --select closest --remove-bpe sentencepiece $ACCEPT
}
once pseudo-targets "the teacher translates the training set" translate

# distributions NAME DATA: cache the teacher's distributions at all target positions.
distributions() {
    workers "$1" cache "$2" --teacher-path "$TEACHER" --teacher-data "$WORK/data-bin" \
        --kd-cache "$WORK/$1.new" --threads "$OMP_NUM_THREADS" $DEVICE
}
once cache-gold "the teacher's 8 most probable symbols at every position of the targets" \
    distributions cache-gold "$WORK/data-bin"
once cache-best "the same for the teacher's translations" \
    distributions cache-best "$WORK/pseudo-targets/best"

# validated NAME: the best greedy BLEU of a training on the validation set.
validated() { grep -o 'best_bleu [0-9.]*' "$WORK/logs/$1.log" | tail -n 1 | cut -d ' ' -f 2; }

# best NAME...: the training with the best greedy BLEU on the validation set.
best() {
    for name; do echo "$(validated "$name") $name"; done | sort -rn | head -n 1 | cut -d ' ' -f 2
}

# student STUDENT ROW SEED DROPOUT: one training, unless its output exists.
student() {
    local name=$1-$UPDATES-$2-$3-$4 first lr flags
    first=$(beginning "$2")
    read -r lr flags <<<"$(model "$1")"
    if [ -z "$first" ]; then
        flags+=" $(falling $lr $UPDATES) --warmup-updates $WARMUP"
    else # continue at the learning rate that the first step had at that update
        lr=$(python -c "print(f'{$lr * $FINE_TUNING / ($UPDATES - $WARMUP):.2g}')")
        flags+=" $(falling $lr $FINE_TUNING) --finetune-from-model"
        flags+=" $(echo "$WORK/$1-$UPDATES-$first-$3-$4/checkpoint_"*"_$start.pt")"
    fi
    once "$name" "$(label "$2"), $1, seed $3, dropout $4" \
        train "$name" $flags $(method "$2") --seed "$3" --dropout "$4"
}

# seeds_of STUDENT: all seeds for the first student, one for the others.
seeds_of() { if [ "$1" = "${STUDENTS%% *}" ]; then echo $SEEDS; else echo "${SEEDS%% *}"; fi; }

# trainings STUDENT ROW...: the arguments of `student` with every seed and dropout, one per line.
trainings() {
    for row in "${@:2}"; do
        for seed in $(seeds_of "$1"); do
            for dropout in $DROPOUTS; do echo "$1 $row $seed $dropout"; done
        done
    done
}

one_step="" two_steps=""
for row in $ROWS; do
    if [ -z "$(beginning "$row")" ]; then one_step+=" $row"; else two_steps+=" $row"; fi
done
# Rows of one step come first: those of two steps begin with them.
for rows in "$one_step" "$two_steps"; do
    todo=()
    for one in $STUDENTS; do
        while read -r training; do todo+=("$training"); done < <(trainings "$one" $rows)
    done
    side_by_side student ${todo[@]+"${todo[@]}"}
done

# best_dropout STUDENT ROW SEED: the training with the best dropout on the validation set.
best_dropout() {
    best $(for dropout in $DROPOUTS; do echo "$1-$UPDATES-$2-$3-$dropout"; done)
}

# The distilled student with the best validation BLEU is pruned and retrained with the method it was
# trained with (Kim & Rush, section 4.2).
first=${STUDENTS%% *}
seed=${SEEDS%% *}
winner=$(best $(for row in $(without none); do best_dropout "$first" "$row" "$seed"; done))
IFS=- read -r row seed dropout <<<"${winner#"$first-$UPDATES-"}"

pruning=pruned-$UPDATES+$RETRAINING
# prune SPARSITY: one retraining. No validation before pruning is complete: a denser checkpoint would
# win.
prune() {
    local name=$pruning-$1 lr flags
    read -r lr flags <<<"$(model "$first")"
    once "$name" "$(label "$row"), $1 pruned" \
        train "$name" $flags $(method "$row") --seed "$seed" --dropout "$dropout" \
        $(falling $lr $RETRAINING) --warmup-updates $WARMUP \
        --finetune-from-model "$WORK/$winner/checkpoint_best.pt" \
        --prune-sparsity "$1" --prune-schedule cubic --prune-every $((RETRAINING / 25 + 1)) \
        --prune-end-update $((RETRAINING * 2 / 3)) \
        --validate-after-updates $((RETRAINING * 2 / 3))
}
side_by_side prune $SPARSITIES
pruned=()
for sparsity in $SPARSITIES; do
    pruned+=("$sparsity pruned=$WORK/$pruning-$sparsity/checkpoint_best.pt")
done

# compare NAME FLAGS...: a report on test_2016_flickr. All rows are compared with the first checkpoint
# at its largest beam.
compare() {
    once "results/$1" "the test set: $1" run "evaluate-$1" fairseq-seqkd evaluate \
        "$WORK/data-bin" --remove-bpe sentencepiece --ref "$WORK/raw/test_2016_flickr.en" \
        --threads "$OMP_NUM_THREADS" --out "$WORK/results/$1.new" "${@:2}"
}

# listed PATTERN STUDENT SEED ROW...: set the array `listed` to an argument LABEL=FILE for every row; % in
# the pattern stands for the name of the training.
listed() {
    local row name
    listed=()
    for row in "${@:4}"; do
        name=$(best_dropout "$2" "$row" "$3")
        listed+=("$(label "$row")=$WORK/${1//%/$name}")
    done
}

# listed_logs STUDENT SEED ROW...: set the array `listed` to an argument LABEL=LOG for every row,
# LABEL=LOG@UPDATE,LOG for rows of two steps.
listed_logs() {
    local row name first
    listed=()
    for row in "${@:3}"; do
        name=$(best_dropout "$1" "$row" "$2")
        first=$(beginning "$row")
        [ -z "$first" ] || first=$WORK/logs/$1-$UPDATES-$first-$2-${name##*-}.log@$start,
        listed+=("$(label "$row")=$first$WORK/logs/$name.log")
    done
}

# quality STUDENT SEED: compare every row with the undistilled student, and with Seq-KD.
quality() {
    local flags=(--engines fairseq --devices ${DEVICES##* } --rounds 1)
    listed_logs "$1" "$2" $ROWS
    local logs=(${listed[@]+"${listed[@]}"})
    listed %/checkpoint_best.pt "$1" "$2" none $(without none)
    compare "beam-$1-$UPDATES-$2" "${flags[@]}" --logs "${logs[@]}" \
        --checkpoints ${listed[@]+"${listed[@]}"} "teacher=$TEACHER"
    compare "greedy-$1-$UPDATES-$2" "${flags[@]}" --beams 1 --checkpoints ${listed[@]+"${listed[@]}"}
    has seq_kd || return 0
    listed %/checkpoint_best.pt "$1" "$2" seq_kd $(without seq_kd)
    compare "seq_kd-$1-$UPDATES-$2" "${flags[@]}" --beams 1 --checkpoints ${listed[@]+"${listed[@]}"}
}

# sizes: compare the pruned students with the unpruned one, which was retrained for as many updates.
sizes() {
    local flags=(--engines fairseq --devices ${DEVICES##* } --rounds 1)
    [ ${#pruned[@]} != 0 ] || return 0
    compare "$pruning-beam" "${flags[@]}" \
        --checkpoints ${pruned[@]+"${pruned[@]}"} "teacher=$TEACHER"
    compare "$pruning-greedy" "${flags[@]}" --beams 1 --checkpoints ${pruned[@]+"${pruned[@]}"}
}

mkdir -p "$WORK/results"
todo=(sizes)
for one in $STUDENTS; do
    for number in $(seeds_of "$one"); do todo+=("quality $one $number"); done
done
side_by_side eval ${todo[@]+"${todo[@]}"}

# Speed, without other processes on the machine: the teacher, the undistilled student, the best student
# and the same student pruned.
listed %/checkpoint_best.pt "$first" "$seed" none "$row"
compare "speed-$UPDATES" --engines $ENGINES --devices $DEVICES --rounds $ROUNDS \
    --checkpoints "teacher=$TEACHER" ${listed[@]+"${listed[@]}"} ${pruned[@]+"${pruned[@]:1:1}"}

once "shipped-$UPDATES" "export of the best student" run "ship-$UPDATES" fairseq-seqkd export \
    "$WORK/$winner/checkpoint_best.pt" --to ctranslate2 --quantization int8 \
    --spm-model "$SPM" --out "$WORK/shipped-$UPDATES.new"

# The results to keep: tables, commands and some plots; of each log its command, validations and time.
step "published and measured results, in $OUT"
portable() {
    sed "s#$WORK#work/multi30k#g; s#$USER_DIR#\$(fairseq-seqkd user-dir)#g" "$1"
}
mkdir -p "$OUT/logs"
for report in "$WORK"/results/*; do
    to=$OUT/${report##*/}
    mkdir -p "$to"
    portable "$report/report.json" >"$to/report.json"
    portable "$report/report.md" | sed '/^!\[/d' >"$to/report.md"
done
for picture in "$WORK"/results/{beam-*/training-bleu,speed-*/speed}.svg; do
    [ ! -e "$picture" ] || cp "$picture" "$OUT/${picture#"$WORK/results/"}"
done
for log in "$WORK"/logs/*.log; do
    portable "$log" | sed -n "1p; / valid on /p; /done training/p" >"$OUT/logs/${log##*/}"
done
python "$here/claims.py" "$OUT" | tee "$OUT/claims.md"
