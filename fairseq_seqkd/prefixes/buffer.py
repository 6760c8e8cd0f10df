"""A buffer of targets that the student generated in former updates, each with its sentence.

It holds the number of the sentence in the training set, and no source: `collate_again` makes
the source from the data set as the task does, whatever that is (language tokens, speech).
"""

import numpy as np
import torch
from fairseq import utils
from fairseq.data import data_utils
from fairseq.tasks.multilingual_translation import MultilingualTranslationTask
from fairseq.tasks.translation_multi_simple_epoch import TranslationMultiSimpleEpochTask

from fairseq_seqkd.models.datasets import joins_at_random, random_access
from fairseq_seqkd.models.language_tokens import config_of_task

NAMES = "replay_ids", "replay_updates", "replay_lengths", "replay_tokens"


class ReplayBuffer:
    """The last targets that the student generated, first in, first out.

    What is added in an update can be drawn from the next one on, and the targets of an update
    are in the order of their sentences. So the buffer does not depend on how batches are spread
    over processes. It lives in named tensors: the sentences, the updates in which the targets
    were generated, their lengths, and the tokens of all, one behind the other.

    Args:
        memory: {name: tensor} that holds it, see `NAMES`; it is changed in place
        capacity: the most targets of former updates
        update: of training
    """

    def __init__(self, memory, capacity, update):
        self._memory, self._update = memory, update
        for name in NAMES:
            memory.setdefault(name, torch.zeros(0, dtype=torch.long))
        n_former = int((memory["replay_updates"] < update).sum())
        self._keep(range(max(n_former - capacity, 0), len(memory["replay_ids"])))
        self._n_former = min(n_former, capacity)

    def __len__(self):
        """The number of targets of former updates."""
        return self._n_former

    def entries(self):
        """[(sentence, (length,) target)] of former updates, the oldest first."""
        ids = self._memory["replay_ids"].tolist()
        return list(zip(ids, self._targets()))[: self._n_former]

    def add(self, ids, targets, gather):
        """Add the targets of this update; every process has to call this as often as others.

        Args:
            ids: (n,) sentences, on the device of training
            targets: list of n (length,) tokens
            gather: joins the (n,) numbers of all processes
        """
        lengths = ids.new_tensor([len(target) for target in targets])
        added = ids, torch.full_like(ids, self._update), lengths, torch.cat([ids[:0], *targets])
        for name, values in zip(NAMES, added):
            joined = [self._memory[name], gather(values).cpu()]
            self._memory[name] = torch.cat(joined)
        keys = self._memory["replay_ids"], self._memory["replay_updates"]
        self._keep(np.lexsort([key.numpy() for key in keys]).tolist())

    def _targets(self):
        lengths = self._memory["replay_lengths"].tolist()
        return list(self._memory["replay_tokens"].split(lengths)) if lengths else []

    def _keep(self, rows):
        """Keep some rows, in the given order."""
        rows, targets, tokens = list(rows), self._targets(), self._memory["replay_tokens"]
        self._memory["replay_tokens"] = torch.cat([tokens[:0], *(targets[i] for i in rows)])
        for name in NAMES[:3]:
            self._memory[name] = self._memory[name][rows]


def numbered_sentences(task):
    """The data set of the training split, in which the number of a sentence identifies it.

    Raises:
        ValueError: in this task it does not
    """
    cfg = config_of_task(task)
    dataset = task.dataset(getattr(cfg, "train_subset", None) or "train")
    several = MultilingualTranslationTask, TranslationMultiSimpleEpochTask
    if isinstance(task, several):
        found = f"the task {type(task).__name__} has other sentences of a number each epoch"
    elif len(utils.split_paths(getattr(cfg, "data", None) or "")) > 1:
        found = f"{cfg.data!r} are several data-bins"
    elif joins_at_random(dataset):
        found = "speech is joined at random (concataugment in its config.yaml)"
    else:
        return random_access(dataset)
    raise ValueError(
        f"--kd-prefixes replay: {found}. Expected one data-bin whose sentences keep their "
        "numbers, since the buffer finds a source by its number: --task translation or "
        "speech_to_text. Else take --kd-prefixes student."
    )


def is_of(dataset, sample):
    """Whether a batch is of the data set, by its targets, or by gold if it has that beside."""
    ids = sample["id"].tolist()
    if max(ids) >= len(dataset):
        return False
    # The collater sorts by length, and rows of one length may come in another order.
    both = dataset.collater([dataset[id_] for id_ in ids]), sample
    found, expected = (one.get("gold", one)["target"][one["id"].argsort()] for one in both)
    return torch.equal(found, expected.cpu())


def collate_again(dataset, ids, sample, seed):
    """The batch of some sentences, on the device and in the precision of another one.

    Args:
        dataset: fairseq's
        ids: list of sentences, also repeated ones
        sample: a batch that fairseq prepared for training
        seed: numbers that seed numpy, from which speech is masked
    """
    with data_utils.numpy_seed(*seed):
        batch = dataset.collater([dataset[id_] for id_ in ids])
    source = sample["net_input"]["src_tokens"]
    dtype = source.dtype if source.is_floating_point() else None

    def prepared(tensor):
        return tensor.to(source.device, dtype if tensor.dtype == torch.float else None)

    return utils.apply_to_sample(prepared, batch)
