# Sourced by claims.sh after its settings: what students are, and how a method trains them.

# A Transformer of ENCODER and DECODER layers, WIDTH and FFN, see size() in lib.sh.
transformer() { echo --arch transformer --share-all-embeddings $(size "$@"); }

# An LSTM of LAYERS and WIDTH, with attention, as Kim & Rush's.
lstm() {
    echo --arch lstm --share-all-embeddings --encoder-layers "$1" --decoder-layers "$1" \
        --encoder-embed-dim "$2" --decoder-embed-dim "$2" --decoder-out-embed-dim "$2" \
        --encoder-hidden-size "$2" --decoder-hidden-size "$2"
}

# model STUDENT: its highest learning rate, then its flags.
model() {
    case $1 in
        transformer-16) echo 5e-3 $(transformer 1 1 16 32) ;;
        transformer-64) echo 5e-3 $(transformer 2 1 64 128) ;;
        transformer-96) echo 5e-3 $(transformer 2 1 96 192) ;;
        transformer-256) echo 1e-3 $(transformer 2 2 256 768) ;;
        lstm-16) echo 5e-3 $(lstm 1 16) ;;
        lstm-256) echo 2e-3 $(lstm 2 256) ;;
        *) fail "STUDENTS has $1, expected some of: transformer-64, transformer-96, transformer-256, lstm-256" ;;
    esac
}

STOCK="--task translation --criterion label_smoothed_cross_entropy"
LIVE="--teacher-path $TEACHER"
# One store of 35-best lists, Kim & Rush's for Seq-Inter, serves Seq-KD as well.
PSEUDO="--task translation_seqkd --pseudo-targets $WORK/pseudo-targets
    --pseudo-remove-bpe sentencepiece"
# Own prefixes are at most 1.2 times as long as the source and 10 tokens more.
OWN="--task translation $LIVE --kd-max-len-b 10"

# method ROW: its flags.
method() {
    case $1 in
        none) echo $STOCK ;;
        word_kd) echo --task translation --criterion word_kd --kd-cache "$WORK/cache-gold" ;;
        seq_kd) echo $PSEUDO --criterion seq_kd ;;
        seq_kd+word_kd)
            echo $PSEUDO --criterion seq_kd --kd-alpha 0.5 --kd-cache "$WORK/cache-best" ;;
        imit_kd_opt) echo $OWN --criterion imit_kd ;;
        imit_kd_full) echo $OWN --criterion imit_kd --imit-kd-loss full ;;
        # On the teacher's translations, which remain longer: beta = 10^(-t/N).
        imit_kd_star) echo $PSEUDO $LIVE --criterion imit_kd --imit-kd-loss full --kd-targets best \
            --kd-schedule-base 10 --kd-max-len-b 10 ;;
        gkd) echo $OWN --criterion gkd ;;
        # DistiLLM without its replay buffer.
        skew_kl) echo $OWN --criterion distill --kd-alpha 1 --kd-prefixes student \
            --kd-schedule linear --kd-sampling-topk -1 --kd-divergence skew_kl ;;
        none+seq_inter | seq_kd+seq_inter) echo $PSEUDO --criterion seq_inter ;;
        all_three) echo $PSEUDO $LIVE --criterion seq_inter --kd-alpha 0.5 ;;
        *) fail "ROWS has $1, expected some of: $ALL" ;;
    esac
}

# beginning ROW: the row whose training it goes on with, if it is one of two steps.
beginning() {
    case $1 in
        none+seq_inter) echo none ;;
        seq_kd+seq_inter | all_three) echo seq_kd ;;
    esac
}

# label ROW: as papers write it.
label() {
    case $1 in
        none) echo "no distillation" ;;
        word_kd) echo "Word-KD" ;;
        seq_kd) echo "Seq-KD" ;;
        seq_kd+word_kd) echo "Seq-KD + Word-KD" ;;
        imit_kd_opt) echo "ImitKD" ;;
        imit_kd_full) echo "ImitKD + Full" ;;
        imit_kd_star) echo "ImitKD* + Full" ;;
        gkd) echo "GKD" ;;
        skew_kl) echo "skew KL" ;;
        none+seq_inter) echo "Seq-Inter" ;;
        seq_kd+seq_inter) echo "Seq-KD + Seq-Inter" ;;
        all_three) echo "Seq-KD + Seq-Inter + Word-KD" ;;
    esac
}
