"""The values that a distillation criterion logs beside stock's."""

import math

# Name, summed key, key of the weight, unit (bits, percent).
LOGGED = (
    ("kd_loss", "kd_loss", "ntokens", 1 / math.log(2)),
    ("agreement", "n_agree", "ntokens", 100),
    ("teacher_entropy", "teacher_entropy", "ntokens", 1 / math.log(2)),
    ("beta", "beta", "nsentences", 1),
    ("student_rows", "n_student_rows", "nsentences", 100),
    ("replayed", "n_replayed", "nsentences", 100),
    ("student_length", "n_student_tokens", "n_student_rows", 1),
    ("student_cut", "n_cut_rows", "n_student_rows", 100),
    ("no_gold", "n_without_gold", "nsentences", 100),
    ("sentence_weight", "sentence_weight", "nsentences", 1),
    ("accepted", "n_accepted", "n_proposed", 100),
)
