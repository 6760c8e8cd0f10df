"""Training under torch's own data-parallel wrapper, which fairseq uses by default."""

import pytest
import torch
import torch.distributed as dist
from conftest import free_port
from fairseq.modules import FairseqDropout
from omegaconf import OmegaConf
from processes import PROCESSES

from fairseq_seqkd.criterions.config import DistillConfig
from fairseq_seqkd.criterions.distill import DistillCriterion
from fairseq_seqkd.models.loading import load_models
from fairseq_seqkd.tasks.translation_seqkd import TranslationSeqKDConfig, TranslationSeqKDTask

STEPS = 3


def parameters_after(paths, ranks, wrap=lambda model: model):
    """The student after some steps, each on the mean loss of the batches of ``ranks``."""
    task, batches = task_and_batches(paths)
    values = {"kd_alpha": 0.3, "gold_weight": 0.4, "sentence_avg": False}
    values["kd_passes"] = paths["passes"]
    values.update(seed=1, max_update=STEPS)
    config = DistillConfig(teacher_path=paths["teacher"], **values)
    criterion = DistillCriterion(task, OmegaConf.structured(config))
    student = load_models(paths["student"])[0][0].train()
    for module in student.modules():
        if isinstance(module, FairseqDropout):
            module.p = 0.0
    model = wrap(student)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.001)
    for _ in range(STEPS):
        optimizer.zero_grad()
        for rank in ranks:
            (criterion(model, batches[rank])[0] / len(ranks)).backward()
        optimizer.step()
    return dict(student.named_parameters())


def task_and_batches(paths):
    """A task with pseudo-targets and gold beside them, and one batch for each rank."""
    config = TranslationSeqKDConfig(
        data=paths["data"],
        source_lang="src",
        target_lang="tgt",
        pseudo_targets=paths["store"],
        required_seq_len_multiple=1,
        train_subset="train",
        dataset_impl=None,
        cpu=True,
        fp16=False,
    )
    task = TranslationSeqKDTask.setup_task(config)
    task.use_targets("best", with_gold=True)
    task.load_dataset("train")
    dataset = task.dataset("train")
    return task, [dataset.collater([dataset[i] for i in ids]) for ids in ([0, 1, 2], [20, 21])]


def data_parallel(model):
    # Upstream's encoder layers have parameters that no forward pass in training uses.
    unused = any("in_proj_weight" in name for name, _ in model.named_parameters())
    return torch.nn.parallel.DistributedDataParallel(model, find_unused_parameters=unused)


def run_rank(rank, port, paths):
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    torch.save(parameters_after(paths, [rank], data_parallel), paths["results"] + str(rank))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("passes", [1, 3])
def test_two_ranks_equal_one_process(word_kd_student, teacher, data, store, tmp_path, passes):
    student = word_kd_student[0] / "checkpoint_last.pt"
    paths = {"student": student, "teacher": teacher, "data": data, "store": store}
    paths = {k: str(v) for k, v in {**paths, "results": tmp_path / "rank"}.items()}
    paths["passes"] = passes
    port = free_port()
    processes = [PROCESSES.Process(target=run_rank, args=(r, port, paths)) for r in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    before = torch.load(student)["model"]
    expected = parameters_after(paths, [0, 1])
    moved = [(expected[name] - before[name]).abs().max() for name in expected]
    assert max(moved) > 0.01
    for rank in range(2):
        ours = torch.load(paths["results"] + str(rank))
        for name, parameter in expected.items():
            torch.testing.assert_close(ours[name], parameter, rtol=0, atol=1e-5)
