"""The teacher: a frozen fairseq model, or an ensemble whose probabilities are averaged."""

from fairseq_seqkd.teacher.folder_source import FolderSource, check_same_number  # noqa: F401
from fairseq_seqkd.teacher.loading import (  # noqa: F401
    TeacherConfig,
    load_teacher,
    shared_teacher,
    teacher_dtype_of,
)
from fairseq_seqkd.teacher.model import LazyLogits, NothingAdded, Teacher  # noqa: F401
from fairseq_seqkd.teacher.source import (  # noqa: F401
    NONE,
    SOURCE_ENTRY,
    folder_of,
    load_sources,
    sources_of_each,
)
