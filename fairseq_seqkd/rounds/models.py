"""The two models of a round: the student that generates, and the teacher that scores."""

from dataclasses import dataclass
from typing import Any, Optional

from fairseq_seqkd.models.adapters import DTYPES
from fairseq_seqkd.models.checkpoints import read_checkpoint
from fairseq_seqkd.models.loading import TEACHER, ModelRole
from fairseq_seqkd.pseudo.recipe import Recipe
from fairseq_seqkd.teacher import load_teacher

STUDENT = ModelRole("student", "--student-data", "--compute-type")


@dataclass
class RoundModels:
    """The checkpoints of a round, and how they are loaded.

    Attributes:
        student, teacher: checkpoint files, several separated by colons
        student_data, teacher_data: folders with their dictionaries; None: see `load_models`
        device: to compute on
        threads: the number of threads to use
        check: whether a converted student's translations are compared with fairseq's
    """

    student: str
    teacher: str
    student_data: Optional[str] = None
    teacher_data: Optional[str] = None
    device: Any = "cpu"
    threads: Optional[int] = None
    check: bool = True

    def recipe(self, round_, task):
        """The `Recipe` by which the student translates the sources of a `Round`."""

        def load(device, dtype):
            student = load_teacher(
                self.student, self.student_data, device, dtype, task, STUDENT
            )
            student.check_dictionaries(task)
            return student

        options = round_.options
        engine = {"name": options["engine"], "compute_type": options["compute_type"]}
        return Recipe(
            self.student,
            load_teacher=load,
            search=round_.search,
            engine={**engine, "max_tokens": None},
            device=self.device,
            threads=self.threads,
            check=self.check,
        )

    def load_teacher(self, dtype, task):
        """The `Teacher` in the precision of that name."""
        how = self.teacher_data, self.device, DTYPES[dtype], task, TEACHER
        return load_teacher(self.teacher, *how)

    def student_updates(self):
        """The update at which the student was saved; None if its checkpoint does not say."""
        history = read_checkpoint(self.student.split(":")[0]).get("optimizer_history") or [{}]
        return history[-1].get("num_updates")
