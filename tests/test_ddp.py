"""Gradients under torch's own data-parallel wrapper, which fairseq uses by default."""

import multiprocessing
import socket

import torch
import torch.distributed as dist
from omegaconf import OmegaConf

from fairseq_seqkd.criterions.distill import DistillConfig, DistillCriterion
from fairseq_seqkd.tasks.translation_seqkd import TranslationSeqKDTask
from fairseq_seqkd.teacher import load_teacher


def gradients(student, task, batches, wrap=lambda model: model):
    """The gradient of every parameter after one backward pass over each batch."""
    values = {"kd_alpha": 0.0, "gold_weight": 0.4, "sentence_avg": False}
    criterion = DistillCriterion(task, OmegaConf.structured(DistillConfig(**values)))
    model = load_teacher(student).models[0].requires_grad_(True)
    wrapped = wrap(model)
    for batch in batches:
        criterion(wrapped, batch)[0].backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def batches(data, store, task_config):
    task = TranslationSeqKDTask.setup_task(task_config(data, store))
    task.use_targets("best", with_gold=True)
    task.load_dataset("train")
    dataset = task.dataset("train")
    halves = ([0, 1, 2, 3], [20, 21, 22])
    return task, [dataset.collater([dataset[i] for i in ids]) for ids in halves]


def run_rank(rank, port, student, data, store, task_config, results):
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    task, both = batches(data, store, task_config)
    wrap = torch.nn.parallel.DistributedDataParallel
    mean = gradients(student, task, [both[rank]], wrap)
    if rank == 0:
        torch.save(mean, results)
    dist.barrier()
    dist.destroy_process_group()


def task_config(data, store):
    from fairseq_seqkd.tasks.translation_seqkd import TranslationSeqKDConfig

    return TranslationSeqKDConfig(
        data=str(data),
        source_lang="src",
        target_lang="tgt",
        pseudo_targets=str(store),
        required_seq_len_multiple=1,
        train_subset="train",
        dataset_impl=None,
        cpu=True,
        fp16=False,
    )


def test_gold_weight_keeps_gradients_synchronised(word_kd_student, data, store, tmp_path):
    student = str(word_kd_student[0] / "checkpoint_last.pt")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    results = tmp_path / "gradients.pt"
    context = multiprocessing.get_context("spawn")
    arguments = (port, student, str(data), str(store), task_config, str(results))
    processes = [context.Process(target=run_rank, args=(rank, *arguments)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    task, both = batches(data, store, task_config)
    expected = gradients(student, task, both)
    mean = torch.load(results)
    assert mean.keys() == expected.keys()
    for name, gradient in expected.items():
        # torch's wrapper averages over ranks what one process adds up.
        torch.testing.assert_close(2 * mean[name], gradient, rtol=1e-4, atol=1e-5)
    assert max(gradient.abs().max() for gradient in expected.values()) > 0.01
