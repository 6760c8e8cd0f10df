"""A frozen model that scores prefixes and generates hypotheses.

It is no ``nn.Module`` on purpose: fairseq saves, casts, optimises and switches to train mode
every sub-module of a criterion.
"""

import itertools
import math

import torch
from fairseq import utils

from fairseq_seqkd.decoding.rollout import IncrementalScorer
from fairseq_seqkd.losses.blockwise_sum import position_slices
from fairseq_seqkd.losses.support import TopK, top_k
from fairseq_seqkd.models.adapters import can_encode_once, encode, features_of
from fairseq_seqkd.models.blocks import BlockReader, can_read_blocks
from fairseq_seqkd.models.dictionaries import check_same_symbols
from fairseq_seqkd.models.fit import check_teacher
from fairseq_seqkd.teacher.searches import Searches


class Teacher:
    """A frozen model: scores prefixes, generates hypotheses.

    Args:
        models: fairseq models that share their dictionaries; their probabilities are averaged
        task: the fairseq task that built them, with their own dictionaries
        knows_dictionary: False if their dictionaries were not found, and the student's took
            their place: comparing the two would prove nothing
        path: the checkpoints that they were loaded from
        language_tokens: `LanguageTokens` that the batches lack which it gets; None: nothing
        source: what it reads of a sentence, see ``source.py``; None: what the student reads
    """

    def __init__(
        self,
        models,
        task,
        knows_dictionary=True,
        path=None,
        language_tokens=None,
        source=None,
    ):
        self.path = path
        self.source = source or StudentSource()
        self.language_tokens = language_tokens or NothingAdded()
        self.models = list(models)
        for model in self.models:
            model.eval()
            # requires_grad stays as it is, and no_grad keeps gradients away: torch folds a
            # transposed batch into one matrix product only for weights that have it, and
            # the output layer is several times slower unfolded.
            model.make_generation_fast_(need_attn=False)  # attention is never used
        self.task = task
        self.knows_dictionary = knows_dictionary
        self._searches = Searches(self.models, task)
        self._encoded = None
        self._is_checked = False

    @property
    def device(self):
        return next(self.models[0].parameters()).device

    def inputs_of(self, sample, training=True):
        """The teacher's arguments for a student's batch, for `logits` and the other methods.

        Args:
            sample: a batch as the student's task collates it
            training: whether it is of the training split
        Returns:
            arguments of the teacher's forward, without the language tokens that it adds
        """
        return self.source.inputs(sample, training)

    @torch.no_grad()
    def logits(self, net_input):
        """The logits of the next token after every prefix of a batch, as `LazyLogits`.

        Args:
            net_input: see `inputs_of`
        Raises:
            ValueError: a model is of a kind that does not score targets
        """
        inputs = self.language_tokens.add_to_inputs(net_input)
        if not self._is_checked:
            for model in self.models:
                check_teacher(model, inputs)
            self._is_checked = True
        encoded = self.encoder_outputs(net_input)
        rows = len(net_input["src_tokens"])
        outputs = [features_of(model, inputs, one) for model, one in zip(self.models, encoded)]
        shift = self.language_tokens.shift
        outputs = [
            (features.unflatten(0, (rows, -1))[:, shift:].flatten(0, 1), layer)
            for features, layer in outputs
        ]
        return LazyLogits(outputs, self.language_tokens.n_symbols)

    def prefix_scorer(self, net_input):
        """A function that scores several prefixes of one sentence at once.

        Args:
            net_input: the source, a batch of one, as fairseq collates it
        Returns:
            called with a (1, length) prefix and n, it gives the (n, vocab) log-probabilities
            of the tokens after its last n prefixes, itself included. Between calls fairseq's
            own Transformers keep what they have read; others read everything again
        """
        encoded, added = self.encoder_outputs(net_input), self.language_tokens
        is_kept = all(map(can_read_blocks, self.models)) and None not in encoded
        readers = list(map(BlockReader, self.models, encoded)) if is_kept else []

        def score(prefix, n):
            if not readers:
                logits = self.logits({**net_input, "prev_output_tokens": prefix})
                return logits.at(slice(prefix.size(1) - n, prefix.size(1))).log_softmax(-1)
            contexts = added.add_to_contexts(prefix)
            outputs = [(one.features(contexts, n), one.output_layer) for one in readers]
            return LazyLogits(outputs, added.n_symbols).at(slice(0, n)).log_softmax(-1)

        return score

    @torch.no_grad()
    def encoder_outputs(self, net_input):
        """Encode a batch once: calls with the same sources reuse the last encoder outputs.

        Args:
            net_input: as for `logits`, or its sources alone
        Returns:
            a list with each model's encoder output; None for a model that cannot be called
            in two parts
        """
        if not any(can_encode_once(model) for model in self.models):
            return [None] * len(self.models)
        sources = net_input["src_tokens"]
        if self._encoded is None or not torch.equal(self._encoded[0], sources):
            inputs = self.language_tokens.add_to_inputs(net_input)
            self._encoded = sources, [encode(model, inputs) for model in self.models]
        return self._encoded[1]

    def incremental_scorer(self, net_input):
        """An `IncrementalScorer` for contexts of the student.

        Args:
            net_input: the sources of a batch, as fairseq collates them
        """
        encoded = self.encoder_outputs(net_input)  # serves when the rows are scored as well
        inputs = self.language_tokens.add_to_inputs(net_input)
        start, n_symbols = self.language_tokens.context_start, self.language_tokens.n_symbols
        pad = self.task.target_dictionary.pad()
        return IncrementalScorer(self.models, inputs, pad, encoded, start, n_symbols)

    def generate(self, net_input, options, ids=None, draw=0):
        """The ``options.nbest`` best finished hypotheses of every sentence.

        Args:
            net_input: ``src_tokens`` (batch, length) and ``src_lengths`` (batch,)
            options: `SearchOptions`
            ids, draw: the seeds of samples, as for `SeededSampling.seed_batch`
        Returns:
            for each sentence its hypotheses, best first: fairseq's dictionaries
            with ``tokens`` (length,) that end in EOS, without language tokens, ``score`` in
            nats a token (language tokens counted), and ``finished``: False if it was cut at
            the longest length, and EOS put there
        """
        inputs = self.language_tokens.add_to_inputs(net_input)
        found = self._searches.run(inputs, options, ids, draw)
        longest = self._longest(inputs["src_tokens"].size(1), options)
        for hypothesis in itertools.chain(*found):
            hypothesis["finished"] = len(hypothesis["tokens"]) <= longest
            hypothesis["tokens"] = self.language_tokens.strip(hypothesis["tokens"])
        return [hypotheses[: options.nbest] for hypotheses in found]

    def max_positions(self):
        """The longest plain source and target, in tokens with EOS, that the teacher takes."""
        of_task = self.task.max_positions()
        if isinstance(of_task, dict):  # of each direction
            of_task, *_ = of_task.values()
        of_models = [model.max_positions() for model in self.models]
        limits = utils.resolve_max_positions(of_task, *of_models)
        added = self.language_tokens.n_source, self.language_tokens.n_target
        return tuple(limit - more for limit, more in zip(limits, added))

    def max_source_positions(self):
        """The longest source, in tokens with EOS, that task and models can take."""
        return self.max_positions()[0]

    def max_target_positions(self):
        """The longest target, in tokens with EOS, that all models can take."""
        return self._max_decoder_positions() - self.language_tokens.n_target

    def longest_target(self, source_length, options):
        """How many tokens, with EOS, a target may have before it is cut.

        Args:
            source_length: in tokens with EOS
            options: `SearchOptions`
        """
        added = self.language_tokens
        return self._longest(source_length + added.n_source, options) - added.n_target

    def _longest(self, source_length, options):
        return options.longest(source_length, self._max_decoder_positions())

    def _max_decoder_positions(self):
        return min(model.max_decoder_positions() for model in self.models)

    def check_dictionaries(self, task):
        """Refuse a student whose symbols are not the teacher's.

        The teacher may have language tokens behind them, which its task appended.

        Args:
            task: the student's task
        Raises:
            ValueError: names the first index that differs and both symbols
        """
        if not self.knows_dictionary:
            return
        for side in self.source.shared_sides:
            ours = getattr(self.task, f"{side}_dictionary", None)
            theirs = getattr(task, f"{side}_dictionary", None)
            if ours is not None and theirs is not None:
                check_same_symbols(side, ours, theirs, self.language_tokens.names)


class StudentSource:
    """The teacher reads what the student reads."""

    shared_sides = ("source", "target")  # whose dictionaries must be the same

    def inputs(self, sample, training=True):
        """See `Teacher.inputs_of`."""
        return sample["net_input"]


class NothingAdded:
    """In the place of `LanguageTokens` where the models read the batches as they are."""

    n_source = shift = n_target = 0
    context_start = n_symbols = None
    names = frozenset()

    def add_to_inputs(self, net_input):
        return net_input

    def add_to_contexts(self, contexts):
        return contexts

    def strip(self, tokens):
        return tokens


class LazyLogits:
    """A teacher's logits at every position of a batch, computed when they are asked for.

    Args:
        outputs: for each model a pair of (positions, width) features and the output layer, so
            that ``output_layer(features[i])`` are its logits; see `features_of`
        n_symbols: how many symbols count, the first ones; None: all
    """

    # A matrix product of fewer positions takes as long: all weights are read for it.
    _AT_ONCE = 128

    def __init__(self, outputs, n_symbols=None):
        self._outputs = outputs
        self._n_symbols = n_symbols
        self._block, self._logits = range(0), None

    def __len__(self):
        return len(self._outputs[0][0])

    def select(self, index):
        """The logits of some positions, (n,) of the flattened batch."""
        outputs = [(one[index.to(one.device)], layer) for one, layer in self._outputs]
        return LazyLogits(outputs, self._n_symbols)

    def at(self, positions):
        """(n, vocab) float32 logits at a slice of positions.

        Of several models, the log of their mean probability. A block of positions is computed
        at once and the last block is kept: ask for slices in ascending order.
        """
        first, last, _ = positions.indices(len(self))
        if not (first in self._block and last <= self._block.stop):
            self._block = range(first, max(last, min(first + self._AT_ONCE, len(self))))
            self._logits = self._compute(slice(self._block.start, self._block.stop))
        return self._logits[first - self._block.start : last - self._block.start]

    @torch.no_grad()
    def _compute(self, positions):
        logits = [
            layer(features[positions])[:, : self._n_symbols].float()
            for features, layer in self._outputs
        ]
        if len(logits) == 1:
            return logits[0]
        lprobs = torch.stack([torch.log_softmax(one, dim=-1) for one in logits])
        return torch.logsumexp(lprobs, dim=0) - math.log(len(logits))

    def top_k(self, k, temperature=1.0):
        """The `TopK` of all positions."""
        parts = [top_k(self.at(one), k, temperature) for one in self._slices()]
        return TopK(*(torch.cat(tensors) for tensors in zip(*parts)))

    def top_k_and_targets(self, k, temperature, targets):
        """The `TopK` of all positions, and (positions,) log p of (positions,) targets at T = 1.

        The output layer runs once for both.
        """
        parts, lprobs = [], []
        for positions in self._slices():
            logits = self.at(positions)
            top = top_k(logits, k, temperature)
            parts.append(top)
            wanted = torch.stack([targets[positions], top.symbols[:, 0]], dim=-1)
            of_targets, of_first = logits.gather(-1, wanted).unbind(-1)
            # At temperature 1 the top k has the sum over the vocabulary already.
            log_total = of_first - top.lprobs[:, 0]
            if temperature != 1:
                log_total = logits.logsumexp(-1)
            lprobs.append(of_targets - log_total)
        top = TopK(*(torch.cat(tensors) for tensors in zip(*parts)))
        return top, torch.cat(lprobs)

    def _slices(self):
        vocab = self.at(slice(0, 1)).size(-1)
        return position_slices(len(self), vocab, self._outputs[0][0].device)
