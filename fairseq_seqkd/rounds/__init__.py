"""Rounds of near-policy distillation: text of the student, scored once by the teacher."""
