"""fairseq's search over a teacher's hypotheses."""

from argparse import Namespace

from fairseq_seqkd.decoding.sampling import SeededSampling


class Searches:
    """Searches with some models, and keeps a generator for each `SearchOptions`.

    Args:
        models: fairseq models whose probabilities are averaged
        task: the fairseq task that built them
    """

    def __init__(self, models, task):
        self.models, self.task = models, task
        self._generators = {}

    def run(self, inputs, options, ids=None, draw=0):
        """A list of fairseq's hypotheses of every sentence, best first.

        Args:
            inputs: the models' inputs, as fairseq collates them
            options: `SearchOptions`
            ids, draw: the seeds of samples, as for `SeededSampling.seed_batch`
        """
        if options not in self._generators:
            self._generators[options] = self._build(options)
        generator = self._generators[options]
        if options.sampling:
            generator.search.seed_batch(ids, draw)
        self._set_beam(options.beam)
        found = self.task.inference_step(generator, self.models, {"net_input": inputs})
        self._set_beam(1)
        return found

    def _set_beam(self, beam):
        """Tell models that keep a beam size of their own (BART) the one in use."""
        for model in self.models:
            if hasattr(model, "set_beam_size"):
                model.set_beam_size(beam)

    def _build(self, options):
        names = ("beam", "lenpen", "max_len_a", "max_len_b")
        arguments = Namespace(**{name: getattr(options, name) for name in names})
        generator = self.task.build_generator(self.models, arguments)
        if options.sampling:
            generator.search = SeededSampling(self.task.target_dictionary, options)
        return generator
